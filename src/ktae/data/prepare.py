r"""`ktae data prepare SOURCE --out PATH`: problems of any source in one form to train on.

    ktae data prepare math --levels 3-5 --benchmarks suite --out math_3to5.jsonl

One row a problem: `prompt` (chat messages), `answers` (the accepted ones), `id`, `source`, `level` (None if unknown).
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktae.data.selection import Counts, parse_levels, read_benchmarks, select
from ktae.data.sources import COLUMNS, SOURCES, SYSTEM, Problem, Source, load
from ktae.extras import require
from ktae.files import json_lines
from ktae.files.locks import locked, unfinished
from ktae.files.rows import SUFFIXES
from ktae.models.load import load_tokenizer


@dataclass(frozen=True)
class Prepare:
    """What to prepare, and how: the options that `add_arguments` describes; None where one is not given."""

    source: str
    out: Path
    file: Path | None = None
    split: str = "train"
    problem_column: str | None = None
    answer_column: str | None = None
    level_column: str | None = None
    id_column: str | None = None
    system: str = SYSTEM
    levels: tuple[int, ...] | None = None
    max_prompt_tokens: int | None = None
    tokenizer: str | None = None
    benchmarks: Path | None = None
    seed: int = 0
    limit: int | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if self.out.suffix != ".jsonl":
            raise ValueError(f"--out must end in .jsonl, got {self.out}")
        columns = [name for name in COLUMNS if getattr(self, f"{name}_column") is not None]
        if self.source in SOURCES and columns:
            raise ValueError(f"--{columns[0]}-column is for other sources; those of {self.source} are known")
        if self.source not in SOURCES and self.file is not None:
            raise ValueError(f"--file is for {', '.join(SOURCES)}; give {self.file} as SOURCE instead of {self.source}")
        if self.file is not None and not self.file.name.endswith(SUFFIXES):
            raise ValueError(f"--file must end in {', '.join(SUFFIXES)}, got {self.file}")
        if self.split != "train" and str(self.file or self.source).endswith(SUFFIXES):
            raise ValueError(f"--split is for the hub, and {self.file or self.source} is a file, got {self.split!r}")
        for name, value in (("--max-prompt-tokens", self.max_prompt_tokens), ("--limit", self.limit)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if (self.max_prompt_tokens is None) != (self.tokenizer is None):
            missing = "--tokenizer" if self.tokenizer is None else "--max-prompt-tokens"
            raise ValueError(f"--max-prompt-tokens and --tokenizer go together, and {missing} is missing")


def prepare(settings: Prepare) -> Counts:
    """Writes `settings.out`, and next to it `<out>.info.json`: settings, counts, SHA-256 of the file.

    The same rows in another order give the same file; see `ktae.data.selection.select`, which makes the counts.

    Raises:
        FileExistsError: one of the two files exists.
        FileNotFoundError: a file or folder to read does not exist.
        OSError: the hub cannot be reached or has no such data set.
        ValueError: the source, a benchmark or the tokenizer is not what it must be, or no problem is left.
        ImportError: `datasets`, or with a tokenizer `transformers`, is not installed.
    """
    info = settings.out.with_name(settings.out.name + ".info.json")
    for path in (settings.out, info):
        if path.exists():
            raise FileExistsError(f"{path} exists and is not overwritten; remove it or give another --out")
    # What is quick to check comes first.
    benchmarks = read_benchmarks(settings.benchmarks) if settings.benchmarks else None
    too_long = _too_long(settings) if settings.tokenizer else None
    source, table = load(_source(settings), settings.split, settings.file, strict=settings.strict)
    if settings.levels and not source.levels:
        raise ValueError(f"--levels needs a column of levels, which {source.name} has not")
    chosen = {"levels": settings.levels, "seed": settings.seed, "limit": settings.limit}
    problems, counts = select(table, benchmarks=benchmarks, too_long=too_long, **chosen)
    rows = [
        {"prompt": _prompt(p, settings.system), "answers": list(p.answers), "id": p.id}
        | {"source": source.name, "level": p.level}
        for p in problems
    ]
    _write(rows, settings, counts, info)
    return counts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `prepare SOURCE ...` to the parser of `ktae data`."""
    parser = parser.add_subparsers(dest="data_command", required=True).add_parser(
        "prepare",
        help="a problem collection in the form that recipes read",
        description="Turns a problem collection into prompts and answers; filtered, decontaminated, shuffled. A source "
        "of your own has the columns problem and answer (a text, a number or a list of them), and may have level (3 or "
        "'Level 3') and id; --id-column '' says that it has no ids.",
        epilog=parser.epilog,
        formatter_class=parser.formatter_class,
        allow_abbrev=False,
    )
    add = parser.add_argument
    named = ", ".join(SOURCES)
    add("source", metavar="SOURCE", help=f"{named}, another hub id, a folder, or a file: {', '.join(SUFFIXES)}")
    add("--out", type=Path, required=True, metavar="PATH", help="the .jsonl file to write; must not exist")
    add("--file", type=Path, metavar="PATH", help=f"a local copy of {named} to read instead of the hub")
    add("--split", default="train", help="of a hub id or a folder (default: %(default)s)")
    for name in COLUMNS:
        add(f"--{name}-column", metavar="COLUMN", help=f"in a source other than {named} (default: {name})")
    add("--system", default=SYSTEM, metavar="TEXT", help="system message, '' for none (default: %(default)s)")
    add("--levels", help="keep these only: 4, or 3,5, or 3-5")
    add("--max-prompt-tokens", type=int, metavar="N", help="keep prompts of at most N tokens, chat template included")
    whose = "whose tokens: a hub id, a folder, a .gguf file or python:PACKAGE/PATH"
    add("--tokenizer", metavar="PATH_OR_ID", help=whose)
    add("--benchmarks", type=Path, metavar="DIR", help="leave out problems that are in DIR/*.jsonl, key `problem`")
    add("--seed", type=int, default=0, help="of the order (default: %(default)s)")
    add("--limit", type=int, metavar="N", help="write the first N rows of that order")
    add("--strict", action="store_true", help="stop at the first malformed row of a file")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command and prints what became of the rows."""
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Prepare)}
    given["levels"] = None if arguments.levels is None else parse_levels(arguments.levels)
    settings = Prepare(**given)
    print(f"{prepare(settings).summary()}\n{settings.out}")


def _source(settings: Prepare) -> Source:
    """The known source, or one with the named columns; the empty name says that there is no such column."""
    if settings.source in SOURCES:
        return SOURCES[settings.source]
    problem, answer, level, own_id = (getattr(settings, f"{name}_column") for name in COLUMNS)
    return Source(
        Path(settings.source).name if settings.source.endswith(SUFFIXES) else settings.source,
        settings.source,
        problem=(problem,) if problem else (),
        answers=(answer,) if answer else (),
        levels=() if level == "" else (level or "level",),
        id=None if own_id == "" else own_id or "id",
        required=tuple(filter(None, (level, own_id))),
    )


def _prompt(problem: Problem, system: str) -> list[dict[str, str]]:
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": problem.text}]


def _too_long(settings: Prepare) -> Callable[[Problem], bool]:
    """Whether a problem's prompt has more than `max_prompt_tokens` tokens of the tokenizer."""
    jinja2 = require("jinja2", extra="train")
    name, most = str(settings.tokenizer), settings.max_prompt_tokens or 0
    try:
        tokenizer = load_tokenizer(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"--tokenizer {name} cannot be loaded: {' '.join(str(error).split())}") from error
    if tokenizer.chat_template is None:
        raise ValueError(f"--tokenizer {name} has no chat template, which --max-prompt-tokens needs")

    def too_long(problem: Problem) -> bool:
        prompt = _prompt(problem, settings.system)
        try:
            encoded = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)
        except jinja2.TemplateError as error:
            raise ValueError(
                f"the chat template of --tokenizer {name} refuses the prompt ({error}); "
                f"if it takes no system message, give --system ''"
            ) from error
        return len(encoded["input_ids"]) > most

    return too_long


def _write(rows: list[dict[str, Any]], settings: Prepare, counts: Counts, info: Path) -> None:
    """Both files or none; the data comes last, so that it is never there without its info."""
    with locked(settings.out), unfinished(settings.out) as data, unfinished(info) as about:
        json_lines.write(data, rows)
        said = {
            "settings": dataclasses.asdict(settings),
            "counts": dataclasses.asdict(counts),
            "sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
        }
        about.write_text(json.dumps(said, indent=2, default=str) + "\n")
