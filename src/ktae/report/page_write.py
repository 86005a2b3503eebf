"""Writing the page: every group with its table, what does not fit left to a sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ktae.advantages import key_token_values
from ktae.config import KTAEConfig
from ktae.explanation import explain
from ktae.extras import require
from ktae.files.columns import KEY_TOKEN_VALUES, ROLLOUT_ADVANTAGE, TOKEN_TEXTS, Rollout
from ktae.files.tokens import Tokenizer
from ktae.report import page_run
from ktae.report.groups import unit_texts
from ktae.report.page_groups import ReportGroup, ReportRollout, Sample, pack
from ktae.report.page_html import page_html
from ktae.report.scoring import tensors, token_texts, tokenised
from ktae.rollout import grpo

LIMIT = 30_000_000  # bytes
_ADVANTAGES = (ROLLOUT_ADVANTAGE, "advantage")  # columns of `ktae score`, and of TRL and samples.jsonl
_TOLERANCE = 1e-3  # between values that were saved and those computed here


def write_report(
    groups: dict[str, list[Rollout]],
    out: Path,
    *,
    tokenizer: Tokenizer | None,
    title: str,
    source: str,
    notes: Iterable[str] = (),
    run: Path | None = None,
    config: KTAEConfig | Callable[[str], KTAEConfig] = KTAEConfig(),  # noqa: B008 (frozen)
    permutations: int = 20_000,
    seed: int = 0,
) -> dict[str, int]:
    """Writes the page.

    Args:
        groups: rollouts by group.
        out: the file, replaced if there is one.
        tokenizer: of the rollouts; None if they were saved with token ids and texts.
        title, source, notes: texts for the page's head.
        run: the folder of a training run whose curves and evaluation are shown.
        config: of the estimator, whose tables are computed here; or a function that gives a group's by its name.
        permutations, seed: those of `ktae.explain`.

    Where the groups need more than LIMIT, a sample of them is kept, and the page says so.

    Returns:
        {"groups": groups read, "kept": groups in the page, "bytes": size of the file}.

    Raises:
        ValueError: there are no rollouts and no run, the tokenizer does not go with the rollouts, they were saved with
            other key-token values, or not one group fits into the page.
    """
    if not groups and run is None:
        raise ValueError(f"{source} holds no rollouts to report")
    recipe = page_run.recipe_of(run) if run else None
    shown: dict[str, Any] = {
        "title": title,
        "source": source,
        "curves": page_run.curves(run, recipe) if run and recipe else [],
        "evaluation": page_run.evaluation(run) if run else None,
        "first": 0,
    }
    sample = Sample(max(0, LIMIT - len(page_html(title, shown, [])) - 20_000))
    totals = {"rollouts": 0, "scored": 0, "correct": 0, "tokens": 0, "mixed": 0}
    for name, rollouts in _with_progress(groups):
        settings = config if isinstance(config, KTAEConfig) else config(name)
        packed = pack(report_group(name, rollouts, tokenizer, settings, permutations=permutations, seed=seed))
        totals["tokens"] += packed.tokens
        for count in ("rollouts", "scored", "correct"):
            totals[count] += packed.entry[count]
        totals["mixed"] += 0 < packed.entry["correct"] < packed.entry["scored"]
        sample.add(packed)
    kept = sample.groups()
    if groups and not kept:
        raise ValueError(f"no group of {source} fits into a page of {LIMIT:,} bytes")
    # A group with both kinds of rollouts is the one worth opening first.
    shown["first"] = next((i for i, group in enumerate(kept) if 0 < group.entry["correct"] < group.entry["scored"]), 0)
    shown["summary"] = [*(page_run.facts(run, recipe) if run and recipe else []), *_summary(len(groups), totals)]
    shown["notes"] = list(notes)
    if len(kept) < len(groups):
        shown["notes"].append(
            f"{len(kept):,} of {len(groups):,} prompts are shown, to keep the page below {LIMIT / 1e6:.0f} MB: those "
            "whose names have the smallest hashes. The numbers above are those of all prompts."
        )
    shown["prompts"] = [group.entry for group in kept]
    text = page_html(title, shown, [group.packed for group in kept])
    unfinished = out.with_name(out.name + ".tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(out)
    return {"groups": len(groups), "kept": len(kept), "bytes": out.stat().st_size}


def report_group(
    name: str,
    rollouts: list[Rollout],
    tokenizer: Tokenizer | None,
    config: KTAEConfig,
    *,
    permutations: int,
    seed: int,
) -> ReportGroup:
    """A group with its table. Rollout advantages are those saved with the rollouts, or else GRPO's."""
    rollouts = tokenised(rollouts, tokenizer)
    texts = token_texts(rollouts, tokenizer)
    if texts is None:
        raise ValueError(
            f"group {name} must have {TOKEN_TEXTS}, one for each of its token ids; or name the tokenizer that made the "
            "token ids, --tokenizer"
        )
    token_ids, mask, rewards, one_group = tensors(rollouts)
    words = unit_texts(rollouts, texts)
    table = explain(
        token_ids, mask, rewards, one_group, config=config, texts=words, permutations=permutations, seed=seed
    )
    values_BT = key_token_values(token_ids, mask, rewards, one_group, config=config).numpy()
    _check_saved_values(rollouts, values_BT)
    advantages = _saved_advantages(rollouts) or grpo(rewards, one_group).tolist()
    shown = [
        ReportRollout(
            texts=texts[row],
            unit_index=table.unit_index[row, : len(texts[row])].tolist(),
            reward=rollout.reward,
            advantage=0.0 if math.isnan(rollout.reward) else advantages[row],
            values=values_BT[row, : len(texts[row])].tolist() if config.centered else None,
            label=str(rollout.data.get("rollout", "")),
        )
        for row, rollout in enumerate(rollouts)
    ]
    scale = config.scale * (2 if config.centered else 1)
    return ReportGroup(name, rollouts[0].prompt, shown, table, config.correct_above, scale)


