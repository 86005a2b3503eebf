"""ms-swift's hook in runs of `swift rlhf` on a tiny model, where it is installed."""

from pathlib import Path

import pytest
import torch
from ms_swift_worker import CONFIG, write_files
from processes import ONE, TWO, start
from torch.nn.utils.rnn import pad_sequence

import ktae

GROUP = 4
GLOO = ["--ddp_backend", "gloo"]
RUNS = {
    # On two processes the middle one of three groups straddles both.
    "one process": (1, ONE, ["--per_device_train_batch_size", "4", "--steps_per_generation", "2"]),
    "two processes": (2, TWO, ["--per_device_train_batch_size", "2", "--steps_per_generation", "3", *GLOO]),
    "two updates": (1, ONE, ["--per_device_train_batch_size", "4", "--num_iterations", "2", "--loss_type", "dapo"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_each_token_gets_its_own_value(tmp_path, name):
    pytest.importorskip("swift", reason="needs ms-swift 4.6, which needs a TRL below 1.0")
    processes, launch, options = RUNS[name]
    write_files(tmp_path)
    worker = Path(__file__).with_name("ms_swift_worker.py")
    offline = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    start([*launch, worker, tmp_path, *options], environment=offline)

    informative = False
    for parts in zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(processes)), strict=True):
        ids = [torch.tensor(flat(row)) for part in parts for row in part["ids"]]
        value_NT = ktae.key_token_values(
            pad_sequence(ids, batch_first=True),
            pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            parts[0]["rewards"][:, 1],
            torch.arange(len(ids)) // GROUP,
            config=ktae.KTAEConfig(**CONFIG),
        )
        rows = iter(zip(value_NT, map(len, ids), strict=True))
        for part in parts:
            for mask, plain, advantages in zip(part["masks"], part["plain"], part["advantages"], strict=True):
                for row in range(len(mask)):
                    value_T, length = next(rows)
                    added = advantages[row] - plain[row]
                    torch.testing.assert_close(added[mask[row].bool()], value_T[:length], rtol=0, atol=1e-6)
                    assert not added[~mask[row].bool()].any()
        assert next(rows, None) is None
        informative |= bool((value_NT > 0.4).any() and (value_NT < -0.1).any())
    assert informative


def flat(ids):
    """Turns are lists of their own."""
    return [token for turn in ids for token in turn] if ids and isinstance(ids[0], list) else ids
