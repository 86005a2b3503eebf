"""ms-swift's hook in runs of `swift rlhf` on a tiny model, where it is installed; its refusals everywhere."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ms_swift_worker import CONFIG, write_files
from processes import ONE, TWO, start
from torch.nn.utils.rnn import pad_sequence

import ktae
from ktae.integrations.credit import TokenCredit
from ktae.integrations.ms_swift import add_to_advantages, with_credit

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


class Trainer:
    """The settings of ms-swift's trainer that decide whether token-level credit survives."""

    def __init__(self, **changes):
        settings = {
            "importance_sampling_level": "token",
            "loss_type": "grpo",
            "use_liger_loss": False,
            "off_policy_sequence_mask_delta": None,
            "template": SimpleNamespace(sequence_parallel_size=1),
            "reward_func_names": ["HasA"],
        }
        vars(self).update(settings | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"importance_sampling_level": "sequence"}, r"must be one of \('token', 'sequence_token'\)"),
        ({"loss_type": "real"}, "--loss_type must be another .* got 'real'"),
        ({"use_liger_loss": True}, "use_liger_kernel must be False"),
        ({"off_policy_sequence_mask_delta": 0.5}, "must be None .* got 0.5"),
        ({"template": SimpleNamespace(sequence_parallel_size=2)}, "--sequence_parallel_size must be 1 .* got 2"),
        ({"reward_func_names": ["HasA", "Length"]}, r"one of the reward functions \['HasA', 'Length'\], got None"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        with_credit(Trainer, TokenCredit())(**changes)


def test_an_unknown_correctness_reward_is_refused():
    with pytest.raises(ValueError, match=r"one of the reward functions \['HasA'\], got 'hasa'"):
        with_credit(Trainer, TokenCredit(), correctness_reward="hasa")()


def test_a_mask_that_does_not_fit_the_labels_is_refused():
    batch = SimpleNamespace(completion_mask=torch.tensor([[0, 1, 1]]), advantages=torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"as many tokens as a sample has labels, \[3\], got \[2\]"):
        add_to_advantages(batch, [[0.5, 0.5, 0.5]])
