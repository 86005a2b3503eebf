"""A recipe: one YAML file that says everything about a run, checked before anything is loaded.

assets/quickstart.yaml is one; docs/recipe-keys.md lists every key.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field, is_dataclass, make_dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

from ktae.config import KTAEConfig
from ktae.estimators.interface import ESTIMATORS, Estimator, load_estimator
from ktae.extras import did_you_mean, require
from ktae.models.load import Model
from ktae.train.parse import build, load_yaml, parse_overrides

QUICKSTART = Path(__file__).parent / "assets" / "quickstart.yaml"
ROLLOUT_ALGORITHMS: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo", "scale_rewards": "group", "epsilon": 0.2},
    "dapo": {"loss_type": "dapo", "scale_rewards": "group", "epsilon": 0.2, "epsilon_high": 0.28, "beta": 0.0},
}
# Sections of a recipe, and an algorithm, the last part of whose name reads them.
_READERS = {"ktae": "grpo+ktae", "ktae_context": "grpo+ktae_context", "dynamic_sampling": "dapo", "overlong": "dapo"}
# Sections whose keys are the fields of another package's class.
_OPEN = {"trl": ("trl", "GRPOConfig"), "lora": ("peft", "LoraConfig")}
_KTAE_LABELS = {"ktae": "KTAE", "ktae_context": "KTAE in context"}


@dataclass(frozen=True)
class Algorithm:
    """What `ROLLOUT` or `ROLLOUT+ESTIMATOR` names: what every token of a rollout gets, and the values on top."""

    name: str  # of its folder: grpo, dapo+ktae_context, grpo+my_module.my_function
    rollout: str
    estimator: str | None

    @property
    def label(self) -> str:
        """Its name in tables and plots."""
        on_top = f"+{_KTAE_LABELS.get(self.estimator, self.estimator)}" if self.estimator else ""
        return self.rollout.upper() + on_top

    @property
    def ktae(self) -> bool:
        """Whether the values on top are key-token values, with settings of the recipe."""
        return self.estimator in _KTAE_LABELS

    def load_estimator(self) -> Estimator | None:
        """The function behind an estimator other than key-token values, or a ValueError; None without one."""
        if self.estimator is None or self.ktae:
            return None
        return load_estimator(":".join(filter(None, self.estimator.rpartition(".")[::2])))


@cache
def parse_algorithm(name: str) -> Algorithm:
    """The algorithm that `grpo`, `dapo`, or one of them with `+ESTIMATOR` names, or a ValueError.

    ESTIMATOR is `ktae` or `ktae_context`, whose settings are the recipe's sections of these names, another of
    `ktae.estimators`, or a function of your own, `package.module:function`.
    """
    rollout, plus, estimator = name.replace(":", ".").partition("+")
    own = "." in estimator and all(part.isidentifier() for part in estimator.split("."))
    known = {*_KTAE_LABELS, *ESTIMATORS}
    if rollout not in ROLLOUT_ALGORITHMS or (plus and not own and estimator not in known):
        with_estimator = map("+".join, product(ROLLOUT_ALGORITHMS, known))
        near = did_you_mean(name, [*ROLLOUT_ALGORITHMS, *with_estimator])
        forms = f"{' or '.join(ROLLOUT_ALGORITHMS)}, alone or with an estimator: grpo+ktae"
        raise ValueError(f"unknown algorithm {name!r}{near} ({forms})")
    return Algorithm(f"{rollout}{plus}{estimator}", rollout, estimator or None)


def label_of(name: str) -> str:
    """An algorithm's name in tables and plots; a name that is not one of ours, from another program's run, as it is."""
    try:
        return parse_algorithm(name).label
    except ValueError:
        return name


@dataclass(frozen=True)
class Data:
    """Problems with known answers.

    Attributes:
        source: a `.jsonl`, `.json` (also `.gz`) or `.parquet` file, or a Hugging Face dataset id, with the columns
            `prompt`, a text or a list of chat messages, and `answers`, a list (`ktae data prepare` makes such files of
            others); or `modchain`, the quickstart task, made on the fly. Paths are relative to the working directory.
        test_rows: rows held out for the evaluation, the same ones whatever the seed; never trained on.
        train_rows: rows to train on; null takes all that are left (required for `modchain`, which is endless).
    """

    source: str
    test_rows: int = 200
    train_rows: int | None = None


@dataclass(frozen=True)
class Batch:
    """How many rollouts make a step; the same on any number of devices.

    Attributes:
        prompts: problems sampled for one generation, over all devices.
        rollouts: completions of each, the group size G.
        mini_batch: problems whose rollouts make one update of the weights; `prompts / mini_batch` updates follow
            each generation.
        per_device: rollouts in one forward and backward pass of one device. Changes memory and speed only.
    """

    prompts: int
    rollouts: int
    mini_batch: int
    per_device: int

    def __post_init__(self) -> None:
        for name, least in {"prompts": 1, "rollouts": 2, "mini_batch": 1, "per_device": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.prompts % self.mini_batch:
            raise ValueError(f"prompts must be a multiple of mini_batch, got {self.prompts} and {self.mini_batch}")

    @property
    def updates(self) -> int:
        """After each generation (times `trl.num_iterations`)."""
        return self.prompts // self.mini_batch


@dataclass(frozen=True)
class Evaluation:
    """What is measured on the held-out problems.

    Attributes:
        samples: completions a problem at temperature 1, before and after training; 0 leaves sampling out.
        greedy: also one greedy completion a problem.
    """

    samples: int = 1
    greedy: bool = True


@dataclass(frozen=True)
class Recipe:
    """A whole run; see the module's docstring.

    Attributes:
        name: the run's folder is `runs/<name>`.
        algorithms: `grpo`, `dapo`, or one of them with an estimator on top (`grpo+ktae`, docs/training.md); each is
            trained from the same start.
        model: the policy to start from.
        data: problems with known answers.
        rewards: names of built-in reward functions or import paths `package.module:function`.
        batch: how many rollouts make a step.
        correctness_reward: the function whose reward decides correctness; may be omitted if there is one only.
        correct_above: a rollout is correct when that reward is greater than this. Decides what key-token values,
            dynamic sampling and the reported accuracies take for correct.
        seed: of data order, sampling and adapters.
        samples_every: every so many updates all rollouts of the step are written to samples.jsonl; 0 for never.
        ktae: key-token values of the algorithms `+ktae`; by default the paper's formula.
        ktae_context: those of the algorithms `+ktae_context`; by default `KTAEConfig.recommended()`.
        dynamic_sampling: generations at most with which the algorithms `dapo` fill a batch with groups that have
            reward variance; null switches DAPO's dynamic sampling off.
        overlong: tokens before `trl.max_completion_length` over which DAPO's punishment of overlong completions, a
            reward of its own for the algorithms `dapo`, grows from 0 to 1; null switches it off.
        lora: fields of PEFT's `LoraConfig`, whose adapters are trained, on all linear layers unless `target_modules`
            says otherwise; null trains all weights.
        evaluation: what is measured on the held-out problems.
        trl: fields of TRL's `GRPOConfig`; they win over an algorithm's own settings.
    """

    name: str
    algorithms: list[str]
    model: Model
    data: Data
    rewards: list[str]
    batch: Batch
    correctness_reward: str | None = None
    correct_above: float = 0.0
    seed: int = 0
    samples_every: int = 10
    ktae: KTAEConfig = KTAEConfig()  # noqa: RUF009 (frozen)
    ktae_context: KTAEConfig = KTAEConfig.recommended()  # noqa: RUF009
    dynamic_sampling: int | None = 10
    overlong: int | Literal["quarter"] | None = "quarter"
    lora: dict[str, Any] | None = None
    evaluation: Evaluation = Evaluation()
    trl: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"name must consist of letters, digits, '.', '_' and '-', got {self.name!r}")
        names = [parse_algorithm(name).name for name in self.algorithms]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"algorithms must be a list without repetitions, got {self.algorithms}")
        if len(self.rewards) == 0:
            raise ValueError("rewards must name at least one reward function")
        if self.correctness_reward is not None and self.correctness_reward not in self.rewards:
            raise ValueError(f"correctness_reward must be one of {self.rewards}, got {self.correctness_reward!r}")
        if len(self.rewards) > 1 and self.correctness_reward is None:
            raise ValueError(f"correctness_reward must name one of {self.rewards}")
        if self.dynamic_sampling is not None and self.dynamic_sampling < 1:
            raise ValueError(f"dynamic_sampling must be at least 1, or null, got {self.dynamic_sampling}")
        object.__setattr__(self, "algorithms", names)
        for section in _KTAE_LABELS:
            settings = dataclasses.replace(getattr(self, section), correct_above=self.correct_above)
            object.__setattr__(self, section, settings)

    @property
    def correctness(self) -> str:
        """The reward that decides which rollouts are correct."""
        return self.correctness_reward or self.rewards[0]

    def key_tokens(self, algorithm: str) -> KTAEConfig:
        """The settings of an algorithm's key-token values; where it has none, those to look at its rollouts with."""
        estimator = parse_algorithm(algorithm).estimator
        return self.ktae_context if estimator == "ktae_context" else self.ktae

    def as_dict(self) -> dict[str, Any]:
        """What YAML holds of a recipe: every default spelled out, and no section that nothing reads."""
        values = dataclasses.asdict(self)
        for section in _KTAE_LABELS:
            del values[section]["correct_above"]
        for section in _without_effect(values, self.algorithms):
            del values[section]
        return values


