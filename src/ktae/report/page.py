"""`ktae report RUN|ROLLOUTS`: one HTML page that shows which tokens were credited, and why."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ktae.config import KTAEConfig
from ktae.report import page_run
from ktae.report.columns import ROLLOUT_ADVANTAGE, TOKEN_TEXTS, Rollout
from ktae.report.page_groups import ReportGroup, ReportRollout, Sample, pack
from ktae.report.page_html import page_html
from ktae.report.rollouts import load_groups
from ktae.report.tables import explain
from ktae.report.tokens import Tokenizer, load_tokenizer
from ktae.rollout import grpo

LIMIT = 30_000_000  # bytes
_ADVANTAGES = (ROLLOUT_ADVANTAGE, "advantage")  # columns of `ktae score`, and of TRL and samples.jsonl

Tokens = Callable[[Rollout], tuple[list[int], list[str]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = "Writes one HTML page: curves and evaluation of a run, and every rollout's tokens by credit."
    add = parser.add_argument
    add("rollouts", type=Path, help="a run's folder, or saved rollouts (.jsonl, .json, .parquet), scored or not")
    add("--out", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    add("--tokenizer", help="name or folder of the tokenizer of the rollouts (default: a run's own, else words)")
    add("--unnest", nargs="+", default=[], metavar="COLUMN", help="columns that each hold one rollout as an object")
    add("--strict", action="store_true", help="stop at the first malformed row")


def run(arguments: argparse.Namespace) -> None:
    """Reads the rollouts, writes the page, says what is in it."""
    if not arguments.out.absolute().parent.is_dir():
        raise FileNotFoundError(f"--out must be in a folder that exists, got {arguments.out}")
    path, notes = arguments.rollouts, []
    run_folder = path if page_run.is_run(path) else None
    recipe = page_run.recipe_of(path) if run_folder else None
    groups: dict[str, list[Rollout]] = {}
    if run_folder is None or (path / "samples.jsonl").exists():
        columns = page_run.columns(path)
        groups, malformed = load_groups(path, columns=columns, unnest=arguments.unnest, strict=arguments.strict)
        if malformed:
            rows = "1 malformed row is" if len(malformed) == 1 else f"{len(malformed):,} malformed rows are"
            notes.append(f"{rows} left out: {malformed[0]}" + (" and others" if len(malformed) > 1 else ""))
    tokenizer = arguments.tokenizer or (run_folder and page_run.saved_tokenizer(run_folder))
    has_texts = all(TOKEN_TEXTS in rollout.data for rollouts in groups.values() for rollout in rollouts)
    if tokenizer is None and not has_texts:
        notes.append("No tokenizer was named: the tokens here are words and punctuation marks, not a model's tokens.")
    tokens = token_source(load_tokenizer(str(tokenizer or "words")))

    written = write_report(
        groups,
        arguments.out,
        tokens=tokens,
        title=recipe.name if recipe else path.absolute().name,
        source=str(path),
        notes=notes,
        run=run_folder,
        config=recipe.ktae if recipe else KTAEConfig(),
    )
    for note in notes:
        print(note)
    print(f"{arguments.out}: {written['kept']:,} of {written['groups']:,} prompts, {written['bytes'] / 1e6:.1f} MB")


def token_source(tokenizer: Tokenizer) -> Tokens:
    """The token ids and texts of a rollout: those saved with it, or else the tokenizer's."""

    def tokens(rollout: Rollout) -> tuple[list[int], list[str]]:
        ids = tokenizer.encode(rollout.text or "") if rollout.token_ids is None else rollout.token_ids
        saved = rollout.data.get(TOKEN_TEXTS)
        if saved is not None and rollout.token_ids is not None:
            if len(saved) != len(ids):
                raise ValueError(
                    f"row {rollout.row}: {TOKEN_TEXTS} must be as many as the token ids, {len(ids)}, got {len(saved)}"
                )
            return ids, [str(text) for text in saved]
        return ids, tokenizer.texts(ids, rollout.text if rollout.token_ids is None else None)

    return tokens


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

    Where the groups need more than LIMIT, a sample of them is kept, and the page says so.

    Returns:
        {"groups": groups read, "kept": groups in the page, "bytes": size of the file}.

    Raises:
        ValueError: there are no rollouts and no run, or not one group fits into the page.
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
    sample = Sample(LIMIT - len(page_html(title, shown, [])) - 20_000)
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
    known = _usual_texts(zip(ids, texts, strict=True))
    table = explain(padded, mask, rewards, one_group, config=config, texts=known, permutations=permutations, seed=seed)
    advantages = _saved_advantages(rollouts) or grpo(rewards, one_group).tolist()
    return ReportGroup(
        name,
        rollouts[0].prompt,
        [
            ReportRollout(
                texts=words,
                unit_index=table.unit_index[row, : len(words)].tolist(),
                reward=rollout.reward,
                advantage=0.0 if math.isnan(rollout.reward) else advantages[row],
                label=str(rollout.data.get("rollout", "")),
            )
            for row, (rollout, words) in enumerate(zip(rollouts, texts, strict=True))
        ],
        table,
        correct_above=config.correct_above,
    )


def _saved_advantages(rollouts: list[Rollout]) -> list[float] | None:
    """The rollout advantages that the rollouts were saved with; None unless all scored ones have one."""
    for key in _ADVANTAGES:
        saved = [0.0 if math.isnan(rollout.reward) else rollout.data.get(key) for rollout in rollouts]
        if all(isinstance(value, int | float) and math.isfinite(value) for value in saved):
            return [float(value) for value in saved if value is not None]
    return None


def _usual_texts(rollouts: Iterable[tuple[list[int], list[str]]]) -> dict[int, str]:
    """The text that each token id has most often; the first in the alphabet of several."""
    counts: dict[int, Counter[str]] = {}
    for ids, texts in rollouts:
        for token_id, text in zip(ids, texts, strict=True):
            counts.setdefault(token_id, Counter())[text] += 1
    return {token_id: min(count, key=lambda text: (-count[text], text)) for token_id, count in counts.items()}


def _summary(groups: int, totals: dict[str, int]) -> list[tuple[str, str]]:
    share = f"{totals['correct'] / totals['scored']:.1%}" if totals["scored"] else "-"
    facts = [
        ("prompts", f"{groups:,}"),
        ("rollouts", f"{totals['rollouts']:,}"),
        ("tokens", f"{totals['tokens']:,}"),
        ("correct", share),
        ("prompts with both kinds", f"{totals['mixed']:,}"),
    ]
    unscored = totals["rollouts"] - totals["scored"]
    return [*facts, ("not scored", f"{unscored:,}")] if unscored else facts
