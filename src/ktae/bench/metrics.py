"""How well token values find the first wrong step, with intervals clustered by group.

Blame is minus the value. Localisation is measured in incorrect rollouts that have a slip and whose group is mixed
(holds correct rollouts as well); an AUROC is the probability that of two tokens of one rollout the one at fault is
blamed more, ties counting half, averaged over the rollouts in which both kinds occur.

Every metric is a function of sums over groups. The bootstrap draws groups, not tokens: rollouts of one group share a
problem, a policy's habits on it, and the tables that the values come from.

Shape suffixes: _B one entry a rollout, _BT one a token, _K one a chosen token, _G one a group.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ktae.bench.labelled import LabelledRollouts
from ktae.chain.labels import Label
from ktae.seeds import derived_seed

# Name -> what it is; more is better. `before` alone says little: whatever falls with the position has 1 there.
METRICS = {
    "top": "how often the first slip is the most blamed token of its rollout; k tokens that tie count 1/k",
    "after": "AUROC of the first slip against propagated tokens",
    "before": "AUROC of the first slip against earlier right tokens; 1 for whatever blames late tokens",
    "slip": "AUROC of slips against all other tokens of the rollout",
    "sign": "share of slips among the tokens of known label with a value below 0, all rollouts of mixed groups",
    "true_incorrect": "correlation with the true advantage of results, within incorrect rollouts of mixed groups",
    "true_correct": "the same within correct ones",
}
RESAMPLES = 1000


def group_sums(rollouts: LabelledRollouts, values: Tensor) -> dict[str, np.ndarray]:
    """Of each metric the sums it is made of, one row a group, groups by ascending id.

    Takes (N, T) values, as `ktae.estimators.token_values` checks them. Returns by the names of `METRICS` (G, 2)
    numerators and denominators, or (G, 6) moments for a correlation.
    """
    mask_BT, label_BT, mixed_B, correct_B = rollouts.counted_BT, rollouts.labels, rollouts.mixed_B, rollouts.correct_B
    value_BT = torch.where(mask_BT, values.double(), 0.0)
    judged_BT = mask_BT & (mixed_B & ~correct_B)[:, None]
    first_BT, slip_BT = rollouts.first_slip_BT & judged_BT, judged_BT & (label_BT == Label.SLIP)
    earlier_BT = mask_BT & (label_BT == Label.RIGHT) & (first_BT.cumsum(dim=1) == 0)
    below_BT = mask_BT & mixed_B[:, None] & (label_BT != Label.OTHER) & (value_BT < 0)

    per_rollout = {
        "top": _top(-value_BT, first_BT, mask_BT),
        "after": _auroc(-value_BT, first_BT, mask_BT & (label_BT == Label.PROPAGATED)),
        "before": _auroc(-value_BT, first_BT, earlier_BT),
        "slip": _auroc(-value_BT, slip_BT, mask_BT & (label_BT != Label.SLIP)),
        "sign": torch.stack([(below_BT & (label_BT == Label.SLIP)).sum(dim=1), below_BT.sum(dim=1)], dim=1),
        "true_incorrect": _moments(rollouts, value_BT, mixed_B & ~correct_B),
        "true_correct": _moments(rollouts, value_BT, mixed_B & correct_B),
    }
    groups = int(rollouts.group_B.max()) + 1
    return {
        name: torch.zeros(groups, sums_Bk.shape[1], dtype=torch.float64)
        .index_add_(0, rollouts.group_B, sums_Bk.double())
        .numpy()
        for name, sums_Bk in per_rollout.items()
    }


def estimate(sums_Gk: np.ndarray, reference_Gk: np.ndarray, seed: int) -> list[float]:
    """Value, low, high of a metric, and of its difference to a reference's, with 95 % bootstrap intervals.

    Both sums are those of `group_sums` for the same rollouts. They use the same resamples of groups, and so do all
    metrics and estimators with this seed. NaN where there is nothing to measure on.
    """
    groups, columns = sums_Gk.shape
    total = _correlation if columns == 6 else _ratio
    rng = np.random.default_rng(derived_seed(seed, groups))
    times_RG = rng.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)
    value, value_R = total(sums_Gk.sum(axis=0)), total(times_RG @ sums_Gk)
    reference, reference_R = total(reference_Gk.sum(axis=0)), total(times_RG @ reference_Gk)
    return [*_with_interval(value, value_R), *_with_interval(value - reference, value_R - reference_R)]


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


def _moments(rollouts: LabelledRollouts, value_BT: Tensor, chosen_B: Tensor) -> Tensor:
    """(B, 6): count and sums of x, y, xx, yy, xy over the chosen rollouts' tokens with a true advantage y."""
    if rollouts.true_advantages is None:
        return torch.zeros(len(value_BT), 6)
    true_BT = rollouts.true_advantages.double()
    measured_BT = rollouts.counted_BT & chosen_B[:, None] & ~true_BT.isnan()
    x, y = torch.where(measured_BT, value_BT, 0.0), torch.where(measured_BT, true_BT, 0.0)
    return torch.stack([m.sum(dim=1) for m in (measured_BT.double(), x, y, x * x, y * y, x * y)], dim=1)


def _ratio(totals: np.ndarray) -> np.ndarray:
    numerator, denominator = totals[..., 0], totals[..., 1]
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def _correlation(totals: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = np.moveaxis(totals, -1, 0)
    varies_x, varies_y = n * xx - x * x, n * yy - y * y
    # Without any spread rounding may leave a little.
    there = (varies_x > 1e-12 * n * xx) & (varies_y > 1e-12 * n * yy)
    scale = np.sqrt(np.maximum(varies_x, 0.0)) * np.sqrt(np.maximum(varies_y, 0.0))
    return np.divide(n * xy - x * y, scale, out=np.full_like(x, np.nan), where=there)


def _with_interval(value: np.ndarray, resampled_R: np.ndarray) -> list[float]:
    resampled_R = resampled_R[~np.isnan(resampled_R)]
    if np.isnan(value) or not len(resampled_R):
        return [np.nan] * 3
    return [float(value), *map(float, np.percentile(resampled_R, [2.5, 97.5]))]
