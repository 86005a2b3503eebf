"""Advantages recorded from the authors' released code, and from the same code with an exact Fisher test."""

import numpy as np
import oracle
import pytest
import torch

import ktae

pytestmark = pytest.mark.usefixtures("both_paths")

FILES = ("g4", "g5_odd", "g8", "g16", "g16_shuffled", "g16_dapo")
INPUTS = ("token_ids", "mask", "rewards", "group_ids")
COLUMNS = {"exact": "advantages_exact_fisher", "released": "advantages_released"}
TOLERANCE = 1e-5


@pytest.fixture(params=FILES)
def golden(request, shared):
    with np.load(shared / "data" / "golden" / f"{request.param}.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize(
    ("config", "column"),
    [
        (ktae.KTAEConfig(), "advantages_exact_fisher"),
        (ktae.KTAEConfig.released(), "advantages_released"),
    ],
    ids=["default", "released"],
)
def test_package(golden, config, column):
    """The released code never values its padding token, which is masked in these batches: no id has to be excluded."""
    advantages = ktae.ktae_advantages(*(torch.from_numpy(golden[name]) for name in INPUTS), config=config)
    np.testing.assert_allclose(advantages.numpy(), golden[column], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("fisher", COLUMNS)
def test_oracle(golden, fisher):
    inputs = (golden[name] for name in INPUTS)
    advantages = oracle.ktae_advantages(*inputs, fisher=fisher)
    np.testing.assert_allclose(advantages, golden[COLUMNS[fisher]], rtol=0, atol=TOLERANCE)