SET_BY_KTAE = {
    "ktae.correct_above": "set correct_above",
    "ktae_context.correct_above": "set correct_above",
    "trl.output_dir": "give --out",
    "trl.seed": "set seed",
    "trl.resume_from_checkpoint": "give --resume",
    "trl.disable_tqdm": "the progress display is ktae's",
    "trl.save_only_model": "a run could not go on from such checkpoints",
    "trl.load_best_model_at_end": "the model of the last update is kept; save_total_limit keeps earlier ones too",
    "trl.push_to_hub": "upload the finished folder ALGORITHM/model with `hf upload`",
    "trl.num_generations": "set batch.rollouts",
    "trl.per_device_train_batch_size": "set batch.per_device",
    "trl.gradient_accumulation_steps": "set batch.mini_batch",
    "trl.steps_per_generation": "set batch.prompts",
    "trl.generation_batch_size": "set batch.prompts",
}


def load_recipe(recipe: str, overrides: list[str] | None = None) -> Recipe:
    """Reads a recipe, a YAML file or the name of one that comes with the package, and applies command-line overrides.

    Those are `["--trl.learning_rate", "1e-5", "--seed=1"]`; values are YAML.

    Raises:
        FileNotFoundError: no such file or shipped recipe.
        ValueError: a key is unknown (the nearest right one is named), missing, of the wrong type, or has no effect on
            the algorithms.
    """
    path = QUICKSTART if recipe == "quickstart" else Path(recipe)
    if not path.is_file():
        raise FileNotFoundError(f"no recipe {recipe!r}: not a file, and not one that comes with ktae (quickstart)")
    values = load_yaml(path.read_text())
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping, got {type(values).__name__}")
    sections, algorithms = list(values), values.get("algorithms")
    changed = parse_overrides(overrides or [])
    for key, text in changed:
        section = values
        *parents, last = key.split(".")
        for parent in parents:
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
            if not isinstance(section, dict):
                raise ValueError(f"unknown key {key!r}: {parent!r} is not a section")
        section[last] = load_yaml(text)
    made = _checked(values)
    if isinstance(algorithms, list):
        _check_effect(sections, algorithms)
    _check_effect([key.partition(".")[0] for key, _ in changed], made.algorithms)
    return made


