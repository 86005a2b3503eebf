"""`ktae report RUN|ROLLOUTS`: one HTML page that shows which tokens were credited, and why."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ktae.config import KTAEConfig
from ktae.report import page_run
from ktae.report.columns import ROLLOUT_ADVANTAGE, Rollout
from ktae.report.page_groups import ReportGroup, ReportRollout, Sample, pack
from ktae.report.page_html import page_html
from ktae.report.tables import explain
from ktae.rollout import grpo

LIMIT = 30_000_000  # bytes
_ADVANTAGES = (ROLLOUT_ADVANTAGE, "advantage")  # columns of `ktae score`, and of TRL and samples.jsonl

Tokens = Callable[[Rollout], tuple[list[int], list[str]]]


def write_report(
    groups: dict[str, list[Rollout]],
    out: Path,
    *,
    tokens: Tokens,
    title: str,
    source: str,
    notes: Iterable[str] = (),
    run: Path | None = None,
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
    permutations: int = 10_000,
    seed: int = 0,
    limit: int = LIMIT,
) -> dict[str, int]:
    """Writes the page.

    Args:
        groups: rollouts by group.
        out: the file, replaced if there is one.
        tokens: the token ids of a rollout and their texts, as many.
        title, source, notes: texts for the page's head.
        run: the folder of a training run whose curves and evaluation are shown.
        config: of the estimator. The tables are computed here, whatever values the rollouts carry.
        permutations, seed: those of `ktae.explain`.
        limit: bytes. Where the groups need more, a sample of them is kept, and the page says so.

    Returns:
        {"groups": groups read, "kept": groups in the page, "bytes": size of the file}.

    Raises:
        ValueError: there are no rollouts and no run, or not one group fits into the limit.
    """
    if not groups and run is None:
        raise ValueError(f"{source} holds no rollouts to report")
    recipe = page_run.recipe_of(run) if run else None
    shown: dict[str, Any] = {
        "title": title,
        "source": source,
        "scale": config.scale,
        "curves": page_run.curves(run, recipe) if run and recipe else [],
        "evaluation": page_run.evaluation(run) if run else None,
        "first": 0,
    }
    sample = Sample(limit - len(page_html(title, shown, [])) - 20_000)
    totals = {"rollouts": 0, "scored": 0, "correct": 0, "tokens": 0, "mixed": 0}
    for name, rollouts in groups.items():
        packed = pack(report_group(name, rollouts, tokens, config, permutations=permutations, seed=seed))
        totals["tokens"] += packed.tokens
        for count in ("rollouts", "scored", "correct"):
            totals[count] += packed.entry[count]
        totals["mixed"] += 0 < packed.entry["correct"] < packed.entry["scored"]
        sample.add(packed)
    kept = sample.groups()
    if groups and not kept:
        raise ValueError(f"limit must leave room for one group at least, got {limit} bytes")
    # A group with both kinds of rollouts is the one worth opening first.
    shown["first"] = next((i for i, group in enumerate(kept) if 0 < group.entry["correct"] < group.entry["scored"]), 0)
    shown["summary"] = [*(page_run.facts(run, recipe) if run and recipe else []), *_summary(len(groups), totals)]
    shown["notes"] = list(notes)
    if len(kept) < len(groups):
        shown["notes"].append(
            f"{len(kept):,} of {len(groups):,} prompts are shown, to keep the page below {limit / 1e6:.0f} MB: those "
            "whose names have the smallest hashes. The numbers above are those of all prompts."
        )
    shown["prompts"] = [group.entry for group in kept]
    text = page_html(title, shown, [group.packed for group in kept])
    unfinished = out.with_name(out.name + ".tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(out)
    return {"groups": len(groups), "kept": len(kept), "bytes": out.stat().st_size}


def report_group(
    name: str, rollouts: list[Rollout], tokens: Tokens, config: KTAEConfig, *, permutations: int, seed: int
) -> ReportGroup:
    """A group with its table. Rollout advantages are those saved with the rollouts, or else GRPO's."""
    ids, texts = zip(*(tokens(rollout) for rollout in rollouts), strict=True)
    masks = [rollout.mask or [1] * len(row) for rollout, row in zip(rollouts, ids, strict=True)]
    rewards = torch.tensor([rollout.reward for rollout in rollouts], dtype=torch.float64)
    one_group = torch.zeros(len(rollouts), dtype=torch.int64)
    # One column more: rollouts may all be empty.
    padded = pad_sequence([torch.tensor([*row, 0], dtype=torch.int64) for row in ids], batch_first=True)
    mask = pad_sequence([torch.tensor([*row, 0], dtype=torch.int64) for row in masks], batch_first=True)
    known = {token_id: text for row, words in zip(ids, texts, strict=True) for token_id, text in zip(row, words)}
    table = explain(padded, mask, rewards, one_group, config=config, texts=known, permutations=permutations, seed=seed)
    saved = [next((rollout.data[key] for key in _ADVANTAGES if key in rollout.data), None) for rollout in rollouts]
    advantages = grpo(rewards, one_group).tolist() if None in saved else saved
    shared = {key for key in ("rollout",) if key in rollouts[0].data}
    return ReportGroup(
        name,
        rollouts[0].prompt,
        [
            ReportRollout(
                texts=words,
                unit_index=table.unit_index[row, : len(words)].tolist(),
                reward=rollout.reward,
                advantage=0.0 if math.isnan(rollout.reward) else float(advantages[row]),
                label=" · ".join(str(rollout.data[key]) for key in shared),
            )
            for row, (rollout, words) in enumerate(zip(rollouts, texts, strict=True))
        ],
        table,
        correct_above=config.correct_above,
    )


def _summary(groups: int, totals: dict[str, int]) -> list[tuple[str, str]]:
    share = f"{totals['correct'] / totals['scored']:.1%}" if totals["scored"] else "–"
    facts = [
        ("prompts", f"{groups:,}"),
        ("rollouts", f"{totals['rollouts']:,}"),
        ("tokens", f"{totals['tokens']:,}"),
        ("correct", share),
        ("prompts with both kinds", f"{totals['mixed']:,}"),
    ]
    unscored = totals["rollouts"] - totals["scored"]
    return [*facts, ("not scored", f"{unscored:,}")] if unscored else facts
