"""Fisher's exact test and the information gain, read off the key-token values of every table."""

import math
from functools import partial
from itertools import product

import numpy as np
import oracle
import pytest
import torch

import ktae

FISHER = {"fisher_weight": 1.0, "information_gain_weight": 0.0, "term_frequency_weight": 0.0}
INFORMATION_GAIN = {"fisher_weight": 0.0, "information_gain_weight": 1.0, "term_frequency_weight": 0.0}
SPLITS = [(n_t, size - n_t) for size in range(2, 11) for n_t in range(1, size)]
LARGE_SPLITS = [(60, 40), (8, 8), (16, 16), (3, 29), (31, 33), (1, 99)]


def value_of_every_table(n_t, n_f, **config):
    """{(a, b): key-token value} from one group that has a token for every table but the empty (0, 0).

    Position j holds token j; the first `a` correct and the first `b` incorrect rollouts contain it.
    """
    tables = [(a, b) for a, b in product(range(n_t + 1), range(n_f + 1)) if a + b]
    a_t, b_t = torch.tensor(tables).T
    rank_n = torch.cat([torch.arange(n_t), torch.arange(n_f)])[:, None]
    correct_n = torch.arange(n_t + n_f) < n_t
    mask = torch.where(correct_n[:, None], rank_n < a_t, rank_n < b_t)
    token_ids = torch.arange(len(tables)).expand(n_t + n_f, -1)
    group_ids = torch.zeros(n_t + n_f, dtype=torch.int64)
    values = ktae.key_token_values(token_ids, mask, correct_n.float(), group_ids, config=ktae.KTAEConfig(**config))
    for column, row_mask in zip(values.T, mask.T, strict=True):
        assert column[row_mask].unique().numel() == 1, "one value a token and group"
    return {table: values[mask[:, j], j][0].item() for j, table in enumerate(tables)}


def mutual_information(a, b, n_t, n_f):
    """The information gain written the other way round: sum of p(x, y) log2 (p(x, y) / p(x) p(y))."""
    joint = np.array([[a, b], [n_t - a, n_f - b]]) / (n_t + n_f)
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log2(joint[seen] / independent[seen])).sum())


def fisher(kind):
    """A score of 0 where p is 1."""
    return {**FISHER, "fisher": kind}, partial(oracle.fisher_score, kind=kind)


@pytest.mark.parametrize(
    ("config", "strength", "n_t", "n_f"),
    [
        *((*fisher("exact"), *split) for split in SPLITS + LARGE_SPLITS),
        *((*fisher("released"), *split) for split in [*SPLITS, (8, 8), (5, 11), (16, 16)]),
        *((INFORMATION_GAIN, mutual_information, *split) for split in SPLITS + LARGE_SPLITS),
    ],
)
def test_scores_of_every_table(config, strength, n_t, n_f):
    for (a, b), value in value_of_every_table(n_t, n_f, **config).items():
        expected = math.tanh(strength(a, b, n_t, n_f) * oracle.cohen(a, b, n_t, n_f) / 2)
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-9), (a, b)