def _checked(values: dict[str, Any]) -> Recipe:
    given = {name: section for name, section in values.items() if isinstance(section, dict)}
    for key, instead in SET_BY_KTAE.items():
        section, _, name = key.partition(".")
        if name in given.get(section, ()):
            raise ValueError(f"{key} is set by ktae; {instead}")
    if "ktae_context" in given:  # what it leaves open is the preset's, not the class's
        values["ktae_context"] = dataclasses.asdict(KTAEConfig.recommended()) | given["ktae_context"]
    types = {
        name: make_dataclass(name, [(key, hint, None) for key, hint in typing.get_type_hints(_open(name)).items()])
        for name in _OPEN
        if name in given
    }
    build(make_dataclass("Open", types.items()), {name: given[name] for name in types}, _keys)
    return build(Recipe, values, _keys)


def _open(section: str) -> type:
    module, name = _OPEN[section]
    return getattr(require(module, extra="train"), name)


@cache
def _keys() -> set[str]:
    """Every dotted key that a recipe may set."""
    top = typing.get_type_hints(Recipe) | {name: _open(name) for name in _OPEN}
    inside = {f"{name}.{one.name}" for name, cls in top.items() if is_dataclass(cls) for one in dataclasses.fields(cls)}
    return {*top, *inside} - SET_BY_KTAE.keys()


def _without_effect(sections: Iterable[str], algorithms: list[str]) -> list[str]:
    """The sections that no algorithm reads."""
    parts = {part for name in algorithms for part in str(name).split("+")}
    return [section for section in sections if section in _READERS and _READERS[section].split("+")[-1] not in parts]


def _check_effect(sections: list[str], algorithms: list[str]) -> None:
    for section in _without_effect(sections, algorithms):
        raise ValueError(
            f"{section} has no effect: it is for algorithms such as {_READERS[section]}, and algorithms is {algorithms}"
        )
