"""`ktae report RUN|ROLLOUTS`: one HTML page that shows which tokens were credited, and why.

ktae report runs/quickstart
ktae score rollouts.jsonl --tokenizer words && ktae report rollouts.scores.parquet --out scores.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ktae.files.columns import Rollout
from ktae.files.reading import load_groups
from ktae.files.tokens import load_tokenizer
from ktae.report import page_run
from ktae.report.options import add_rollout_arguments, config_of, named_columns
from ktae.report.page_write import write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Writes one HTML page with every rollout's tokens by credit. ROLLOUTS may be the folder of a run of `ktae "
        "train`: its curves and evaluation are shown too, and its settings and tokenizer are taken."
    )
    add_rollout_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    parser.add_argument(
        "--permutations",
        type=int,
        default=20_000,
        metavar="N",
        help="labellings for the p-value against chance (default: 20,000; 0 leaves it out)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Reads the rollouts, writes the page, says what is in it."""
    path: Path = arguments.rollouts
    if not arguments.out.absolute().parent.is_dir():
        raise ValueError(f"--out must be in a folder that exists, got {arguments.out}")
    recipe = page_run.recipe_of(path) if page_run.is_run(path) else None
    notes: list[str] = []
    groups: dict[str, list[Rollout]] = {}
    if recipe is None or (path / "samples.jsonl").exists():
        columns = named_columns(arguments)
        if recipe:
            columns["reward"] = columns["reward"] or page_run.reward_column(recipe)
        groups, malformed = load_groups(path, columns=columns, unnest=arguments.unnest, strict=arguments.strict)
        if malformed:
            rows = "1 malformed row is" if len(malformed) == 1 else f"{len(malformed):,} malformed rows are"
            notes.append(f"{rows} left out: {malformed[0]}" + (" and others" if len(malformed) > 1 else ""))
    tokenizer = arguments.tokenizer or (page_run.saved_tokenizer(path) if recipe else None)
    if tokenizer == "words":
        notes.append("The tokens here are words and punctuation marks, not those of a model.")
    written = write_report(
        groups,
        arguments.out,
        tokenizer=load_tokenizer(str(tokenizer)) if tokenizer else None,
        title=recipe.name if recipe else path.absolute().name,
        source=str(path),
        notes=notes,
        run=path if recipe else None,
        permutations=arguments.permutations,
        config=page_run.settings_of(recipe) if recipe and not arguments.set else config_of(arguments),
    )
    for note in notes:
        print(note)
    print(f"{arguments.out}: {written['kept']:,} of {written['groups']:,} prompts, {written['bytes'] / 1e6:.1f} MB")
