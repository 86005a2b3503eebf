"""`ktae report`: one HTML page that shows which tokens were credited, and why.

ktae report runs/quickstart
ktae report rollouts.jsonl --tokenizer words --out rollouts.html

Of a run of `ktae train` its curves and evaluation are shown too, and its settings and tokenizer are taken.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import html
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from ktae.config import KTAEConfig
from ktae.files.columns import KEY_TOKEN_VALUES, ROLLOUT_ADVANTAGE, TOKEN_TEXTS, Rollout
from ktae.files.locks import unfinished
from ktae.files.tokens import Tokenizer, load_tokenizer
from ktae.pictures import style
from ktae.pictures.curves import METRICS, SMOOTHED, algorithms, read_curves, running_mean
from ktae.report.options import add_rollout_arguments, config_of, groups_of, tracked

if TYPE_CHECKING:
    from ktae.report.groups import Group
    from ktae.train.recipe import Recipe

_SCRIPTS = ("dom.js", "curves.js", "prompts.js", "group.js", "tokens.js", "main.js")  # in the order of their running
Packed = tuple[dict[str, Any], str]  # a group in the list of prompts; all else about it, as base64 of gzipped JSON
_DIGITS = 6  # significant ones of every number in the page
_SHOWN = 300  # characters of a prompt in the list of prompts; the chosen prompt is shown in full
_ADVANTAGES = (ROLLOUT_ADVANTAGE, "advantage")  # columns of `ktae score`, and of TRL and samples.jsonl
_TOLERANCE = 1e-3  # between values that were saved and those computed here


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rollout_arguments(parser, permutations=True)
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: report.html)")


def run(arguments: argparse.Namespace) -> None:
    from ktae.train.recipe import load_recipe  # torch

    path: Path = arguments.rollouts
    if not arguments.out.absolute().parent.is_dir():
        raise ValueError(f"--out must be in a folder that exists, got {arguments.out}")
    named = config_of(arguments)
    is_run = (path / "config.yaml").is_file() and (path / "provenance.jsonl").is_file()
    recipe = load_recipe(str(path / "config.yaml")) if is_run else None
    notes: list[str] = []
    groups: dict[str, list[Rollout]] = {}
    if recipe is None or (path / "samples.jsonl").exists():
        groups, malformed = groups_of(arguments, reward=recipe and recipe.correctness.rpartition(":")[2])
        if malformed:
            notes.append(f"Malformed rows left out: {len(malformed):,}. The first is {malformed[0]}.")
    saved = [*path.glob("*/model/tokenizer_config.json"), *path.glob("*/checkpoint-*/tokenizer_config.json")]
    tokenizer = arguments.tokenizer or (str(saved[0].parent) if recipe and saved else None)
    if tokenizer == "words":
        notes.append("The tokens here are words and punctuation marks, not those of a model.")
    loaded = load_tokenizer(tokenizer)
    packed = []
    for name, rollouts in tracked(groups.items(), "prompts"):
        # A run's groups are named ALGORITHM/STEP/GROUP.
        config = recipe.key_tokens(name.partition("/")[0]) if recipe and not arguments.set else named
        packed.append(pack(name, rollouts, loaded, config, permutations=arguments.permutations))
    title, source = (recipe.name, path) if recipe else (path.absolute().name, path.parent)
    head = {"title": title, "source": "" if str(source) in (title, ".") else str(source), "notes": notes}
    write_page(arguments.out, packed, **head, **(of_run(path, recipe) if recipe else {}))
    for note in notes:
        print(note)
    print(f"{arguments.out}: {len(packed):,} prompts, {arguments.out.stat().st_size / 1e6:.1f} MB")


def write_page(out: Path, groups: Sequence[Packed], **head: Any) -> None:
    """Writes the page. Its head has a `title`, `source`, `notes`, and what `of_run` says about a training run."""
    from ktae.report.groups import apart  # torch

    entries = [entry for entry, _ in groups]
    total = {name: sum(entry[name] for entry in entries) for name in ("rollouts", "tokens", "correct", "scored")}
    summary = {
        **head.pop("facts", {}),
        **{"prompts": len(entries), "rollouts": total["rollouts"], "tokens": total["tokens"]},
        "correct": f"{total['correct'] / total['scored']:.1%}" if total["scored"] else "-",
        "mixed prompts": sum(0 < entry["correct"] < entry["scored"] for entry in entries),
    }
    if unscored := total["rollouts"] - total["scored"]:
        summary["not scored"] = unscored
    head["summary"] = [(name, f"{one:,}" if isinstance(one, int) else one) for name, one in summary.items()]
    prompts = apart([entry["prompt"] for entry in entries])
    head["prompts"] = [{**entry, "prompt": prompt[:_SHOWN]} for entry, prompt in zip(entries, prompts, strict=True)]
    with unfinished(out) as temporary:
        temporary.write_text(_html(head, [data for _, data in groups]), encoding="utf-8")


def pack(
    name: str, rollouts: Sequence[Rollout], tokenizer: Tokenizer | None, config: KTAEConfig, *, permutations: int
) -> Packed:
    """A group as the page holds it. Rollout advantages are those saved with the rollouts, or else GRPO's.

    Raises a ValueError if the rollouts have no token texts and there is no tokenizer, or one that does not go with
    them, or if they were saved with other key-token values.
    """
    from ktae.report.groups import group_of, remarks  # torch

    group = group_of(rollouts, config, tokenizer, permutations=permutations)
    if not group.has_texts:
        hint = "name the tokenizer that made the token ids, --tokenizer"
        raise ValueError(f"group {name} must have {TOKEN_TEXTS}, one for each of its token ids; or {hint}")
    _check_saved_values(group)
    advantages = _saved_advantages(rollouts) or [of.advantage for of in group.scores]
    # Of the token ids the texts: JavaScript's integers end at 2^53.
    units = {name: values.tolist() for name, values in group.table.columns().items()}
    units["unit"] = list(map(str, units["unit"]))
    packed_rollouts = []
    for row, (rollout, correct, texts) in enumerate(zip(group.rollouts, group.correct, group.texts, strict=True)):
        places = group.table.unit_index[row, : len(texts)].tolist()
        packed: dict[str, Any] = {
            "reward": _number(rollout.reward),
            "correct": None if correct is None else int(correct),
            "advantage": 0.0 if correct is None else _number(advantages[row]),
            "units": places,
        }
        if any(unit < 0 or units["text"][unit] != text for unit, text in zip(places, texts, strict=True)):
            packed["texts"] = texts
        if config.centered:
            packed["values"] = list(map(_number, group.scores[row].value_T.tolist()))
        packed_rollouts.append(packed)
    payload = {
        "prompt": rollouts[0].prompt,
        "scale": config.scale * (2 if config.centered else 1),
        "remarks": remarks(group),
        "units": {name: list(map(_number, values)) for name, values in units.items()},
        "rollouts": packed_rollouts,
    }
    rewards = [rollout.reward for rollout in rollouts if not math.isnan(rollout.reward)]
    entry = {
        "id": name,
        "prompt": rollouts[0].prompt,
        "rollouts": len(rollouts),
        "scored": len(rewards),
        "correct": group.correct.count(True),
        "reward": _number(float(np.mean(rewards))) if rewards else None,
        "tokens": sum(map(len, group.texts)),
    }
    data = gzip.compress(json.dumps(payload, separators=(",", ":")).encode(), mtime=0)
    return entry, base64.b64encode(data).decode()


def _number(value: Any) -> Any:
    """A float with a few digits, None for NaN; other values as they are."""
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else float(f"{value:.{_DIGITS}g}")


def _saved_advantages(rollouts: Sequence[Rollout]) -> list[float] | None:
    """The rollout advantages that the rollouts were saved with; None unless all scored ones have one."""
    for key in _ADVANTAGES:
        saved = [0.0 if math.isnan(rollout.reward) else rollout.data.get(key) for rollout in rollouts]
        if all(isinstance(value, int | float) and math.isfinite(value) for value in saved):
            return [float(value) for value in saved if value is not None]
    return None


def _check_saved_values(group: Group) -> None:
    """Refuses to explain key-token values that come from other settings than the tables."""
    for rollout, (_, value_T, _) in zip(group.rollouts, group.scores, strict=True):
        saved = np.array(rollout.data.get(KEY_TOKEN_VALUES, value_T), float)
        if saved.shape != value_T.shape or not np.allclose(saved, value_T, rtol=0, atol=_TOLERANCE):
            raise ValueError(
                f"row {rollout.row}: {KEY_TOKEN_VALUES} must be those of the settings, and they differ; "
                "give the settings and all the rollouts that the values come from"
            )


def of_run(path: Path, recipe: Recipe) -> dict[str, Any]:
    """What the page shows of a run: curves, evaluation (results.json, None before there are results), and facts.

    Points of a curve are [update, value, running mean]; metrics of a single update are left out.
    """
    from ktae.train.recipe import label_of  # torch

    read = read_curves(path) if (path / "metrics.jsonl").exists() else {}
    panels = []
    for metric, of_metric in read.items():
        series = []
        for algorithm, (steps, values) in of_metric.items():
            points = zip(steps, map(_number, values), map(_number, running_mean(values)), strict=True)
            series.append({"name": label_of(algorithm), "points": list(points)})
        if any(len(steps) > 1 for steps, _ in of_metric.values()):
            panels.append({"label": METRICS[metric], "series": series})
    results = json.loads((path / "results.json").read_text()) if (path / "results.json").exists() else {}
    updates = max((steps[-1] for of_metric in read.values() for steps, _ in of_metric.values()), default=0)
    facts = {"model": recipe.model.path, "algorithms": ", ".join(map(label_of, recipe.algorithms)), "updates": updates}
    return {
        "curves": {"names": list(map(label_of, algorithms(read))), "note": SMOOTHED, "panels": panels},
        "evaluation": results if results.get("problems") else None,
        "facts": facts,
    }


def embedded(value: Any) -> str:
    """JSON for a script element: no character that HTML or JavaScript could take for its own."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: U+2028 and U+2029 are escaped already
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _html(report: dict[str, Any], groups: list[str]) -> str:
    """The page as one HTML text; its content security policy lets it load nothing and run its own script only."""
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
        groups=embedded(groups),
    )


def _colors() -> str:
    """The colours and dashes of `ktae.pictures.style` as CSS."""
    pairs = enumerate(zip(style.SERIES, style.DARK_SERIES, strict=True))
    css = ":root {" + "".join(f" --s{k}: light-dark({light}, {dark});" for k, (light, dark) in pairs) + " }\n"
    for k, dashes in enumerate(style.DASHES):
        dashed = " ".join(str(2 * part) for part in dashes) or "none"
        css += f".s{k} {{ stroke: var(--s{k}); stroke-dasharray: {dashed}; }}\n"
    return css


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
