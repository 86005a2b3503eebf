"""How well token values find the first wrong step, with intervals clustered by group.

Blame is minus the value. Localisation is measured in incorrect rollouts that have a slip and whose group is mixed
(holds correct rollouts as well); an AUROC is the probability that of two tokens of one rollout the one at fault is
blamed more, ties counting half, averaged over the rollouts in which both kinds occur.

Every metric is a function of sums over groups. The bootstrap draws groups, not tokens: rollouts of one group share a
problem, a policy's habits on it, and the tables that the values come from.

Shape suffixes: _B one entry a rollout, _BT one a token, _BS one a step, _K one a chosen token, _G one a group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ktae.bench.labelled import Label, Rollouts
from ktae.seeds import derived_seed

# Name -> what it is. Of the first six, more is better.
METRICS = {
    "slip": "AUROC of slips against all other tokens of the rollout",
    "before": "AUROC of the first slip against earlier right tokens",
    "after": "AUROC of the first slip against propagated tokens",
    "top": "how often the first slip is the most blamed token of its rollout; k tokens that tie count 1/k",
    "step": "AUROC of the first wrong step against earlier steps, by the mean value of their tokens",
    "low": "the same by the lowest value of their tokens",
    "true": "correlation with the true advantage of results, all rollouts of mixed groups",
    "sign": "share of slips among the tokens of known label with a value below 0, all rollouts of mixed groups",
    "full": "share of tokens with |value| above 0.99 of the largest there is, all rollouts of mixed groups",
}
LOCALISATION = ("slip", "before", "after", "top", "step", "low")
SATURATED = 0.99
# Ends of the calibration's bins, in parts of the largest |value|.
BINS = (-1.0, -0.8, -0.6, -0.4, -0.2, -0.05, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0)
RESAMPLES = 1000

# (G, k) sums of a metric -> (k,) or (R, k) totals -> the metric
_Totals = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval; all NaN where the rollouts have nothing to measure it on."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """Tokens of known label whose value lies in [low, high) of the largest |value| (the last bin holds 1 as well).

    Attributes:
        low, high: its ends.
        tokens: how many there are.
        slips: the share of them that are slips; NaN if there are none.
        measured: how many have a true advantage.
        negative: the share of those whose true advantage is below 0; NaN if there are none. A measured advantage is
            noisy, so of tokens that make no difference a good part counts as well.
        advantage: the mean true advantage of those, which noise does not shift; NaN if there are none.
    """

    low: float
    high: float
    tokens: int
    slips: float
    measured: int
    negative: float
    advantage: float


def group_sums(rollouts: Rollouts, values: Tensor) -> dict[str, np.ndarray]:
    """Of each metric the sums it is made of, one row a group, groups by ascending id.

    Args:
        rollouts: N rollouts.
        values: (N, T) finite floats, an estimator's.

    Returns:
        By the names of `METRICS`, (G, 2) numerators and denominators, or (G, 6) sums for a correlation.

    Raises:
        ValueError: `values` has another shape, or is not finite inside the mask.
    """
    if values.shape != rollouts.mask.shape:
        raise ValueError(f"values must have the shape {tuple(rollouts.mask.shape)}, got {tuple(values.shape)}")
    if not values[rollouts.mask].isfinite().all():
        raise ValueError("values must be finite inside the mask")
    value_BT = torch.where(rollouts.mask, values.double(), 0.0)
    blame_BT = -value_BT
    _, group_B = torch.unique(rollouts.group_ids, return_inverse=True)
    mixed_B = mixed(rollouts)
    judged_B = mixed_B & (rollouts.rewards <= 0) & (rollouts.first_error >= 0)

    column_T = torch.arange(rollouts.mask.shape[1])
    first_BT = (column_T == rollouts.first_error[:, None]) & judged_B[:, None]
    slip_BT = rollouts.mask & (rollouts.labels == Label.SLIP) & judged_B[:, None]
    right_BT = rollouts.mask & (rollouts.labels == Label.RIGHT)
    earlier_BT = column_T < rollouts.first_error[:, None]
    propagated_BT = rollouts.mask & (rollouts.labels == Label.PROPAGATED)

    per_rollout = {
        "slip": _auroc(blame_BT, slip_BT, rollouts.mask & (rollouts.labels != Label.SLIP)),
        "before": _auroc(blame_BT, first_BT, right_BT & earlier_BT),
        "after": _auroc(blame_BT, first_BT, propagated_BT),
        "top": _top(blame_BT, first_BT, rollouts.mask),
    }
    mean_BS, low_BS, there_BS = _steps(value_BT, rollouts)
    step_B = rollouts.step_index.gather(1, rollouts.first_error.clamp(min=0)[:, None])  # (B, 1)
    index_S = torch.arange(there_BS.shape[1])
    first_BS, earlier_BS = (index_S == step_B) & judged_B[:, None], there_BS & (index_S < step_B)
    per_rollout["step"] = _auroc(-mean_BS, first_BS, earlier_BS)
    per_rollout["low"] = _auroc(-low_BS, first_BS, earlier_BS)

    counted_BT = rollouts.mask & mixed_B[:, None]
    below_BT = counted_BT & (rollouts.labels != Label.OTHER) & (value_BT < 0)
    slips_below_BT = below_BT & (rollouts.labels == Label.SLIP)
    saturated_BT = counted_BT & (value_BT.abs() > SATURATED * _scale(value_BT, counted_BT)) & (value_BT != 0)
    per_rollout["sign"] = torch.stack([slips_below_BT.sum(dim=1), below_BT.sum(dim=1)], dim=1)
    per_rollout["full"] = torch.stack([saturated_BT.sum(dim=1), counted_BT.sum(dim=1)], dim=1)

    true_BT = _true_advantages(rollouts)
    measured_BT = counted_BT & ~true_BT.isnan()
    x, y = torch.where(measured_BT, value_BT, 0.0), torch.where(measured_BT, true_BT, 0.0)
    moments = (measured_BT.double(), x, y, x * x, y * y, x * y)
    per_rollout["true"] = torch.stack([moment.sum(dim=1) for moment in moments], dim=1)

    groups = int(group_B.max()) + 1 if len(group_B) else 0
    return {
        name: torch.zeros(groups, per_rollout[name].shape[1], dtype=torch.float64)
        .index_add_(0, group_B, per_rollout[name].double())
        .numpy()
        for name in METRICS
    }


def mixed(rollouts: Rollouts) -> Tensor:
    """(N,) bool: whether a rollout's group holds both correct and incorrect ones."""
    _, group_B, size_G = torch.unique(rollouts.group_ids, return_inverse=True, return_counts=True)
    correct_G = torch.zeros_like(size_G).index_add_(0, group_B, (rollouts.rewards > 0).long())
    return ((correct_G > 0) & (correct_G < size_G))[group_B]


