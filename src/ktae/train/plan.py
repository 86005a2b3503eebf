"""`ktae train RECIPE --dry-run`: checks a recipe as a run would, and prints what the run would do.

No weights are loaded and nothing is written.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ktae.models.generate import as_text
from ktae.train.recipe import Recipe, parse_algorithm
from ktae.train.run import Run
from ktae.train.settings import check_installed, is_main, processes

_TOKENIZED = 20_000  # prompts at most
_OF_TRL = (
    *("loss_type", "epsilon", "epsilon_high", "beta", "learning_rate", "lr_scheduler_type", "temperature"),
    *("max_completion_length", "bf16", "gradient_checkpointing", "use_vllm"),
)


def print_plan(recipe: Recipe) -> None:
    """Checks a recipe and prints what a run of it would be; errors as `ktae train` before it trains."""
    run = Run(recipe, Path("runs") / recipe.name)
    if is_main():
        print(f"{recipe.name}: a dry run, nothing is trained or written\n")
        for label, text in _rows(run):
            print(f"  {label:<20} {text}")


def _rows(run: Run) -> Iterator[tuple[str, str]]:
    recipe, model, tokenizer = run.recipe, run.model, run.tokenizer
    config, batch = run.configs[recipe.algorithms[0]], recipe.batch
    for name, settings in run.configs.items():
        algorithm, values = parse_algorithm(name), settings.to_dict()
        yield algorithm.label, ", ".join(f"{field} {values[field]}" for field in _OF_TRL)
        if algorithm.rollout == "dapo":
            yield "", f"dynamic_sampling {recipe.dynamic_sampling}, overlong {recipe.overlong}"
        if algorithm.ktae:
            yield "", str(recipe.key_tokens(name))

    updates = batch.updates * config.num_iterations
    generations = len(run.train_rows) // batch.prompts  # TRL drops the incomplete last one
    total = config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * generations * updates)
    yield "a generation", f"{batch.prompts:,} problems x {batch.rollouts} rollouts, {updates} updates"
    passes = f"{config.gradient_accumulation_steps:,} pass(es) of {batch.per_device} on {processes()} process(es)"
    yield "an update", f"{batch.mini_batch:,} problems x {batch.rollouts} rollouts, in {passes}"
    through = f"{total / updates / generations:.3g} times through the data"
    yield "in all", f"{total:,} updates, {math.ceil(total / updates):,} generations, {through}; seed {recipe.seed}"

    yield "data", f"{recipe.data.source}: {len(run.train_rows):,} rows to train on, {len(run.test_rows):,} held out"
    prompts = run.train_rows["prompt"][:_TOKENIZED]
    texts = [as_text(tokenizer, prompt, config.chat_template_kwargs) for prompt in prompts]
    ids = tokenizer(text=texts, add_special_tokens=isinstance(prompts[0], str))["input_ids"]
    longest = max(map(len, ids))
    yield "a prompt", texts[0].rstrip()[-300:]
    yield "", f"prompts have {statistics.median(map(len, ids)):g} tokens in the median, at most {longest:,}"
    yield "its answer", " or ".join(run.train_rows[0]["answers"])
    taken = sum(reward is not None and reward > recipe.correct_above for reward in run.tried)
    judged = rf"it takes {taken} of {len(run.tried)} accepted answers, in \boxed{{}} and bare" if taken else ""
    where = f"where {recipe.correctness} > {recipe.correct_above:g}"
    yield "correct", "; ".join(part for part in (where, judged, run.note) if part)

    dtype = str(model.config.dtype or "float32") if recipe.model.dtype == "auto" else recipe.model.dtype
    parameters = f"{model.num_parameters():,} parameters, {model.num_parameters(only_trainable=True):,} trained"
    yield "model", f"{recipe.model.path}: {parameters}; completions end with {tokenizer.eos_token!r}"
    held = memory(model, 4 if "float32" in dtype else 2) / 2**30
    yield "memory", f"{held:.3g} GiB for weights, gradients and AdamW's states; caches and activations on top"
    if "float32" not in dtype and recipe.lora is None and processes() == 1:
        yield (
            "Note",
            f"model.dtype: the {dtype} weights themselves are trained; changes below 1/256 of a weight are lost, as "
            "most are at learning rates around 1e-6. float32 keeps them",
        )
    try:
        check_installed(recipe)
    except ValueError as error:
        yield "Note", str(error)
    limit, context = config.max_completion_length, getattr(model.config.get_text_config(), "max_position_embeddings", 0)
    if context and longest + limit > context:
        yield (
            "Note",
            f"the longest prompt, {longest:,} tokens, and trl.max_completion_length {limit:,} come to more than the "
            f"model's context of {context:,}; `ktae data prepare --max-prompt-tokens` leaves such problems out",
        )


def memory(model: Any, weight_bytes: int) -> int:
    """Bytes of a model's weights, their gradients and AdamW's two states; adapters are float32."""
    whole, trained = model.num_parameters(), model.num_parameters(only_trainable=True)
    return (whole - trained) * weight_bytes + 4 * trained * (weight_bytes if trained == whole else 4)
