"""Advantages recorded from the authors' released code, and from the same code with an exact Fisher test."""

import numpy as np
import oracle
import pytest
import torch

import ktae

FILES = ("g4", "g5_odd", "g8", "g16", "g16_shuffled", "g16_dapo")
INPUTS = ("token_ids", "mask", "rewards", "group_ids")
COLUMNS = {"exact": "advantages_exact_fisher", "released": "advantages_released"}
EXCLUDED = 151643  # hard-coded in the released code
TOLERANCE = 1e-5


@pytest.fixture(params=FILES)
def golden(request, shared):
    with np.load(shared / "data" / "golden" / f"{request.param}.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("fisher", COLUMNS)
def test_package(golden, fisher):
    config = ktae.KTAEConfig(fisher=fisher, exclude_token_ids=(EXCLUDED,))
    advantages = ktae.ktae_advantages(*(torch.from_numpy(golden[name]) for name in INPUTS), config=config)
    np.testing.assert_allclose(advantages.numpy(), golden[COLUMNS[fisher]], rtol=0, atol=TOLERANCE)


def test_released_preset(golden):
    """The preset needs no further settings: padding is masked, so no id has to be excluded."""
    inputs = (torch.from_numpy(golden[name]) for name in INPUTS)
    advantages = ktae.ktae_advantages(*inputs, config=ktae.KTAEConfig.released())
    np.testing.assert_allclose(advantages.numpy(), golden["advantages_released"], rtol=0, atol=TOLERANCE)


def test_defaults(golden):
    advantages = ktae.ktae_advantages(*(torch.from_numpy(golden[name]) for name in INPUTS))
    np.testing.assert_allclose(advantages.numpy(), golden["advantages_exact_fisher"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("fisher", COLUMNS)
def test_oracle(golden, fisher):
    inputs = (golden[name] for name in INPUTS)
    advantages = oracle.ktae_advantages(*inputs, fisher=fisher, exclude_token_ids=(EXCLUDED,))
    np.testing.assert_allclose(advantages, golden[COLUMNS[fisher]], rtol=0, atol=TOLERANCE)
