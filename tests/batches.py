"""Random batches of rollouts for the tests, small and large.

Hypothesis draws the shape of a batch, so failures shrink to few rollouts, few positions and few token ids;
a seed that it also draws fills in the contents.
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from ktae.config import KTAEConfig

CONFIGS = {
    "default": KTAEConfig(),
    "recommended": KTAEConfig.recommended(),
    "centered": KTAEConfig(ngram=4, centered=True),
    "released": KTAEConfig(context=1, fisher="released", exclude_token_ids=(1, 2, 10**12)),
}
of_every_kind = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
INT64 = np.iinfo(np.int64)


class Batch(NamedTuple):
    token_ids: torch.Tensor  # (N, T) int64
    mask: torch.Tensor  # (N, T) bool
    rewards: torch.Tensor  # (N,) float64
    group_ids: torch.Tensor  # (N,) int64

    def rows(self, index):
        return Batch(*(tensor[index] for tensor in self))

    def numpy(self):
        return tuple(tensor.numpy() for tensor in self)


REWARDS = {
    "0 or 1": lambda rng, n: rng.choice([0.0, 1.0], n),
    "-1 or 1": lambda rng, n: rng.choice([-1.0, 1.0], n),
    "overlong": lambda rng, n: rng.choice([-1.5, -1.0, 0.5, 1.0], n),
    "real": lambda rng, n: rng.normal(size=n),
    "ties at 0": lambda rng, n: rng.integers(-4, 5, n) / 4,
}


@st.composite
def batches(draw, rewards=tuple(REWARDS), unscored=(0.0, 0.0, 0.2, 0.6)):
    """Unequal groups whose rows are shuffled, few distinct ids, holes in the mask, NaN for no reward."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    n, t = sum(sizes), draw(st.integers(1, 14))
    vocabulary_size = draw(st.integers(1, 10))
    largest_id = draw(st.sampled_from([vocabulary_size, 151_643, INT64.max]))
    kind = draw(st.sampled_from(rewards))
    density = draw(st.sampled_from([0.15, 0.6, 0.9, 1.0]))
    missing = draw(st.sampled_from(unscored))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    vocabulary = rng.integers(0, largest_id, vocabulary_size, endpoint=True)
    weights = rng.dirichlet(np.ones(vocabulary_size))  # some ids rare, some in nearly every rollout
    mask = rng.random((n, t)) < density
    anything = rng.integers(INT64.min, INT64.max, (n, t), endpoint=True)
    token_ids = np.where(mask, rng.choice(vocabulary, (n, t), p=weights), anything)
    scores = np.where(rng.random(n) < missing, np.nan, REWARDS[kind](rng, n))
    group_ids = np.repeat(rng.integers(INT64.min, INT64.max, len(sizes), endpoint=True), sizes)
    return Batch(*map(torch.from_numpy, (token_ids, mask, scores, rng.permutation(group_ids))))


@st.composite
def states(draw, batch):
    """None, or a state of each token, of which there are few."""
    if draw(st.booleans()):
        return None
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return torch.from_numpy(rng.choice([-(2**40), 0, 3], tuple(batch.mask.shape)))


weights = st.just(0.0) | st.floats(0.01, 5.0)


@st.composite
def configs(draw, batch):
    """Keyword arguments of KTAEConfig; some of the excluded ids occur in the batch."""
    fisher_weight, information_gain_weight = draw(st.tuples(weights, weights).filter(any))
    context = draw(st.sampled_from([0, 0, 1, 2, 5]))
    used_ids = batch.token_ids[batch.mask].unique().tolist()
    return {
        "fisher_weight": fisher_weight,
        "information_gain_weight": information_gain_weight,
        "term_frequency_weight": draw(weights),
        "correct_above": draw(st.sampled_from([0.0, 0.0, -0.5, 0.25, 0.75])),
        "exclude_token_ids": tuple(draw(st.sets(st.sampled_from([*used_ids, 10**12]), max_size=3))),
        "scale": draw(st.sampled_from([1.0, 0.25, 2.0])),
        "fisher": draw(st.sampled_from(["exact", "exact", "released"])),
        "context": context,
        "ngram": draw(st.sampled_from([1, 1, context + 2, context + 4])),
        "centered": draw(st.booleans()),
    }


def batch_of(groups, size, columns, ids=1000, full=False):
    """Groups of any size, their rows shuffled: some ids frequent, many rare."""
    generator = torch.Generator().manual_seed(0)
    rows = groups * size
    skewed = torch.rand(rows, columns, generator=generator) ** 4 * ids
    lengths = torch.full((rows,), columns) if full else torch.randint(0, columns + 1, (rows,), generator=generator)
    mask = torch.arange(columns) < lengths[:, None]
    rewards = torch.arange(rows) % 3 % 2.0
    return Batch(skewed.long(), mask, rewards, torch.randperm(rows, generator=generator) // size)
