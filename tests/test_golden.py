"""Advantages recorded from the authors' released code, and from the same code with an exact Fisher test.

The released code's float32 rounds differently on different processors: two machines were recorded, and
`released_stable` is True where they agree. tests/golden/*.npz are random inputs and what the code made of them.
"""

from pathlib import Path

import numpy as np
import oracle
import pytest
import torch

import ktae

pytestmark = pytest.mark.usefixtures("both_paths")

FOLDER = Path(__file__).parent / "golden"
FILES = ("g4", "g5_odd", "g8", "g16", "g16_shuffled", "g16_dapo")
INPUTS = ("token_ids", "mask", "rewards", "group_ids")
TOLERANCE = 1e-5


@pytest.fixture(params=FILES)
def golden(request):
    with np.load(FOLDER / f"{request.param}.npz") as arrays:
        return dict(arrays)


def by_package(inputs, fisher):
    config = ktae.KTAEConfig(fisher=fisher)
    return ktae.ktae_advantages(*map(torch.from_numpy, inputs), config=config).numpy()


def by_oracle(inputs, fisher):
    return oracle.ktae_advantages(*inputs, fisher=fisher)


@pytest.mark.parametrize("estimator", [by_package, by_oracle])
def test_exact(golden, estimator):
    advantages = estimator([golden[name] for name in INPUTS], "exact")
    np.testing.assert_allclose(advantages, golden["advantages_exact_fisher"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("estimator", [by_package, by_oracle])
def test_released(golden, estimator):
    """The released code never values its padding token, which is masked in these batches: no id has to be excluded."""
    advantages = estimator([golden[name] for name in INPUTS], "released")
    of_one, of_other = (golden[name] for name in ("advantages_released", "advantages_released_other"))
    agrees_with_one = np.abs(advantages - of_one) <= TOLERANCE
    assert agrees_with_one[golden["released_stable"]].all()
    assert (agrees_with_one | (np.abs(advantages - of_other) <= TOLERANCE)).all()