def _saved_advantages(rollouts: list[Rollout]) -> list[float] | None:
    """The rollout advantages that the rollouts were saved with; None unless all scored ones have one."""
    for key in _ADVANTAGES:
        saved = [0.0 if math.isnan(rollout.reward) else rollout.data.get(key) for rollout in rollouts]
        if all(isinstance(value, int | float) and math.isfinite(value) for value in saved):
            return [float(value) for value in saved if value is not None]
    return None


def _check_saved_values(rollouts: Sequence[Rollout], values_BT: np.ndarray) -> None:
    """Refuses to explain key-token values that come from other settings than the tables."""
    for rollout, values_T in zip(rollouts, values_BT, strict=True):
        saved = rollout.data.get(KEY_TOKEN_VALUES)
        if saved is None:
            continue
        values_T = values_T[: len(rollout.token_ids or [])]
        if len(saved) != len(values_T) or not np.allclose(np.array(saved, float), values_T, rtol=0, atol=_TOLERANCE):
            raise ValueError(
                f"row {rollout.row}: {KEY_TOKEN_VALUES} must be those of the settings, and they differ; "
                "give the settings and all the rollouts that the values come from"
            )


def _with_progress(groups: dict[str, list[Rollout]]) -> Iterable[tuple[str, list[Rollout]]]:
    """The groups, with a bar and the time left on a terminal."""
    console = require("rich.console", extra="report").Console(stderr=True)
    track = require("rich.progress", extra="report").track
    return track(groups.items(), "prompts", console=console, transient=True, disable=not console.is_terminal)


def _summary(groups: int, totals: dict[str, int]) -> list[tuple[str, str]]:
    share = f"{totals['correct'] / totals['scored']:.1%}" if totals["scored"] else "-"
    facts = [
        ("prompts", f"{groups:,}"),
        ("rollouts", f"{totals['rollouts']:,}"),
        ("tokens", f"{totals['tokens']:,}"),
        ("correct", share),
        ("mixed prompts", f"{totals['mixed']:,}"),
    ]
    unscored = totals["rollouts"] - totals["scored"]
    return [*facts, ("not scored", f"{unscored:,}")] if unscored else facts
