"""Which measure of an estimator, taken before any training, goes with its gain in training? Writes predicts.md.

    python predicts.py measure     adds what is missing to measured.jsonl, some minutes of one core a task
    python predicts.py             the rank correlations, from measured.jsonl and runs.jsonl

Everything is measured on rollouts of the warm start that training begins with, in the shape and with the scales of
training: how well the first slip is found (`ktae.bench.metrics`), and how far a batch's
policy gradient points where the gradient of the prompts' mean accuracy does, which is estimated from many rollouts.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from loop import Settings, generate, policy_loss
from methods import method, times
from plan import EXTRA, MANY_PROMPTS, METHODS, PREDICTED, RUNS, SEEDS, finished, tuned
from scipy.stats import spearmanr
from tables import TITLES, Runs, difference, grouped
from tasks import task
from torch import Tensor

from ktae.bench import metrics
from ktae.estimators import token_values
from ktae.files import json_lines
from ktae.markdown import table
from ktae.seeds import derived_seed

HERE = Path(__file__).parent
MEASURED = HERE / "measured.jsonl"
BATCHES, REFERENCE_BATCHES, REFERENCE_GROUP = 24, 8, 32
LOCALISATION = ("top", "after", "before", "slip", "sign")
GAINS = {"greedy_accuracy": "greedy", "accuracy": "sampled"}


def measure(task_name: str, scales: dict[str, float]) -> Iterator[dict[str, object]]:
    """`cosine`, `snr` and the measures of localisation of each method, given its scale; `grpo` adds nothing."""
    import warm

    model, tokenizer = warm.load(task_name, 0)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    of_task, settings = task(task_name), Settings(**MANY_PROMPTS, parts=1)
    stream = of_task.problems(random.Random(derived_seed("measured problems")))
    problems = list(itertools.islice(stream, settings.prompts))
    generator = torch.Generator().manual_seed(derived_seed("measured rollouts"))

    def drawn(group_size: int):
        shape = Settings(prompts=len(problems), group_size=group_size)
        batch, prompts, _ = generate(model, tokenizer, of_task, iter(problems), shape, generator)
        return batch, prompts

    def gradient(batch, prompts, advantage_BT: Tensor) -> Tensor:
        loss = policy_loss(model, prompts, batch.completions, advantage_BT, torch.arange(len(prompts)), settings)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])

    reference = 0.0
    for _ in range(REFERENCE_BATCHES):
        batch, prompts = drawn(REFERENCE_GROUP)
        reward_GN = batch.rollouts.rewards.view(len(problems), REFERENCE_GROUP)
        advantage_B = (reward_GN - reward_GN.mean(1, keepdim=True)).flatten()
        mask_BT = batch.completions.mask
        # The loss takes the mean over a rollout's tokens; the gradient of the mean accuracy has their sum.
        reference = reference + gradient(batch, prompts, (advantage_B * mask_BT.sum(1))[:, None] * mask_BT)
    methods = {name: times(method(name), scale) for name, scale in scales.items()}
    gradients, sums = {name: [] for name in methods}, {name: {} for name in methods}
    for _ in range(BATCHES):
        batch, prompts = drawn(settings.group_size)
        for name, estimator in methods.items():
            value_BT = token_values(estimator, batch.rollouts)
            advantage_BT = (batch.rollouts.rollout_advantages[:, None].float() + value_BT) * batch.completions.mask
            gradients[name].append(gradient(batch, prompts, advantage_BT))
            for measured, sums_Gk in metrics.group_sums(batch.rollouts, value_BT).items():
                sums[name][measured] = sums[name].get(measured, 0.0) + sums_Gk.sum(axis=0)
    for name in methods:
        gradient_bP = torch.stack(gradients[name])
        mean_square = float(gradient_bP.mean(0).square().sum())
        noise = float(gradient_bP.var(0).sum())
        found = {
            "cosine": float(torch.cosine_similarity(gradient_bP, reference, dim=-1).mean()),
            "snr": (mean_square - noise / BATCHES) / noise,  # freed of the noise that is left in the mean
        }
        for m in LOCALISATION:
            hits, tries = sums[name][m]
            found[m] = hits / tries if tries else None
        row = {"task": task_name, "method": name, "scale": scales[name]}
        yield row | {m: number if number is None else round(number, 4) for m, number in found.items()}


def correlation(x: np.ndarray, y: np.ndarray) -> str:
    """Spearman's correlation with its 95 % bootstrap interval over methods."""
    rng, drawn = np.random.default_rng(0), []
    for _ in range(2000):
        index = rng.integers(0, len(x), len(x))
        if len(set(x[index])) > 1 and len(set(y[index])) > 1:
            drawn.append(spearmanr(x[index], y[index]).statistic)
    low, high = np.percentile(drawn, [2.5, 97.5])
    text = f"{spearmanr(x, y).statistic:+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def main() -> None:
    done = finished(HERE / RUNS.name)
    if sys.argv[1:] == ["measure"]:
        torch.set_num_threads(1)
        scales = {name: tuned(done).get(name, {}).get("scale", 1.0) for name in (*METHODS, *EXTRA)}
        for task_name in PREDICTED:
            there = {row["method"] for row in json_lines.read(MEASURED) if row["task"] == task_name}
            left = {name: scale for name, scale in scales.items() if name not in there}
            json_lines.append(MEASURED, list(measure(task_name, left)))
    measured: dict[str, dict[str, dict]] = {}
    for row in json_lines.read(MEASURED):
        measured.setdefault(row["task"], {})[row["method"]] = row
    reported = [run for run in done.values() if run["seed"] in SEEDS]
    parts = [
        f"## {TITLES[task_name]}\n\n{of_task(runs, measured[task_name])}"
        for (task_name, _), runs in grouped(reported).items()
        if task_name in measured
    ]
    head = (
        "Which measure of an estimator, taken before any training, goes with its gain in training? [How](predicts.py)."
    )
    (HERE / "predicts.md").write_text("\n".join([head + "\n", *parts]))


def of_task(runs: Runs, measured: dict[str, dict]) -> str:
    """The correlations, then gains and measures of every estimator."""
    shown = ("cosine", "snr", *LOCALISATION)
    names = [name for name in (*METHODS, *EXTRA) if name != "grpo" and name in runs and name in measured]
    gains = {g: np.array([difference(runs, name, "grpo", g).mean() for name in names]) for g in GAINS}
    correlations = []
    for measure in shown:
        there = [i for i, name in enumerate(names) if measured[name][measure] is not None]
        x = np.array([measured[names[i]][measure] for i in there])
        correlations.append([f"`{measure}`", str(len(there)), *(correlation(x, gains[g][there]) for g in GAINS)])
    rows = [
        [f"`{names[i]}`", str(len(runs[names[i]])), *(f"{gains[g][i]:+.3f}" for g in GAINS)]
        + [_number(measured[names[i]][measure]) for measure in shown]
        for i in np.argsort(-gains["greedy_accuracy"])
    ]
    rows.append(["`grpo`", str(len(runs["grpo"])), *[""] * len(GAINS), *(_number(measured["grpo"][m]) for m in shown)])
    return (
        "Rank correlation with the gain over GRPO, 95 % over estimators:\n\n"
        + table(["", "estimators", *GAINS.values()], correlations)
        + "\n\nGains over GRPO and measures:\n\n"
        + table(["", "seeds", *GAINS.values(), *shown], rows)
        + "\n"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
