"""The sections of a plan that say what would be trained: algorithms, settings, batch, data, model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from ktae.train.memory import (
    Architecture,
)
from ktae.train.recipe import ALGORITHMS, Recipe
from ktae.train.run import Run
from ktae.train.settings import has_overlong, processes

_TRIED = 20  # answers that the reward function is given
_SHOWN = 300  # characters of a prompt
TOKENIZED = 20_000  # prompts at most


@dataclass
class Notes:
    """What the plan says at its end.

    Attributes:
        warnings: what is allowed and most likely not meant.
        unchecked: what could not be checked, and what settles it.
    """

    warnings: list[str] = field(default_factory=list)
    unchecked: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Policy:
    """What is known of the model.

    Attributes:
        config: transformers' configuration, None if unknown.
        tokenizer: None if it could not be loaded.
        sizes: None if the configuration is unknown or of another kind than `architecture` reads.
        trained: parameters that training changes; 0 if `sizes` is None.
        source: where the number of parameters is from.
    """

    config: Any = None
    tokenizer: Any = None
    sizes: Architecture | None = None
    trained: int = 0
    source: str = ""


@dataclass(frozen=True)
class Prompts:
    """The training prompts as the model gets them: the first one's text, and how many tokens each has."""

    first: str
    lengths: list[int]


