"""TRL's trainers on two processes: groups straddle them, and their completions have unequal widths.

Run as a program, as one of them, it writes FOLDER/RANK.pt: for each case what was generated, advantages, metrics and
the weights in the end.
"""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

pytest.importorskip("trl")

import tiny
from processes import TWO, start
from tiny import quick, weights  # noqa: F401 (a fixture)
from trl.rewards import get_soft_overlong_punishment

from ktae.integrations.trl import KTAETrainer, TokenAdvantageTrainer
from ktae.integrations.trl_dynamic_sampling import DynamicSamplingTrainer
from ktae.train.trainer import RunTrainer

pytestmark = [
    pytest.mark.slow,
    *tiny.WARNINGS,
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs the gloo backend"),
]

# In each of them some group has rows on both processes.
CASES = {
    "groups of 2": {"per_device_train_batch_size": 3, "num_generations": 2, "max_steps": 4},
    "groups of 4, two steps a generation": {
        **{"per_device_train_batch_size": 3, "steps_per_generation": 2, "num_generations": 4, "max_steps": 4},
        "mask_truncated_completions": True,
    },
    "evaluation in groups of 4": {
        **{"per_device_train_batch_size": 6, "num_generations": 6},
        **{"per_device_eval_batch_size": 6, "num_generations_eval": 4},
    },
}
# The same with an estimator that looks at what is gathered only for it.
OWN = "groups of 4, an estimator of one's own"
CASES[OWN] = {"per_device_train_batch_size": 6, "num_generations": 4, "max_steps": 1}
# What `ktae train` trains with: dynamic sampling, KTAE, penalty and all; the weights must come out the same too.
RUN = "a run"
CASES[RUN] = {
    "loss_type": "dapo",
    "epsilon_high": 0.28,
    "optim": "adamw_torch",
    "learning_rate": 0.001,
    "max_grad_norm": 1.0,
    "num_generations": 4,
    "per_device_train_batch_size": 6,
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 2,  # one update a generation: TRL draws mini-batches per process
    "max_steps": 8,
    "shuffle_dataset": False,
}


def own(rollouts):
    """A token's entropy beside the mean over all rollouts' tokens, and its state."""
    [rollouts.require(name) for name in ("entropies", "states")]
    mean = (rollouts.entropies * rollouts.mask).sum() / rollouts.mask.sum()
    return (rollouts.entropies - mean + 0.01 * rollouts.states) * rollouts.mask


def place(rollout):
    return range(len(rollout["token_ids"]))


def correct(completion_ids, **columns):
    """Some cannot be scored, and hardly any group of the first problems is mixed."""
    wanted = {tiny.IDS["a"], tiny.IDS["b"]}
    return [None if ids[0] == tiny.IDS["j"] else float(wanted <= set(ids)) for ids in completion_ids]


def train(folder, case, settings, **kwargs):
    """Runs a case, with an evaluation if it has one, and returns the trainer."""
    bases = {OWN: (TokenAdvantageTrainer,), RUN: (KTAETrainer, DynamicSamplingTrainer, RunTrainer)}
    trainer = type("Trainer", (tiny.Recorder, *bases.get(case, (KTAETrainer,))), {})
    if case == OWN:
        kwargs |= {"advantages": own, "states": place}
    if case == RUN:
        kwargs |= {"reward_funcs": [correct, get_soft_overlong_punishment(tiny.LENGTH, 4)]}
        kwargs |= {"correctness_reward": "correct", "rollout_func": tiny.hashed}
    trainer = tiny.build(folder, trainer, settings=settings, eval_dataset=tiny.prompts(6), **kwargs)
    trainer.train()
    if "num_generations_eval" in settings:
        trainer.evaluate()
    return trainer


def main():
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    written = {}
    for number, (name, settings) in enumerate(CASES.items()):
        trainer = train(folder / str(number), name, settings)
        assert trainer.accelerator.num_processes == 2
        rollouts = [vars(generation) for generation in trainer.rollouts]
        written[name] = {"rollouts": rollouts, "log": trainer.state.log_history, "weights": weights(trainer)}
    torch.save(written, folder / f"{trainer.accelerator.process_index}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What two processes did."""
    folder = tmp_path_factory.mktemp("processes")
    start([*TWO, __file__, folder])
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def joined(first, second):
    """The advantages of one generation of both processes, as one batch."""
    parts = [part["batch"]["advantages"] for part in (first, second)]
    width = max(part.shape[1] for part in parts)
    return torch.cat([pad(part, (0, width - part.shape[1])) for part in parts])


@pytest.mark.parametrize("case", CASES)
def test_one_process_comes_to_the_same(processes, case, tmp_path):
    """The same rollouts, replayed in one process of twice the size; test_trl.py has what one process gives."""
    first, second = (process[case] for process in processes)
    generations = list(zip(first["rollouts"], second["rollouts"], strict=True))
    doubled = {name: 2 * value for name, value in CASES[case].items() if name.startswith("per_device")}
    replayed = tiny.replay([one["ids"] + other["ids"] for one, other in generations])
    alone = train(tmp_path, case, CASES[case] | doubled, rollout_func=replayed)
    assert len(alone.rollouts) == len(generations)
    for rollouts, pair in zip(alone.rollouts, generations, strict=True):
        assert rollouts.prompts == pair[0]["prompts"] + pair[1]["prompts"]
        assert all(torch.equal(part["rewards"].nan_to_num(9), rollouts.rewards.nan_to_num(9)) for part in pair)
        torch.testing.assert_close(joined(*pair), rollouts.batch["advantages"], rtol=0, atol=1e-6)
    assert any(joined(*pair).any() for pair in generations)
    if case != OWN:
        widths = [[part["batch"]["advantages"].shape[1] for part in pair] for pair in generations]
        assert any(one != other for one, other in widths)

    assert torch.equal(first["weights"], second["weights"])
    assert metrics(first["log"]) == metrics(second["log"])
    for row, other in zip(metrics(alone.state.log_history), metrics(first["log"]), strict=True):
        assert row
        assert row == pytest.approx(other, abs=1e-5)
    if case == RUN:
        torch.testing.assert_close(first["weights"], weights(alone), rtol=1e-4, atol=1e-6)
        assert max(row["dynamic_sampling/rounds"] for row in first["log"][:-1]) > 1
        assert max(row["unscored"] for row in first["log"][:-1]) > 0


def metrics(log):
    """What each logged step has that depends on no time."""
    known = ("reward", "accuracy", "unscored", "num_tokens", "dynamic_sampling/", "ktae/", "eval_ktae/", "clip_ratio/r")
    rows = [row for row in log if "loss" in row or "eval_loss" in row]
    return [{name: row[name] for name in row if name.startswith(known) and "seconds" not in name} for row in rows]


if __name__ == "__main__":
    main()
