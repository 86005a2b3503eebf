"""`ktae train RECIPE --dry-run`: checks a recipe as a run would, and prints what the run would do.

No weights are loaded and nothing is written. `WORLD_SIZE=8 ktae train RECIPE --dry-run` plans for eight processes,
wherever it runs.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ktae.train.recipe import Recipe, parse_algorithm
from ktae.train.run import Run, check, check_installed
from ktae.train.settings import grpo_config, is_main, processes

_SHOWN = 300  # characters of a prompt
_TOKENIZED = 20_000  # prompts at most

Rows = list[tuple[str, str]]


def print_plan(recipe: Recipe) -> None:
    """Checks a recipe and prints what a run of it would be.

    Raises:
        ValueError, OSError, ImportError: what `ktae train` raises before it trains.
    """
    with _other_processes():
        out = Path("runs") / recipe.name
        run = check(recipe, out)
        configs = {name: grpo_config(recipe, name, out, test_rows=len(run.test_rows)) for name in recipe.algorithms}
        if is_main():
            _print(recipe, run, configs)


def _print(recipe: Recipe, run: Run, configs: dict[str, Any]) -> None:
    config = next(iter(configs.values()))
    model = run.model
    weights = recipe.model.dtype
    if weights == "auto":
        weights = str(model.config.dtype or "float32").removeprefix("torch.")
    held = memory(model, 4 if "float32" in weights else 2) / 2**30
    first, lengths = _prompts(run, config)
    sections: dict[str, Rows] = {
        "Algorithms": [(parse_algorithm(name).label, _algorithm(recipe, name, configs[name])) for name in configs],
        "Training": _training(recipe, config, run),
        "Data": _data(recipe, run, first, lengths),
        "Model": [
            ("path", f"{recipe.model.path}; completions end with {run.tokenizer.eos_token!r}"),
            ("parameters", f"{model.num_parameters():,}, {model.num_parameters(only_trainable=True):,} trained"),
            ("memory", f"{held:.3g} GiB for weights, gradients and AdamW's states; caches and activations on top"),
        ],
    }
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(f"[bold]{recipe.name}[/]: a dry run, nothing is trained or written")
    for title, rows in sections.items():
        console.print(f"\n[bold blue]{title}[/]")
        grid = Table.grid(padding=(0, 2))
        for label, value in rows:
            grid.add_row(Text(f"  {label}"), Text(value))
        console.print(grid)
    for warning in _warnings(recipe, config, model, weights, max(lengths)):
        console.print(Text(f"\nNote: {warning}", style="dark_orange"))


@contextmanager
def _other_processes() -> Iterator[None]:
    """Shows TRL as many processes as WORLD_SIZE says where nobody has started the others."""
    distributed = torch.distributed
    if processes() == 1 or "LOCAL_RANK" in os.environ or distributed.is_initialized():
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    variables = {"RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": str(processes()), "MASTER_ADDR": "localhost"}
    with mock.patch.dict(os.environ, variables):
        distributed.init_process_group("fake", rank=0, world_size=processes(), store=FakeStore())
        try:
            yield
        finally:
            distributed.destroy_process_group()


def _algorithm(recipe: Recipe, name: str, config: Any) -> str:
    algorithm = parse_algorithm(name)
    parts = [_fields(config, "loss_type", "epsilon", "epsilon_high", "beta")]
    if algorithm.rollout == "dapo":
        parts += [str(part) for part in (recipe.dynamic_sampling, recipe.overlong) if part]
    if algorithm.estimator:
        parts.append(str(recipe.key_tokens(name)) if algorithm.ktae else f"values of {algorithm.estimator}")
    return "; ".join(parts)


def _fields(config: Any, *names: str) -> str:
    return ", ".join(f"{name} {getattr(value := getattr(config, name), 'value', value)}" for name in names)


def _training(recipe: Recipe, config: Any, run: Run) -> Rows:
    batch = recipe.batch
    updates = batch.updates * config.num_iterations
    generations = len(run.train_rows) // batch.prompts  # TRL drops the incomplete last one
    total = config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * generations * updates)
    passes = f"{config.gradient_accumulation_steps:,} pass(es) of {batch.per_device} on {processes()} process(es)"
    through = f"{total / updates / generations:.3g} times through the data"
    return [
        ("optimizer", _fields(config, "learning_rate", "lr_scheduler_type", "bf16", "fp16", "gradient_checkpointing")),
        ("sampling", _fields(config, "temperature", "max_completion_length", "use_vllm")),
        ("rewards", f"{' + '.join(recipe.rewards)}; correct where {recipe.correctness} > {recipe.correct_above:g}"),
        ("a generation", f"{batch.prompts:,} problems x {batch.rollouts} rollouts, {updates} updates"),
        ("an update", f"{batch.mini_batch:,} problems x {batch.rollouts} rollouts, in {passes}"),
        ("in all", f"{total:,} updates, {math.ceil(total / updates):,} generations, {through}; seed {recipe.seed}"),
        ("evaluation", str(recipe.evaluation)),
    ]


def _prompts(run: Run, config: Any) -> tuple[str, list[int]]:
    """The first prompt as the model gets it, and how many tokens each has."""
    tokenizer, prompts = run.tokenizer, list(run.train_rows["prompt"][:_TOKENIZED])
    if isinstance(prompts[0], str):
        return prompts[0], [len(ids) for ids in tokenizer(text=prompts)["input_ids"]]
    how = {"add_generation_prompt": True, **(config.chat_template_kwargs or {})}
    ids = tokenizer.apply_chat_template(prompts, return_dict=True, **how)["input_ids"]
    return tokenizer.apply_chat_template(prompts[0], tokenize=False, **how), [len(row) for row in ids]


def _data(recipe: Recipe, run: Run, first: str, lengths: list[int]) -> Rows:
    right = sum(reward is not None and reward > recipe.correct_above for reward in run.tried)
    judged = rf"; {recipe.correctness} takes {right} of {len(run.tried)}, in \boxed{{}} and bare" if right else ""
    return [
        ("source", f"{recipe.data.source}: {len(run.train_rows):,} rows to train on, {len(run.test_rows):,} held out"),
        ("columns", ", ".join(run.train_rows.column_names)),
        ("a prompt, as sent", first.rstrip()[-_SHOWN:]),
        ("tokens of a prompt", f"median {statistics.median(lengths):g}, at most {max(lengths):,}"),
        ("its answer", " or ".join(run.train_rows[0]["answers"]) + judged),
        *([("reward", run.note)] if run.note else []),
    ]


def _warnings(recipe: Recipe, config: Any, model: Any, weights: str, longest: int) -> Iterator[str]:
    if "float32" not in weights and recipe.lora is None and processes() == 1:
        yield (
            f"model.dtype: the {weights} weights themselves are trained; changes below 1/256 of a weight are lost, as "
            "most are at learning rates around 1e-6. float32 keeps them"
        )
    try:
        check_installed(recipe)
    except ValueError as error:
        yield str(error)
    limit = config.max_completion_length
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context and longest + limit > context:
        yield (
            f"the longest prompt, {longest:,} tokens, and trl.max_completion_length {limit:,} come to more than the "
            f"model's context of {context:,}; `ktae data prepare --max-prompt-tokens` leaves such problems out"
        )


def memory(model: Any, weight_bytes: int) -> int:
    """Bytes of a model's weights, their gradients and AdamW's two states; adapters are float32."""
    whole, trained = model.num_parameters(), model.num_parameters(only_trainable=True)
    trained_bytes = weight_bytes if trained == whole else 4
    return (whole - trained) * weight_bytes + 4 * trained * trained_bytes
