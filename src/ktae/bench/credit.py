"""The credit-assignment benchmark: every estimator on every source, as one dictionary of plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from ktae.bench import metrics
from ktae.bench.estimators import ESTIMATORS, NEED_ENTROPIES, REFERENCE
from ktae.bench.labelled import Label, Rollouts
from ktae.bench.metrics import LOCALISATION, METRICS
from ktae.bench.sources import SOURCES
from ktae.seeds import derived_seed

SPLITS = {"explore": 0, "held-out": 1}


def run(
    sources: Sequence[str], estimators: Sequence[str], *, split: str, groups: int, group_size: int, seed: int
) -> dict[str, Any]:
    """Runs the benchmark.

    Args:
        sources: names of `SOURCES`.
        estimators: names of `ESTIMATORS`. The reference is computed whether it is among them or not.
        split: of `SPLITS`; no two share a draw. Choose on one and report the other.
        groups: prompts of each source.
        group_size: rollouts of each prompt.
        seed: of the rollouts and of the intervals.

    Returns:
        What the JSON of `ktae bench credit` holds: `about`, `sources` and `ranks`. Of each source `measured_on` says on
        how many rollouts (localisation) or tokens (the others) the reference was measured. A number that cannot be
        given is None.
    """
    results = {}
    for source in sources:
        drawn = derived_seed(SPLITS[split], seed)
        results[source] = _source(SOURCES[source](groups, group_size, drawn), estimators, drawn)
    about = {"split": split, "groups": groups, "group_size": group_size, "seed": seed}
    about |= {"reference": REFERENCE, "resamples": metrics.RESAMPLES}
    about |= {"versions": {package: version(package) for package in ("ktae", "torch", "numpy")}}
    return _plain({"about": about, "sources": results, "ranks": ranks(results, estimators)})


def ranks(results: dict[str, Any], estimators: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each estimator the mean over the sources of its rank in each localisation metric, and the mean of those.

    Rank 1 is the best, estimators that tie share the mean of their ranks, and a source without the metric is left out.
    An estimator that some source could not be given to has no rank.
    """
    estimators = [e for e in estimators if all(e in source["estimators"] for source in results.values())]
    mean_ranks: dict[str, dict[str, float]] = {estimator: {} for estimator in estimators}
    for metric in LOCALISATION:
        by_source = []
        for source in results.values():
            values = np.array([source["estimators"][estimator][metric]["value"] for estimator in estimators])
            if not np.isnan(values).any():
                better = (values[None, :] > values[:, None]).sum(axis=1)
                ties = (values[None, :] == values[:, None]).sum(axis=1)
                by_source.append(better + (ties + 1) / 2)
        for i, estimator in enumerate(estimators):
            mean_ranks[estimator][metric] = float(np.mean([r[i] for r in by_source])) if by_source else math.nan
    for of_metric in mean_ranks.values():
        known = [rank for rank in of_metric.values() if not math.isnan(rank)]
        of_metric["mean"] = sum(known) / len(known) if known else math.nan
    return mean_ranks


def _source(rollouts: Rollouts, estimators: Sequence[str], seed: int) -> dict[str, Any]:
    reference = metrics.group_sums(rollouts, ESTIMATORS[REFERENCE](rollouts))
    results = {}
    for estimator in estimators:
        if rollouts.entropies is None and estimator in NEED_ENTROPIES:
            continue
        values = ESTIMATORS[estimator](rollouts)
        sums = metrics.group_sums(rollouts, values)
        results[estimator] = {
            name: asdict(metrics.interval(name, sums[name], seed))
            | {"difference": asdict(metrics.difference(name, sums[name], reference[name], seed))}
            for name in METRICS
        }
        results[estimator]["calibration"] = [asdict(b) for b in metrics.calibration(rollouts, values)]
    measured_on = {name: int(sums.sum(axis=0)[0 if name == "true" else 1]) for name, sums in reference.items()}
    return {"rollouts": describe(rollouts), "measured_on": measured_on, "estimators": results}


def describe(rollouts: Rollouts) -> dict[str, float]:
    """What the rollouts are like: counts, shares and means."""
    mixed_B = metrics.mixed(rollouts)
    correct_B = rollouts.rewards > 0
    failed_B = mixed_B & ~correct_B
    groups = len(rollouts.group_ids.unique())
    return {
        "rollouts": len(correct_B),
        "groups": groups,
        "mixed_groups": len(rollouts.group_ids[mixed_B].unique()),
        "accuracy": float(correct_B.float().mean()),
        "mean_tokens": float(rollouts.mask.sum(dim=1).float().mean()),
        "vocabulary": len(torch.unique(rollouts.token_ids[rollouts.mask])),
        "judged_rollouts": int((failed_B & (rollouts.first_error >= 0)).sum()),
        "slips": int((rollouts.mask & (rollouts.labels == Label.SLIP) & failed_B[:, None]).sum()),
        "tokens_measured": 0 if rollouts.true_advantages is None else int((~rollouts.true_advantages.isnan()).sum()),
    }


def _plain(value: Any) -> Any:
    """The same with six decimals, and None for NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value