def grid(rows: Sequence[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for label, value in rows:
        grid.add_row(Text(label), Text(value))
    return grid


def algorithms_section(recipe: Recipe, configs: dict[str, Any]) -> Table:
    averages = {
        "grpo": "mean over rollouts of means over tokens",
        "dapo": "mean over the tokens of an update",
        "bnpo": "mean over the tokens of a pass",
        "dr_grpo": "sum over tokens / (rollouts x limit)",
    }
    scaled = {"group": " / its std", "batch": " / std of the generation"}
    table = Table.grid(padding=(0, 2))
    table.add_row("", *(Text(ALGORITHMS[name].label, style="bold") for name in configs))

    def row(label: str, value: Any) -> None:
        table.add_row(Text(label), *(Text(value(name, config)) for name, config in configs.items()))

    def clip(_: str, config: Any) -> str:
        high = config.epsilon if config.epsilon_high is None else config.epsilon_high
        return f"ratios {1 - config.epsilon:g} to {1 + high:g}"

    def kl(_: str, config: Any) -> str:
        estimator = "k3 times the ratio" if config.use_bias_correction_kl else "k3"
        return f"{config.beta:g}, {estimator}" if config.beta else "none"

    def key_tokens(name: str, _: Any) -> str:
        if not ALGORITHMS[name].ktae:
            return "none"
        ktae = recipe.key_tokens(name)
        weights = (
            f"Fisher {ktae.fisher_weight:g}, IG {ktae.information_gain_weight:g}, tf {ktae.term_frequency_weight:g}"
        )
        excluded = f"; never {list(ktae.exclude_token_ids)}" if ktae.exclude_token_ids else ""
        released = "; released code's Fisher table" if ktae.fisher == "released" else ""
        context = f"; compared after the same {ktae.context} tokens" if ktae.context else ""
        centered = "; centered" if ktae.centered else ""
        return f"{weights}; scale {ktae.scale:g}{context}{centered}{released}{excluded}"

    def sampling(name: str, _: Any) -> str:
        dynamic = recipe.dynamic_sampling
        if not ALGORITHMS[name].dapo or dynamic is None:
            return "none"
        return f"{dynamic.max_generation_rounds} rounds at most, then {dynamic.when_short}"

    def overlong(name: str, config: Any) -> str:
        if not has_overlong(recipe, name) or recipe.overlong is None:
            return "none"
        limit = config.max_completion_length
        return f"up to {recipe.overlong.factor:g} over the last {recipe.overlong.buffer:,} of {limit:,} tokens"

    row("loss", lambda _, config: averages.get(config.loss_type, config.loss_type))
    row("clipped to", clip)
    row("KL to the start", kl)
    row("advantages", lambda _, config: f"(reward - mean of the group){scaled.get(config.scale_rewards, '')}")
    row("key-token values", key_tokens)
    row("dynamic sampling", sampling)
    row("overlong punishment", overlong)
    return table


def training_section(
    recipe: Recipe, config: Any, policy: Policy, strategy: str | None, notes: Notes
) -> list[tuple[str, str]]:
    weights = weights_dtype(recipe, policy)
    half = "bfloat16" if config.bf16 else "float16" if config.fp16 else None
    precision = f"{weights} weights" + (f", {half} autocast" if half else "")
    precision += ", gradient checkpointing" if config.gradient_checkpointing else ""
    defaults = {"bf16": "bfloat16 autocast", "gradient_checkpointing": "gradient checkpointing"}
    left = [words for key, words in defaults.items() if key not in recipe.trl]
    if left and not torch.accelerator.is_available():
        precision += f" (on a GPU {' and '.join(left)} by default)"
    if weights != "float32" and weights != "unknown" and not recipe.lora and strategy is None:
        notes.warnings.append(
            f"model.dtype: the {weights} weights themselves are trained, with {weights} optimizer states; changes "
            "below 1/256 of a weight are lost, as most are at learning rates around 1e-6. float32 keeps them"
        )
    if config.beta and not recipe.lora and recipe.model.path.endswith(".gguf"):
        notes.warnings.append("trl.beta: TRL loads the reference model from model.path, which fails with a .gguf file")
    rate = f"{config.learning_rate:g}, {getattr(config.lr_scheduler_type, 'value', config.lr_scheduler_type)}"
    if config.warmup_steps:
        rate += f" after {config.warmup_steps:g} warm-up" + (" steps" if config.warmup_steps >= 1 else " (share)")
    clipping = f"gradient norm at most {config.max_grad_norm:g}" if config.max_grad_norm else "gradients not clipped"
    optimizer = getattr(config.optim, "value", config.optim)
    rewards = " + ".join(recipe.rewards)
    sampling = f"temperature {config.temperature:g}, at most {config.max_completion_length:,} tokens"
    sampling += f", top-p {config.top_p:g}" if config.top_p < 1 else ""
    sampling += f", top-k {config.top_k}" if config.top_k else ""
    rows = [
        ("learning rate", rate),
        ("optimizer", f"{optimizer}, weight decay {config.weight_decay:g}, {clipping}"),
        ("precision", precision),
        ("sampling", f"{sampling}; {_engine(config)}"),
        ("rewards", f"{rewards}; correct where {recipe.correctness} > {recipe.ktae.correct_above:g}"),
    ]
    if recipe.lora:
        lora = recipe.lora
        targets = lora.target_modules if lora.target_modules == "all-linear" else ", ".join(lora.target_modules)
        parameters = f": {policy.trained:,} parameters" if policy.trained else ""
        rows.append(("adapters", f"LoRA of rank {lora.rank}, alpha {lora.alpha}, on {targets}{parameters}"))
    rows.append(("seed", str(recipe.seed)))
    return rows


def _engine(config: Any) -> str:
    if not config.use_vllm:
        return "transformers"
    correction = "with" if config.vllm_importance_sampling_correction else "without"
    correction += " importance-sampling correction"
    if config.vllm_mode == "server":
        return f"vLLM server, {correction}"
    sleeps = ", asleep meanwhile" if config.vllm_enable_sleep_mode else ""
    return f"vLLM in {config.vllm_gpu_memory_utilization:g} of each GPU{sleeps}, {correction}"


def batch_section(recipe: Recipe, config: Any, run: Run | None) -> list[tuple[str, str]]:
    batch, world = recipe.batch, processes()
    rollouts = batch.prompts * batch.rollouts
    updates = batch.updates * config.num_iterations
    share = f", {rollouts // world:,} of them on each of {world} processes" if world > 1 else ""
    at_once = f"{batch.per_device} rollouts" + (f" on each of {world} processes" if world > 1 else "")
    passes = config.gradient_accumulation_steps
    when = {"steps": f"every {config.save_steps:g} updates", "no": "none"}
    save = when.get(config.save_strategy.value, str(config.save_strategy.value))
    save += f", the last {config.save_total_limit} kept" if config.save_total_limit and save != "none" else ""
    rows = [
        ("a generation", f"{batch.prompts:,} problems x {batch.rollouts} rollouts = {rollouts:,}{share}"),
        (
            "an update",
            f"{batch.mini_batch:,} problems x {batch.rollouts} rollouts = {batch.mini_batch * batch.rollouts:,}, in "
            f"{passes:,} pass{'es' if passes > 1 else ''} of {at_once}",
        ),
        ("in all", _length(recipe, config, run, updates)),
        ("checkpoints", save),
    ]
    evaluation = recipe.evaluation
    modes = [f"{evaluation.samples} sampled"] * (evaluation.samples > 0) + ["1 greedy"] * evaluation.greedy
    measured = f"{' and '.join(modes)} for each held-out problem, before and after training" if modes else "none"
    measured += f"; 1 sampled every {evaluation.every} updates" if evaluation.every else ""
    return [*rows, ("evaluation", measured)]


def _length(recipe: Recipe, config: Any, run: Run | None, updates: int) -> str:
    """How many updates and generations the run has, and how often it goes through the data."""
    generations = len(run.train_rows) // recipe.batch.prompts if run else None  # TRL drops the incomplete last one
    total, epochs = config.max_steps, config.num_train_epochs
    if total <= 0 and generations:
        total = math.ceil(epochs * generations * updates)
    elif generations:
        epochs = total / updates / generations
    through = f"{'once' if epochs == 1 else f'{epochs:.3g} times'} through the data"
    each = f"{updates} update{'s' if updates > 1 else ''} a generation"
    if total <= 0:
        return f"{through}, {each}"
    often = f"{through}; " if generations else ""
    return f"{total:,} updates, {often}{math.ceil(total / updates):,} generations, {each}"


def data_section(
    recipe: Recipe, config: Any, run: Run | None, prompts: Prompts | None, policy: Policy, notes: Notes
) -> list[tuple[str, str]]:
    data = recipe.data
    if run is None:
        return [("source", f"{data.source}, not at hand"), ("rows", f"{data.test_rows:,} of them held out")]
    row = run.train_rows[0]
    rows = [
        ("source", data.source),
        ("rows", f"{len(run.train_rows):,} to train on, {len(run.test_rows):,} held out"),
        ("columns", ", ".join(run.train_rows.column_names)),
    ]
    if prompts is None:
        first = row["prompt"]
        rows.append(("a prompt", _end(first if isinstance(first, str) else first[-1]["content"])))
    else:
        longest = max(prompts.lengths)
        rows.append(("a prompt, as sent", _end(prompts.first)))
        rows.append(("tokens of a prompt", f"median {statistics.median(prompts.lengths):g}, at most {longest:,}"))
        rows[-1] = rows[-1][0], rows[-1][1] + f" in the first {TOKENIZED:,}" * (len(run.train_rows) > TOKENIZED)
        check_lengths(longest, config, policy, notes)
    answers = row["answers"]
    rows.append(("its answer", " or ".join(answers)))
    if recipe.correctness == "math_answer":
        rows.append(("reward", _try_reward(run, notes)))
    return rows


def _end(text: str) -> str:
    text = text.rstrip()
    return text if len(text) <= _SHOWN else "…" + text[-_SHOWN:]


def check_lengths(longest: int, config: Any, policy: Policy, notes: Notes) -> None:
    limits = {"the model's context": policy.sizes.context if policy.sizes else None}
    if config.use_vllm:
        limits["trl.vllm_max_model_length"] = config.vllm_max_model_length
    for name, limit in limits.items():
        if limit and longest + config.max_completion_length > limit:
            notes.warnings.append(
                f"the longest prompt, {longest:,} tokens, and trl.max_completion_length "
                f"{config.max_completion_length:,} come to more than {name} of {limit:,}; "
                "`ktae data prepare --max-prompt-tokens` leaves such problems out"
            )


def _try_reward(run: Run, notes: Notes) -> str:
    """What math_answer makes of the accepted answers themselves, boxed."""
    rows = run.train_rows[:_TRIED]
    completions = [rf"The answer is $\boxed{{{answers[0]}}}$." for answers in rows["answers"]]
    rewards = run.rewards["math_answer"](completions, answers=rows["answers"])
    right = sum(reward == 1.0 for reward in rewards)
    if right < len(rewards):
        index = next(i for i, reward in enumerate(rewards) if reward != 1.0)
        notes.warnings.append(
            f"math_answer gives {rewards[index]} to the accepted answer {rows['answers'][index][0]!r} itself, boxed; "
            f"{len(rewards) - right} of the first {len(rewards)} answers are not taken"
        )
    return rf"1 for {right} of the first {len(rewards)} answers, put in \boxed{{}}"


def model_section(recipe: Recipe, policy: Policy) -> list[tuple[str, str]]:
    rows = [("path", recipe.model.path)]
    config, sizes, tokenizer = policy.config, policy.sizes, policy.tokenizer
    if config is None:
        return [*rows, ("", "not at hand")]
    if sizes is not None:
        tied = "tied" if sizes.tied else "untied"
        rows += [
            (
                "architecture",
                f"{config.model_type}, {sizes.layers} layers of width {sizes.hidden:,}, "
                f"vocabulary {sizes.vocabulary:,}, {tied} embeddings",
            ),
            ("parameters", f"{sizes.parameters:,}, {policy.source}"),
            ("context", f"{sizes.context:,} tokens" if sizes.context else "not said"),
        ]
    if tokenizer is not None:
        pad = repr(tokenizer.pad_token) if tokenizer.pad_token else "none of its own, so the end token"
        template = "with" if tokenizer.chat_template else "without"
        rows.append(("tokenizer", f"ends with {tokenizer.eos_token!r}, pads with {pad}; {template} a chat template"))
    return rows


def weights_dtype(recipe: Recipe, policy: Policy) -> str:
    """Precision of the weights as they are loaded; `auto` of a GGUF file or of a configuration without one: float32."""
    if recipe.model.dtype != "auto":
        return recipe.model.dtype
    if policy.config is None:
        return "unknown"
    return str(policy.config.dtype or torch.float32).removeprefix("torch.")
