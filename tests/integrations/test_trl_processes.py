"""KTAETrainer on two processes: groups straddle them, and their completions have unequal widths.

Run as a program, as one of them, it writes FOLDER/RANK.pt: for each case what was generated, advantages and metrics.
"""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

pytest.importorskip("trl")

import tiny
from processes import TWO, start
from tiny import quick  # noqa: F401 (a fixture)

from ktae.integrations.trl import TokenAdvantageTrainer

pytestmark = [
    pytest.mark.slow,
    *tiny.WARNINGS,
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs the gloo backend"),
]


# In each of them some group has rows on both processes.
CASES = {
    "groups of 2": {"per_device_train_batch_size": 3, "num_generations": 2, "max_steps": 4},
    "groups of 6": {"per_device_train_batch_size": 3, "num_generations": 6, "max_steps": 4},
    "groups of 4, two steps a generation": {
        "per_device_train_batch_size": 3,
        "steps_per_generation": 2,
        "num_generations": 4,
        "max_steps": 4,
        "mask_truncated_completions": True,
    },
    "evaluation in groups of 4": {
        "per_device_train_batch_size": 6,
        "num_generations": 6,
        "num_generations_eval": 4,
        "per_device_eval_batch_size": 6,
    },
}
# The same with an estimator that looks at what is gathered only for it.
OWN = "groups of 4, an estimator of one's own"
CASES[OWN] = {"per_device_train_batch_size": 6, "num_generations": 4, "max_steps": 1}


def own(rollouts):
    """A token's entropy beside the mean over all rollouts' tokens, and its state."""
    [rollouts.require(name) for name in ("entropies", "states")]
    mean = (rollouts.entropies * rollouts.mask).sum() / rollouts.mask.sum()
    return (rollouts.entropies - mean + 0.01 * rollouts.states) * rollouts.mask


def place(rollout):
    return range(len(rollout["token_ids"]))


def train(folder, case, settings, **kwargs):
    """Runs a case, with an evaluation if it has one, and returns the trainer."""
    if case == OWN:
        kwargs |= {"advantages": own, "states": place}
        kwargs["trainer"] = type("RecordedToken", (tiny.Recorder, TokenAdvantageTrainer), {})
    trainer = tiny.build(folder, settings=settings, eval_dataset=tiny.prompts(6), **kwargs)
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
        written[name] = {"rollouts": rollouts, "log": trainer.state.log_history}
    rank = trainer.accelerator.process_index
    torch.distributed.destroy_process_group()
    torch.save(written, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What two processes did."""
    folder = tmp_path_factory.mktemp("processes")
    start([*TWO, __file__, folder])
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


class Both:
    """The rollouts of one generation of both processes, as one batch."""

    def __init__(self, first, second):
        self.prompts = first["prompts"] + second["prompts"]
        self.ids = first["ids"] + second["ids"]
        self.widths = [part["batch"]["completion_ids"].shape[1] for part in (first, second)]
        self.rewards, self.rollout_advantages = first["rewards"], first["rollout_advantages"]
        assert torch.equal(self.rewards, second["rewards"])
        assert torch.equal(self.rollout_advantages, second["rollout_advantages"])
        for part, width in zip((first, second), self.widths, strict=True):
            assert part["batch"]["advantages"].shape == (len(part["ids"]), width)
        self.advantages = self._joined(first, second, "advantages")

    def _joined(self, first, second, name):
        parts = (first["batch"][name], second["batch"][name])
        return torch.cat([pad(part, (0, max(self.widths) - part.shape[1])) for part in parts])


def generations(processes, case):
    first, second = (process[case]["rollouts"] for process in processes)
    return [Both(*pair) for pair in zip(first, second, strict=True)]


@pytest.mark.parametrize("case", CASES)
def test_one_process_gets_the_same_advantages(processes, case, tmp_path):
    """The same rollouts, replayed in one process of twice the size; test_trl.py has what one process gives."""
    both = generations(processes, case)
    assert any(batch.advantages.any() for batch in both)
    if case != OWN:
        assert any(batch.widths[0] != batch.widths[1] for batch in both)
    doubled = {name: 2 * value for name, value in CASES[case].items() if name.startswith("per_device")}
    settings = CASES[case] | doubled
    replayed = train(tmp_path, case, settings, rollout_func=tiny.replay([batch.ids for batch in both]))
    assert len(replayed.rollouts) == len(both)
    for rollouts, batch in zip(replayed.rollouts, both, strict=True):
        assert rollouts.prompts == batch.prompts
        assert torch.equal(rollouts.rewards, batch.rewards)
        torch.testing.assert_close(batch.advantages, rollouts.batch["advantages"], rtol=0, atol=1e-6)

    logs = [metrics(process[case]["log"]) for process in processes]
    assert logs[0] == logs[1]
    alone = metrics(replayed.state.log_history)
    assert len(alone) == len(logs[0]) > 0
    for row, other in zip(alone, logs[0], strict=True):
        assert row == pytest.approx(other, abs=1e-6)


def metrics(log):
    """The estimator's metrics of each logged step, without the time they took."""
    rows = [{name: row[name] for name in row if "ktae/" in name and "seconds" not in name} for row in log]
    return [row for row in rows if row]


if __name__ == "__main__":
    main()
