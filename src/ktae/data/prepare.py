r"""`ktae data prepare SOURCE --out PATH`: problems of any source in one form to train on.

    ktae data prepare math --levels 3 4 5 --benchmarks suite --out math_3to5.jsonl

Filtered, decontaminated, shuffled. A source of your own has the columns problem and answer (a text, a number or a list
of them), and may have level (3 or 'Level 3') and id.

One row a problem: `prompt` (chat messages), `answers` (the accepted ones), `id`, `source`, `level` (None if unknown).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ktae.data.selection import read_benchmarks, select
from ktae.data.sources import SOURCES, SYSTEM, Problem, Source, load
from ktae.extras import require
from ktae.files import json_lines
from ktae.files.rows import SUFFIXES
from ktae.models.load import load_tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser = parser.add_subparsers(dest="data_command", required=True).add_parser(
        "prepare",
        help="a problem collection in the form that recipes read",
        description=__doc__,
        epilog=parser.epilog,
        formatter_class=parser.formatter_class,
        allow_abbrev=False,
    )
    add = parser.add_argument
    named = ", ".join(SOURCES)
    add("source", metavar="SOURCE", help=f"{named}, another hub id, a folder, or a file: {', '.join(SUFFIXES)}")
    add("--out", type=Path, required=True, metavar="PATH", help="the .jsonl file to write; must not exist")
    add("--split", default="train", help="of a hub id or a folder (default: %(default)s)")
    for name in ("problem", "answer"):
        add(f"--{name}-column", metavar="COLUMN", help=f"in a source other than {named} (default: {name})")
    add("--system", default=SYSTEM, metavar="TEXT", help="system message, '' for none (default: %(default)s)")
    add("--levels", type=int, nargs="+", metavar="N", help="keep these only, such as 3 4 5")
    add("--max-prompt-tokens", type=int, metavar="N", help="keep prompts of at most N tokens, chat template included")
    whose = "whose tokens: a hub id, a folder, a .gguf file or python:PACKAGE/PATH"
    add("--tokenizer", metavar="PATH_OR_ID", help=whose)
    add("--benchmarks", type=Path, metavar="DIR", help="leave out problems that are in DIR/*.jsonl, key `problem`")


def run(arguments: argparse.Namespace) -> None:
    """Writes the file, the same for the same rows in another order, and prints what became of the rows."""
    out, name, system = arguments.out, arguments.source, arguments.system
    if out.suffix != ".jsonl":
        raise ValueError(f"--out must end in .jsonl, got {out}")
    if out.exists():
        raise FileExistsError(f"{out} exists and is not overwritten; remove it or give another --out")
    if arguments.split != "train" and name.endswith(SUFFIXES):
        raise ValueError(f"--split is for the hub, and {name} is a file, got {arguments.split!r}")
    source = _source(name, arguments.problem_column, arguments.answer_column)
    too_long = _too_long(arguments.tokenizer, arguments.max_prompt_tokens, system)
    benchmarks = read_benchmarks(arguments.benchmarks) if arguments.benchmarks else {}
    problems = load(source, arguments.split)
    chosen, dropped = select(problems, levels=arguments.levels, benchmarks=benchmarks, too_long=too_long)
    rows = [
        {"prompt": _prompt(p, system), "answers": p.answers, "id": p.id, "source": source.name, "level": p.level}
        for p in chosen
    ]
    json_lines.write(out, rows)
    print(f"{len(rows) + sum(dropped.values()):7} rows read")
    for reason, count in dropped.items():
        print(f"{-count:7} {reason}")
    print(f"{len(rows):7} rows written\n{out}")


def _source(name: str, problem: str | None, answer: str | None) -> Source:
    """The known source, or one with the columns that are named; others are to be recognised."""
    if name not in SOURCES:
        called = Path(name).name if name.endswith(SUFFIXES) else name
        return Source(called, name, problem=(problem,) if problem else (), answers=(answer,) if answer else ())
    if problem or answer:
        which = "--problem-column" if problem else "--answer-column"
        raise ValueError(f"{which} is for other sources; those of {name} are known")
    return SOURCES[name]


def _prompt(problem: Problem, system: str) -> list[dict[str, str]]:
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": problem.text}]


def _too_long(name: str | None, most: int | None, system: str) -> Callable[[Problem], bool] | None:
    """Whether a problem's prompt has more than so many tokens of a tokenizer; None if neither is given."""
    if name is None and most is None:
        return None
    if name is None or most is None:
        raise ValueError(f"--max-prompt-tokens and --tokenizer go together, got {most} and {name}")
    if most < 1:
        raise ValueError(f"--max-prompt-tokens must be at least 1, got {most}")
    jinja2, tokenizer = require("jinja2", extra="train"), load_tokenizer(name)
    if tokenizer.chat_template is None:
        raise ValueError(f"--tokenizer {name} has no chat template, which --max-prompt-tokens needs")

    def too_long(problem: Problem) -> bool:
        prompt = _prompt(problem, system)
        try:
            encoded = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)
        except jinja2.TemplateError as error:
            hint = "if it takes no system message, give --system ''"
            raise ValueError(f"the chat template of --tokenizer {name} refuses the prompt ({error}); {hint}") from error
        return len(encoded["input_ids"]) > most

    return too_long