def interval(name: str, sums_Gk: np.ndarray, seed: int) -> Interval:
    """The metric `name` from its sums, with its interval.

    Args:
        name: of `METRICS`.
        sums_Gk: from `group_sums`.
        seed: of the resamples; the same seed draws the same groups for every metric and estimator.
    """
    total = _total(name)
    return _interval(total(sums_Gk.sum(axis=0)), total(_resampled(sums_Gk, seed)))


def difference(name: str, sums_Gk: np.ndarray, reference_Gk: np.ndarray, seed: int) -> Interval:
    """The metric minus that of another estimator on the same rollouts, both on the same resamples of groups."""
    total = _total(name)
    value = total(sums_Gk.sum(axis=0)) - total(reference_Gk.sum(axis=0))
    return _interval(value, total(_resampled(sums_Gk, seed)) - total(_resampled(reference_Gk, seed)))


def calibration(rollouts: Rollouts, values: Tensor) -> list[Bin]:
    """What values of each size mean: bins over the tokens of known label in mixed groups."""
    value_BT = torch.where(rollouts.mask, values.double(), 0.0)
    counted_BT = rollouts.mask & mixed(rollouts)[:, None]
    known_BT = counted_BT & (rollouts.labels != Label.OTHER)
    relative_K = (value_BT / _scale(value_BT, counted_BT))[known_BT].numpy()
    slip_K = (rollouts.labels[known_BT] == Label.SLIP).numpy()
    true_K = _true_advantages(rollouts)[known_BT].numpy()
    bins = []
    for low, high in pairwise(BINS):
        inside_K = (relative_K >= low) & ((relative_K < high) | (high == BINS[-1]))
        slips, true = slip_K[inside_K], true_K[inside_K]
        true = true[~np.isnan(true)]
        bins.append(
            Bin(
                low,
                high,
                tokens=len(slips),
                slips=float(slips.mean()) if len(slips) else np.nan,
                measured=len(true),
                negative=float((true < 0).mean()) if len(true) else np.nan,
                advantage=float(true.mean()) if len(true) else np.nan,
            )
        )
    return bins


