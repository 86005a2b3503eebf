"""KTAETrainer on two processes: groups straddle them, and their completions have unequal widths."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

pytest.importorskip("trl")

import pandas
import tiny
from processes import TWO, start
from tiny import quick  # noqa: F401 (a fixture)
from trl_worker import CASES, OWN, train

pytestmark = [
    pytest.mark.slow,
    *tiny.WARNINGS,
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs the gloo backend"),
]

WORKER = Path(__file__).with_name("trl_worker.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes left what they did."""
    folder = tmp_path_factory.mktemp("processes")
    start([*TWO, WORKER, folder])
    return folder


@pytest.fixture(scope="module")
def processes(folder):
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
        self.mask = self._joined(first, second, "completion_mask")

    def _joined(self, first, second, name):
        parts = (first["batch"][name], second["batch"][name])
        return torch.cat([pad(part, (0, max(self.widths) - part.shape[1])) for part in parts])


def generations(processes, case):
    first, second = (process[case]["rollouts"] for process in processes)
    return [Both(*pair) for pair in zip(first, second, strict=True)]


def group_sizes(case, both):
    """The group size of each generation; an evaluation comes last."""
    sizes = [CASES[case]["num_generations"]] * len(both)
    if "num_generations_eval" in CASES[case]:
        training = len(both) - 2
        sizes[training:] = [CASES[case]["num_generations_eval"]] * 2
    return sizes


@pytest.mark.parametrize("case", [case for case in CASES if case != OWN])
def test_advantages_are_those_of_the_whole_groups(processes, case):
    both = generations(processes, case)
    informative = False
    for batch, size in zip(both, group_sizes(case, both), strict=True):
        groups = [batch.prompts[start : start + size] for start in range(0, len(batch.prompts), size)]
        assert all(len(set(prompts)) == 1 for prompts in groups)
        key = tiny.key_values(batch.ids, batch.rewards[:, 0], size)
        wanted = (batch.rollout_advantages[:, None] + key) * batch.mask
        torch.testing.assert_close(batch.advantages, wanted, rtol=0, atol=1e-6)
        informative |= bool(key.any())
    assert informative
    assert any(batch.widths[0] != batch.widths[1] for batch in both)


@pytest.mark.parametrize("case", CASES)
def test_one_process_gets_the_same_advantages(processes, case, tmp_path):
    """The same rollouts, replayed in one process of twice the size."""
    both = generations(processes, case)
    doubled = {name: 2 * value for name, value in CASES[case].items() if name.startswith("per_device")}
    settings = CASES[case] | doubled | {"log_completions": False}
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


def test_completions_table_has_the_rollouts_of_all_processes(folder, processes):
    """The main process writes it."""
    case = "groups of 6"
    number = list(CASES).index(case)
    for step, batch in enumerate(generations(processes, case), start=1):
        table = pandas.read_parquet(folder / str(number) / "completions" / f"completions_{step:05d}.parquet")
        assert table["prompt"].tolist() == batch.prompts
        assert table["advantage"].tolist() == batch.rollout_advantages.tolist()
        key = tiny.key_values(batch.ids, batch.rewards[:, 0], 6)
        means = [sum(row) / len(ids) for row, ids in zip(key.tolist(), batch.ids, strict=True)]
        assert table["key_token_value"].tolist() == pytest.approx(means, abs=1e-6)
