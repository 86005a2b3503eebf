"""A recipe: one YAML file that says everything about a run, checked before anything is loaded.

name: my_run
algorithms: [grpo, grpo_ktae]        # each trained from the same model, data order and seed
model: {path: Qwen/Qwen2.5-Math-1.5B}
data: {source: problems.jsonl, prompt: "{question}", answer: "{answer}"}
rewards: [math_answer]
ktae: {term_frequency_weight: 0.0}   # any field of KTAEConfig
trl: {learning_rate: 1e-6}           # any field of TRL's GRPOConfig
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ktae.config import KTAEConfig
from ktae.extras import require

SHIPPED = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Algorithm:
    """A rollout-level algorithm as settings of TRL's trainer, with or without key-token values."""

    label: str
    trl: dict[str, Any]
    ktae: bool


_GRPO = {"loss_type": "grpo", "scale_rewards": "group", "epsilon": 0.2}
ALGORITHMS = {
    "grpo": Algorithm("GRPO", _GRPO, ktae=False),
    "grpo_ktae": Algorithm("GRPO+KTAE", _GRPO, ktae=True),
}


@dataclass(frozen=True)
class Model:
    """The policy to start from.

    Attributes:
        path: a Hugging Face id, a folder, a `.gguf` file, or `python:PACKAGE/PATH`, a file or folder inside an
            installed Python package.
        dtype: precision of the weights; `auto` keeps the checkpoint's own.
    """

    path: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


@dataclass(frozen=True)
class Data:
    """Problems with known answers.

    Attributes:
        source: `modchain` (the quickstart task, made on the fly), a `.jsonl`, `.json` or `.parquet` file, or a
            Hugging Face dataset id. Relative paths are relative to the working directory.
        prompt: template of the prompt; `{Column}` is replaced by the row's value.
        answer: template of the reference answer.
        chat: send the prompt as a user message through the tokenizer's chat template.
        system: system message, with `chat` only.
        split: split of a Hugging Face dataset.
        test_rows: rows held out for the evaluation, drawn by the seed; never trained on.
        train_rows: rows to train on; None takes all that are left (required for `modchain`, which is endless).
    """

    source: str
    prompt: str = "{prompt}"
    answer: str = "{answer}"
    chat: bool = False
    system: str | None = None
    split: str = "train"
    test_rows: int = 200
    train_rows: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """What is measured on the held-out problems before and after training.

    Attributes:
        samples: completions a problem at temperature 1; 0 leaves sampling out.
        greedy: also one greedy completion a problem.
        batch_size: completions generated together.
    """

    samples: int = 1
    greedy: bool = True
    batch_size: int = 64


@dataclass(frozen=True)
class Recipe:
    """A whole run; see the module's docstring.

    Attributes:
        name: the run's folder is `runs/<name>`.
        algorithms: one or more of `ALGORITHMS`, trained one after the other from the same start.
        rewards: names of built-in reward functions or import paths `package.module:function`.
        correctness_reward: the function whose reward decides correctness; may be omitted if there is one only.
        samples_every: every so many steps all rollouts of the step are written to samples.jsonl; 0 for never.
        trl: fields of TRL's `GRPOConfig`; they win over an algorithm's own settings.
    """

    name: str
    algorithms: list[str]
    model: Model
    data: Data
    rewards: list[str]
    correctness_reward: str | None = None
    seed: int = 0
    samples_every: int = 10
    ktae: KTAEConfig = KTAEConfig()  # noqa: RUF009 (frozen)
    evaluation: Evaluation = Evaluation()
    trl: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"name must consist of letters, digits, '.', '_' and '-', got {self.name!r}")
        if not self.algorithms or len(set(self.algorithms)) < len(self.algorithms):
            raise ValueError(f"algorithms must be a list without repetitions, got {self.algorithms}")
        for algorithm in self.algorithms:
            _known("algorithm", algorithm, ALGORITHMS)
        if len(self.rewards) == 0:
            raise ValueError("rewards must name at least one reward function")
        known = {f.name for f in dataclasses.fields(require("trl", extra="train").GRPOConfig)} - _MANAGED.keys()
        for key in self.trl:
            if key in _MANAGED:
                raise ValueError(f"trl.{key} is set by ktae; {_MANAGED[key]}")
            _known("key", f"trl.{key}", {f"trl.{name}" for name in known})

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and scalars, every default spelled out."""
        values = dataclasses.asdict(self)
        values["ktae"]["exclude_token_ids"] = list(self.ktae.exclude_token_ids)
        return values


_MANAGED = {
    "output_dir": "give --out",
    "seed": "set seed",
    "resume_from_checkpoint": "give --resume",
    "disable_tqdm": "the progress display is ktae's",
}


def load_recipe(recipe: str, overrides: list[str] | None = None) -> Recipe:
    """Reads a recipe and applies command-line overrides.

    Args:
        recipe: path of a YAML file, or the name of a recipe that comes with the package (`quickstart`).
        overrides: `["--trl.learning_rate", "1e-5", "--seed=1"]`; values are YAML.

    Raises:
        FileNotFoundError: no such file or shipped recipe.
        ValueError: a key is unknown (the nearest right one is named), missing or of the wrong type.
    """
    shipped = SHIPPED / f"{recipe}.yaml"
    path = shipped if "/" not in recipe and shipped.is_file() else Path(recipe)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
        raise FileNotFoundError(f"no recipe {recipe!r}: not a file, and not one that comes with ktae ({names})")
    values = _yaml(path.read_text())
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping, got {type(values).__name__}")
    for key, value in _parse_overrides(overrides or []):
        section = values
        *parents, last = key.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise ValueError(f"unknown key {key!r}: {parent!r} is not a section")
        section[last] = value
    return _build(Recipe, values, prefix="")


def _parse_overrides(arguments: list[str]) -> list[tuple[str, Any]]:
    overrides, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--") or len(argument) == 2:
            raise ValueError(f"expected --key value, got {argument!r}")
        key, equals, value = argument[2:].partition("=")
        if not equals:
            if not rest:
                raise ValueError(f"--{key} needs a value")
            value = rest.pop(0)
        overrides.append((key, _yaml(value)))
    return overrides


def _yaml(text: str) -> Any:
    yaml = require("yaml", extra="train")

    class Loader(yaml.SafeLoader):
        """YAML 1.1 reads 1e-6 as a string; people mean a number."""

    number = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return yaml.load(text, Loader)


def _build(cls: type, values: dict[str, Any], prefix: str) -> Any:
    """An instance of the dataclass `cls` from a mapping; every key and every type is checked."""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in values:
        _known("key", f"{prefix}{key}", {f"{prefix}{name}" for name in fields})
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ValueError(f"missing key {prefix}{name!s}")
    return cls(**{key: _convert(hints[key], value, f"{prefix}{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, key: str) -> Any:
    """`value` as the type `hint`, or a ValueError that names the key."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, dict):
            return _build(hint, value, prefix=f"{key}.")
    elif origin is Literal:
        if value in arguments:
            return value
    elif origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, key)
    elif origin in (list, tuple):
        if isinstance(value, list):
            return origin(_convert(arguments[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    elif origin is dict:
        if isinstance(value, dict):
            return value
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif hint in (int, str, bool) and type(value) is hint:
        return value
    expected = hint.__name__ if isinstance(hint, type) and origin is None else str(hint).replace("typing.", "")
    raise ValueError(f"{key} must be {expected}, got {value!r}")


def _known(what: str, name: str, known: Any) -> None:
    if name not in known:
        nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
        raise ValueError(f"unknown {what} {name!r}; did you mean {nearest[0]!r}?")
