"""`ktae report RUN|ROLLOUTS`: one HTML page that shows which tokens were credited, and why.

ktae report runs/quickstart
ktae score rollouts.jsonl --tokenizer words && ktae report rollouts.scores.parquet --out scores.html
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ktae.config import KTAEConfig
from ktae.extras import require
from ktae.files.columns import Rollout
from ktae.files.locks import unfinished
from ktae.files.reading import load_groups
from ktae.files.tokens import Tokenizer, load_tokenizer
from ktae.pictures import style
from ktae.report.options import add_permutations, add_rollout_arguments, config_of, named_columns

LIMIT = 30_000_000  # bytes
_SCRIPTS = ("dom.js", "curves.js", "prompts.js", "group.js", "tokens.js", "main.js")  # in the order of their running


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Writes one HTML page with every rollout's tokens by credit. ROLLOUTS may be the folder of a run of `ktae "
        "train`: its curves and evaluation are shown too, and its settings and tokenizer are taken."
    )
    add_rollout_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    add_permutations(parser)


def run(arguments: argparse.Namespace) -> None:
    """Reads the rollouts, writes the page, says what is in it."""
    from ktae.report import page_run  # torch
    from ktae.train.recipe import load_recipe

    path: Path = arguments.rollouts
    if not arguments.out.absolute().parent.is_dir():
        raise ValueError(f"--out must be in a folder that exists, got {arguments.out}")
    named = config_of(arguments)
    recipe = load_recipe(str(path / "config.yaml")) if page_run.is_run(path) else None
    notes: list[str] = []
    groups: dict[str, list[Rollout]] = {}
    if recipe is None or (path / "samples.jsonl").exists():
        columns = named_columns(arguments)
        if recipe:
            columns["reward"] = columns["reward"] or recipe.correctness.rpartition(":")[2]
        groups, malformed = load_groups(path, columns=columns, unnest=arguments.unnest, strict=arguments.strict)
        if malformed:
            rows = "1 malformed row is" if len(malformed) == 1 else f"{len(malformed):,} malformed rows are"
            notes.append(f"{rows} left out: {malformed[0]}" + (" and others" if len(malformed) > 1 else ""))
    tokenizer = arguments.tokenizer or (page_run.saved_tokenizer(path) if recipe else None)
    if tokenizer == "words":
        notes.append("The tokens here are words and punctuation marks, not those of a model.")

    def settings_of(group: str) -> KTAEConfig:
        """A run's groups are named ALGORITHM/STEP/GROUP."""
        return recipe.key_tokens(group.partition("/")[0]) if recipe and not arguments.set else named

    written = write_report(
        groups,
        arguments.out,
        tokenizer=load_tokenizer(str(tokenizer)) if tokenizer else None,
        title=recipe.name if recipe else path.absolute().name,
        source=str(path if recipe else path.parent),
        notes=notes,
        run=page_run.contents(path, recipe) if recipe else None,
        config=settings_of,
        permutations=arguments.permutations,
    )
    for note in notes:
        print(note)
    print(f"{arguments.out}: {written['kept']:,} of {written['groups']:,} prompts, {written['bytes'] / 1e6:.1f} MB")