def _auroc(blame_BT: Tensor, positive_BT: Tensor, negative_BT: Tensor) -> Tensor:
    """(B, 2): the AUROC of each rollout and 1, or 0 and 0 where one of the two kinds is missing."""
    row_K, column_K = positive_BT.nonzero(as_tuple=True)
    blame_K1 = blame_BT[row_K, column_K, None]
    above_KT = (blame_K1 > blame_BT[row_K]).double() + 0.5 * (blame_K1 == blame_BT[row_K])
    won_K = (above_KT * negative_BT[row_K]).sum(dim=1)
    won_B = torch.zeros(len(blame_BT), dtype=torch.float64).index_add_(0, row_K, won_K)
    pairs_B = positive_BT.sum(dim=1) * negative_BT.sum(dim=1)
    return torch.stack([won_B / pairs_B.clamp(min=1), (pairs_B > 0).double()], dim=1)


def _top(blame_BT: Tensor, first_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """(B, 2): the chance that the first slip is picked among the most blamed tokens, and 1; 0 and 0 without one."""
    top_BT = (blame_BT == blame_BT.masked_fill(~mask_BT, -torch.inf).amax(dim=1, keepdim=True)) & mask_BT
    hit_B = (top_BT & first_BT).any(dim=1) / top_BT.sum(dim=1).clamp(min=1)
    return torch.stack([hit_B.double(), first_BT.any(dim=1).double()], dim=1)


def _steps(value_BT: Tensor, rollouts: Rollouts) -> tuple[Tensor, Tensor, Tensor]:
    """(B, S) mean and lowest value of each step's tokens, and whether the step is there."""
    in_step_BT = rollouts.mask & (rollouts.step_index >= 0)
    steps = int(rollouts.step_index.max()) + 1 if rollouts.step_index.numel() else 0
    shape = (len(value_BT), max(steps, 0) + 1)
    index_BT = torch.where(in_step_BT, rollouts.step_index, shape[1] - 1)  # the last column takes all the rest
    count_BS = torch.zeros(shape, dtype=torch.float64).scatter_add_(1, index_BT, in_step_BT.double())
    sum_BS = torch.zeros(shape, dtype=torch.float64).scatter_add_(1, index_BT, value_BT)
    low_BS = torch.full(shape, torch.inf, dtype=torch.float64).scatter_reduce_(1, index_BT, value_BT, "amin")
    # Equal means can differ in the last bits by the order of addition; they are ties.
    mean_BS = (sum_BS / count_BS.clamp(min=1)).round(decimals=12)
    there_BS = count_BS > 0
    there_BS[:, -1] = False
    return mean_BS, low_BS, there_BS


def _true_advantages(rollouts: Rollouts) -> Tensor:
    if rollouts.true_advantages is None:
        return torch.full(rollouts.mask.shape, torch.nan, dtype=torch.float64)
    return rollouts.true_advantages.double()


def _scale(value_BT: Tensor, counted_BT: Tensor) -> float:
    """The largest |value|; 1 if all are 0."""
    return float(torch.where(counted_BT, value_BT.abs(), 0.0).max()) or 1.0 if value_BT.numel() else 1.0


def _total(name: str) -> _Totals:
    return _correlation if name == "true" else _ratio


def _ratio(totals: np.ndarray) -> np.ndarray:
    numerator, denominator = totals[..., 0], totals[..., 1]
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def _correlation(totals: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = np.moveaxis(totals, -1, 0)
    spread = (n * xx - x * x) * (n * yy - y * y)
    # Without any spread rounding may leave a little.
    return np.divide(
        n * xy - x * y,
        np.sqrt(np.maximum(spread, 0.0)),
        out=np.full_like(x, np.nan),
        where=spread > 1e-12 * n**4,
    )


def _resampled(sums_Gk: np.ndarray, seed: int) -> np.ndarray:
    """(R, k) totals of R draws of G groups with replacement."""
    groups = len(sums_Gk)
    rng = np.random.default_rng(derived_seed(seed, groups))
    times_RG = rng.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)
    return times_RG @ sums_Gk


def _interval(value: np.ndarray, resampled_R: np.ndarray) -> Interval:
    resampled_R = resampled_R[~np.isnan(resampled_R)]
    if np.isnan(value) or not len(resampled_R):
        return Interval(np.nan, np.nan, np.nan)
    low, high = np.percentile(resampled_R, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))
