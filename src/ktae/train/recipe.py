"""A recipe: one YAML file that says everything about a run, checked before anything is loaded.

name: my_run
algorithms: [grpo, grpo_ktae]        # each trained from the same model, data order and seed
model: {path: Qwen/Qwen2.5-Math-1.5B}
data: {source: problems.jsonl, prompt: "{question}", answer: "{answer}"}
rewards: [math_answer]
batch: {prompts: 64, rollouts: 8, mini_batch: 16, per_device: 8}
ktae: {term_frequency_weight: 0.0}   # any field of KTAEConfig
trl: {learning_rate: 1e-6}           # any field of TRL's GRPOConfig
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ktae.config import KTAEConfig
from ktae.extras import require
from ktae.models.load import Model
from ktae.train.parse import build, known_name, load_yaml, parse_overrides

SHIPPED = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Algorithm:
    """A rollout-level algorithm as settings of TRL's trainer, with or without key-token values.

    Attributes:
        label: its name in tables and plots.
        trl: fields of `GRPOConfig` that define it.
        ktae: add key-token values to the rollout advantages.
        recommended: they are those of `KTAEConfig.recommended()` instead of the recipe's `ktae`.
        dapo: with the recipe's `dynamic_sampling` and `overlong`.
    """

    label: str
    trl: dict[str, Any]
    ktae: bool = False
    recommended: bool = False
    dapo: bool = False


_GRPO = {"loss_type": "grpo", "scale_rewards": "group", "epsilon": 0.2}
_DAPO = {"loss_type": "dapo", "scale_rewards": "group", "epsilon": 0.2, "epsilon_high": 0.28, "beta": 0.0}
ALGORITHMS = {
    "grpo": Algorithm("GRPO", _GRPO),
    "grpo_ktae": Algorithm("GRPO+KTAE", _GRPO, ktae=True),
    "grpo_ktae_context": Algorithm("GRPO+KTAE in context", _GRPO, ktae=True, recommended=True),
    "dapo": Algorithm("DAPO", _DAPO, dapo=True),
    "dapo_ktae": Algorithm("DAPO+KTAE", _DAPO, ktae=True, dapo=True),
    "dapo_ktae_context": Algorithm("DAPO+KTAE in context", _DAPO, ktae=True, recommended=True, dapo=True),
}


@dataclass(frozen=True)
class Lora:
    """Train low-rank adapters (https://arxiv.org/abs/2106.09685) instead of all weights.

    Attributes:
        rank: of the adapters.
        alpha: their output is scaled by alpha / rank.
        dropout: on the adapters' input.
        target_modules: names of the layers that get one, or `all-linear`.
    """

    rank: int = 32
    alpha: int = 64
    dropout: float = 0.0
    target_modules: list[str] | Literal["all-linear"] = "all-linear"


@dataclass(frozen=True)
class Data:
    """Problems with known answers.

    Attributes:
        source: a `.jsonl`, `.json` or `.parquet` file (`ktae data prepare` writes them), a Hugging Face dataset id,
            or `modchain` (the quickstart task, made on the fly). Paths are relative to the working directory.
        prompt: template of the prompt; `{Column}` is replaced by the row's value. Without it the row's column
            `prompt` is taken, a text or a list of chat messages.
        answer: template of the accepted answer. Without it the row's column `answers` is taken, a list.
        chat: with `prompt`: send it as a user message through the tokenizer's chat template.
        system: system message, with `chat` only.
        split: split of a Hugging Face dataset.
        test_rows: rows held out for the evaluation, the same ones whatever the seed; never trained on.
        train_rows: rows to train on; None takes all that are left (required for `modchain`, which is endless).
    """

    source: str
    prompt: str | None = None
    answer: str | None = None
    chat: bool = False
    system: str | None = None
    split: str = "train"
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
        for f in dataclasses.fields(self):
            if getattr(self, f.name) < 1:
                raise ValueError(f"batch.{f.name} must be at least 1, got {getattr(self, f.name)}")
        if self.rollouts < 2:
            raise ValueError(f"batch.rollouts must be at least 2 to have a baseline, got {self.rollouts}")
        if self.prompts % self.mini_batch:
            raise ValueError(
                f"batch.prompts must be a multiple of batch.mini_batch, got {self.prompts} and {self.mini_batch}"
            )

    @property
    def updates(self) -> int:
        """Updates of the weights after each generation (times `trl.num_iterations`)."""
        return self.prompts // self.mini_batch


@dataclass(frozen=True)
class DynamicSampling:
    """DAPO's dynamic sampling (https://arxiv.org/abs/2503.14476): train on groups with reward variance only.

    Attributes:
        max_generation_rounds: generations at most to fill a batch.
        when_short: what then happens to a batch that is not full: `fill` completes it with groups without
            variance, as GRPO trains on, `stop` ends the run.
    """

    max_generation_rounds: int = 10
    when_short: Literal["fill", "stop"] = "fill"

    def __post_init__(self) -> None:
        if self.max_generation_rounds < 1:
            raise ValueError(
                f"dynamic_sampling.max_generation_rounds must be at least 1, got {self.max_generation_rounds}"
            )


@dataclass(frozen=True)
class Overlong:
    """DAPO's soft punishment of completions that come near the length limit; a reward of its own.

    Attributes:
        buffer: over the last `buffer` tokens before `trl.max_completion_length` the punishment grows from 0 to
            `factor`.
        factor: the punishment at the limit.
    """

    buffer: int = 512
    factor: float = 1.0


@dataclass(frozen=True)
class Evaluation:
    """What is measured on the held-out problems.

    Attributes:
        samples: completions a problem at temperature 1, before and after training; 0 leaves sampling out.
        greedy: also one greedy completion a problem.
        batch_size: completions generated together.
        every: updates between evaluations during training (sampled once, logged as `eval_*`); 0 for none.
    """

    samples: int = 1
    greedy: bool = True
    batch_size: int = 64
    every: int = 0


@dataclass(frozen=True)
class Recipe:
    """A whole run; see the module's docstring.

    Attributes:
        name: the run's folder is `runs/<name>`.
        algorithms: one or more of `ALGORITHMS`, trained one after the other from the same start.
        rewards: names of built-in reward functions or import paths `package.module:function`.
        correctness_reward: the function whose reward decides correctness; may be omitted if there is one only.
        samples_every: every so many updates all rollouts of the step are written to samples.jsonl; 0 for never.
        show_every: every so many updates two rollouts are shown with their rewards and key tokens; 0 for never.
        dynamic_sampling, overlong: parts of DAPO, for the `dapo` algorithms only; null switches one off.
        lora: null trains all weights.
        trl: fields of TRL's `GRPOConfig`; they win over an algorithm's own settings.
    """

    name: str
    algorithms: list[str]
    model: Model
    data: Data
    rewards: list[str]
    batch: Batch
    correctness_reward: str | None = None
    seed: int = 0
    samples_every: int = 10
    show_every: int = 0
    ktae: KTAEConfig = KTAEConfig()  # noqa: RUF009 (frozen)
    dynamic_sampling: DynamicSampling | None = DynamicSampling()
    overlong: Overlong | None = Overlong()
    lora: Lora | None = None
    evaluation: Evaluation = Evaluation()
    trl: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"name must consist of letters, digits, '.', '_' and '-', got {self.name!r}")
        if not self.algorithms or len(set(self.algorithms)) < len(self.algorithms):
            raise ValueError(f"algorithms must be a list without repetitions, got {self.algorithms}")
        for algorithm in self.algorithms:
            known_name("algorithm", algorithm, ALGORITHMS)
        if len(self.rewards) == 0:
            raise ValueError("rewards must name at least one reward function")
        if self.correctness_reward is not None and self.correctness_reward not in self.rewards:
            raise ValueError(f"correctness_reward must be one of {self.rewards}, got {self.correctness_reward!r}")
        if len(self.rewards) > 1 and self.correctness_reward is None:
            raise ValueError(f"correctness_reward must name one of {self.rewards}")
        known = {f.name for f in dataclasses.fields(require("trl", extra="train").GRPOConfig)} - _MANAGED.keys()
        for key in self.trl:
            if key in _MANAGED:
                raise ValueError(f"trl.{key} is set by ktae; {_MANAGED[key]}")
            known_name("key", f"trl.{key}", {f"trl.{name}" for name in known})

    @property
    def correctness(self) -> str:
        """The reward that decides which rollouts are correct."""
        return self.correctness_reward or self.rewards[0]

    def key_tokens(self, algorithm: str) -> KTAEConfig:
        """The estimator's settings for one of `ALGORITHMS`."""
        if not ALGORITHMS[algorithm].recommended:
            return self.ktae
        return dataclasses.replace(
            KTAEConfig.recommended(),
            correct_above=self.ktae.correct_above,
            exclude_token_ids=self.ktae.exclude_token_ids,
        )

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
    "push_to_hub": "give --push-to-hub",
    "eval_strategy": "set evaluation.every",
    "eval_steps": "set evaluation.every",
    "per_device_eval_batch_size": "set evaluation.batch_size",
    "num_generations": "set batch.rollouts",
    "per_device_train_batch_size": "set batch.per_device",
    "gradient_accumulation_steps": "set batch.mini_batch",
    "steps_per_generation": "set batch.prompts",
    "generation_batch_size": "set batch.prompts",
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
    values = load_yaml(path.read_text())
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping, got {type(values).__name__}")
    for key, value in parse_overrides(overrides or []):
        section = values
        *parents, last = key.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise ValueError(f"unknown key {key!r}: {parent!r} is not a section")
        section[last] = value
    return build(Recipe, values, prefix="")
