"""The credit-assignment benchmark: every estimator on every source, as rows of plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from ktae.bench import chain_rollouts, metrics
from ktae.bench.controls import CONTROLS, ESTIMATORS, REFERENCE
from ktae.bench.fidelity import fidelity
from ktae.bench.labelled import LabelledRollouts
from ktae.estimators import NEEDS, Estimator, load_estimator, token_values
from ktae.extras import load_function
from ktae.seeds import derived_seed

Source = Callable[[int, int, int], LabelledRollouts]
"""(groups, group_size, seed) to rollouts; the same arguments give the same ones."""
SOURCES: dict[str, Source] = {
    "chain": chain_rollouts.measured,
    "chain_4_steps": partial(chain_rollouts.of_steps, 4),
    "chain_6_steps": partial(chain_rollouts.of_steps, 6),
}
SPLITS = {"explore": 0, "held-out": 1}
FIDELITY = "gradients"  # the source whose rows hold gradient fidelity


def run(
    sources: Sequence[str], estimators: Sequence[str], *, split: str, groups: int, group_size: int, seed: int
) -> list[dict[str, Any]]:
    """Runs the benchmark on sources of `SOURCES` and `FIDELITY`, with names of `ESTIMATORS` and the controls.

    A source or an estimator may also be the import path of a function of your own, `package.module:function`. No two of
    `SPLITS` share a draw: choose on one and report the other. Of each source there are so many `groups` of `group_size`
    rollouts; gradient fidelity takes a quarter as many batches, at least 2. `seed` is that of the rollouts and of the
    intervals. Raises a ValueError if there is no such function, a TypeError if a source returns something else.

    Returns rows, as the JSON Lines of `ktae bench credit` holds them. First one with `about`, how the benchmark was
    run. Of each source one with `rollouts`, what they are like, then one an estimator: of each metric value, low, high,
    difference to the reference (to GRPO in `FIDELITY`), low, high. None stands for a number that cannot be given.
    """
    own = {name: load_estimator(name) for name in estimators if name not in ESTIMATORS}
    chosen = {name: ESTIMATORS[name] for name in ESTIMATORS if name in estimators or name in CONTROLS} | own
    drawn = derived_seed(SPLITS[split], seed)
    about = {"split": split, "groups": groups, "group_size": group_size, "seed": seed, "reference": REFERENCE}
    about["versions"] = {package: version(package) for package in ("ktae", "torch", "numpy")}
    rows: list[dict[str, Any]] = [{"about": about}]
    for source in sources:
        if source == FIDELITY:
            found = fidelity(chosen, max(groups // 4, 2), drawn)
        else:
            rollouts = load_source(source)(groups, group_size, drawn)
            if not isinstance(rollouts, LabelledRollouts):
                raise TypeError(f"source {source} must return LabelledRollouts, got {type(rollouts).__name__}")
            rows.append({"source": source, "rollouts": describe(rollouts)})
            found = judge(rollouts, chosen, drawn)
        for name, numbers in found.items():
            rows.append({"source": source, "estimator": name} | {m: _plain(of) for m, of in numbers.items()})
    return rows


def load_source(name: str) -> Source:
    """The source of a name in `SOURCES`, or of an import path; errors as `ktae.extras.load_function`."""
    return SOURCES[name] if name in SOURCES else load_function("source", name, {})


def judge(
    rollouts: LabelledRollouts, estimators: Mapping[str, Estimator], seed: int
) -> dict[str, dict[str, list[float]]]:
    """The metrics of each estimator that is given what it needs, with intervals."""
    reference = metrics.group_sums(rollouts, token_values(ESTIMATORS[REFERENCE], rollouts))
    found = {}
    for name, estimator in estimators.items():
        if NEEDS.get(name) != "entropies" or rollouts.entropies is not None:
            sums = metrics.group_sums(rollouts, token_values(estimator, rollouts))
            found[name] = {m: metrics.estimate(sums[m], reference[m], seed) for m in metrics.METRICS}
    return found


def describe(rollouts: LabelledRollouts) -> dict[str, float]:
    """What the rollouts are like: counts, shares and means."""
    mixed_B, correct_B = rollouts.mixed_B, rollouts.correct_B
    return {
        "rollouts": len(mixed_B),
        "mixed_groups": len(rollouts.group_ids[mixed_B].unique()),
        "accuracy": round(float(correct_B.float().mean()), 4),
        "mean_tokens": round(float(rollouts.mask.sum(dim=1).float().mean()), 4),
        "judged_rollouts": int((mixed_B & ~correct_B & rollouts.first_slip_BT.any(dim=1)).sum()),
    }


def _plain(numbers: Sequence[float]) -> list[float | None]:
    """With four decimals, and None for NaN, which JSON has not."""
    return [None if math.isnan(number) else round(number, 4) for number in numbers]