def write_report(
    groups: dict[str, list[Rollout]],
    out: Path,
    *,
    tokenizer: Tokenizer | None,
    title: str,
    source: str = "",
    notes: Iterable[str] = (),
    run: dict[str, Any] | None = None,
    config: Callable[[str], KTAEConfig] = lambda _: KTAEConfig(),
    permutations: int = 20_000,
) -> dict[str, int]:
    """Writes the page.

    Args:
        groups: rollouts by group.
        out: the file, replaced if there is one.
        tokenizer: of the rollouts; None if they were saved with token ids and texts.
        title, source, notes: texts for the page's head.
        run: what `page_run.contents` says about a training run.
        config: the estimator's settings of a group by its name; the tables are computed here.
        permutations: those of `ktae.explain`.

    Where the groups need more than LIMIT, a sample of them is kept, and the page says so.

    Returns:
        {"groups": groups read, "kept": groups in the page, "bytes": size of the file}.

    Raises:
        ValueError: there are no rollouts and no run, the tokenizer does not go with the rollouts, they were saved with
            other key-token values, or not one group fits into the page.
    """
    from ktae.report.page_groups import pack, sample  # torch

    if not groups and run is None:
        raise ValueError(f"{title} holds no rollouts to report")
    shown: dict[str, Any] = {
        "title": title,
        "source": "" if source in (title, ".") else source,
        **(run or {"curves": None, "evaluation": None, "summary": []}),
        "notes": list(notes),
        "prompts": [],
        "first": 0,
    }
    packed = [
        pack(name, rollouts, tokenizer, config(name), permutations=permutations)
        for name, rollouts in _with_progress(groups)
    ]
    kept = sample(packed, LIMIT - len(_html(shown, [])) - 20_000)
    if groups and not kept:
        raise ValueError(f"no group of {title} fits into a page of {LIMIT:,} bytes")
    # A group with both kinds of rollouts is the one worth opening first.
    shown["first"] = next((i for i, group in enumerate(kept) if _is_mixed(group.entry)), 0)
    shown["summary"] += _summary([group.entry for group in packed])
    if len(kept) < len(groups):
        shown["notes"].append(
            f"{len(kept):,} of {len(groups):,} prompts are shown, to keep the page below {LIMIT / 1e6:.0f} MB: those "
            "whose names have the smallest hashes. The numbers above are those of all prompts."
        )
    shown["prompts"] = [group.entry for group in kept]
    with unfinished(out) as temporary:
        temporary.write_text(_html(shown, [group.packed for group in kept]), encoding="utf-8")
    return {"groups": len(groups), "kept": len(kept), "bytes": out.stat().st_size}


def embedded(value: Any) -> str:
    r"""JSON for a script element: no character that HTML or JavaScript could take for its own.

    >>> embedded("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: U+2028 and U+2029 are escaped already
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _html(report: dict[str, Any], packed: list[str]) -> str:
    """The page as one HTML text that loads nothing: its content security policy allows its own script and style only.

    Args:
        report: what `main.js` reads.
        packed: the groups, in the order of `report["prompts"]`.
    """
    assets = files("ktae.report") / "assets"
    css = (assets / "page.css").read_text() + _colors()
    script = '"use strict";\n' + "".join((assets / name).read_text() for name in _SCRIPTS)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(css)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template((assets / "page.html").read_text()).substitute(
        policy=policy,
        title=html.escape(report["title"]),
        style=css,
        script=script,
        report=embedded(report),
        groups=embedded(packed),
    )


def _colors() -> str:
    """The colours and dashes of `ktae.pictures.style` as CSS."""

    def variables(credit: str, blame: str, lines: Iterable[str]) -> str:
        named = {"credit": credit, "blame": blame, **{f"s{k}": color for k, color in enumerate(lines)}}
        channels = {name: " ".join(str(part) for part in bytes.fromhex(color[1:])) for name, color in named.items()}
        return ":root { " + " ".join(f"--{name}: {color};" for name, color in channels.items()) + " }\n"

    light = variables(style.CREDIT, style.BLAME, style.SERIES)
    dark = variables(style.DARK_CREDIT, style.DARK_BLAME, style.DARK_SERIES)
    css = f"{light}@media (prefers-color-scheme: dark) {{ {dark} }}\n"
    for k, dashes in enumerate(style.DASHES):
        dashed = " ".join(str(2 * part) for part in dashes) or "none"
        css += f".s{k} {{ stroke: rgb(var(--s{k})); stroke-dasharray: {dashed}; }}\n"
    return css


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _with_progress(groups: dict[str, list[Rollout]]) -> Iterable[tuple[str, list[Rollout]]]:
    """The groups, with a bar and the time left on a terminal."""
    console = require("rich.console", extra="report").Console(stderr=True)
    track = require("rich.progress", extra="report").track
    return track(groups.items(), "prompts", console=console, transient=True, disable=not console.is_terminal)


def _summary(entries: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    total = {name: sum(entry[name] for entry in entries) for name in ("rollouts", "scored", "correct", "tokens")}
    facts = {
        "prompts": len(entries),
        "rollouts": total["rollouts"],
        "tokens": total["tokens"],
        "correct": f"{total['correct'] / total['scored']:.1%}" if total["scored"] else "-",
        "mixed prompts": sum(map(_is_mixed, entries)),
        "not scored": total["rollouts"] - total["scored"],
    }
    return [(k, v if isinstance(v, str) else f"{v:,}") for k, v in facts.items() if v or k != "not scored"]


def _is_mixed(entry: dict[str, Any]) -> bool:
    return 0 < entry["correct"] < entry["scored"]
