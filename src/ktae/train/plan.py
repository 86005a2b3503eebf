"""`ktae train RECIPE --dry-run`: checks a recipe as a run would, and prints what the run would do.

No weights are loaded and nothing is written. `WORLD_SIZE=8 ktae train RECIPE --dry-run` plans for eight processes,
wherever it runs.
"""

from __future__ import annotations

import dataclasses
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

from ktae.config import KTAEConfig
from ktae.extras import require
from ktae.models.load import check_model
from ktae.train.recipe import Lora, Recipe, parse_algorithm
from ktae.train.rewards import check_threshold
from ktae.train.run import Run, check, check_installed
from ktae.train.settings import grpo_config, is_main, overlong_buffer, processes

_TRIED = 20  # answers that the reward function is given
_SHOWN = 300  # characters of a prompt
_TOKENIZED = 20_000  # prompts at most
_TILE_TOKENS, _TILE_WORDS = 4096, 32768  # in which TRL computes the logits of an update

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
    config = max(configs.values(), key=lambda config: config.beta)  # that needs most memory
    model_config, tokenizer = check_model(recipe.model)
    model = skeleton(model_config, recipe.lora)
    weights = str(model_config.dtype or torch.float32) if recipe.model.dtype == "auto" else recipe.model.dtype
    first, lengths = _prompts(run, config, tokenizer)
    sections: dict[str, Rows] = {
        "Algorithms": [(parse_algorithm(name).label, _algorithm(recipe, name, configs[name])) for name in configs],
        "Training": _training(recipe, config, run, weights.removeprefix("torch.")),
        "Data": _data(recipe, run, first, lengths),
        "Model": [
            ("path", f"{recipe.model.path}; completions end with {tokenizer.eos_token!r}"),
            ("parameters", f"{model.num_parameters():,}, {model.num_parameters(only_trainable=True):,} trained"),
        ],
        "Memory of one device": _memory(recipe, config, model, 4 if "float32" in weights else 2, max(lengths)),
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
    high = config.epsilon if config.epsilon_high is None else config.epsilon_high
    parts = [f"{config.loss_type} loss, ratios {1 - config.epsilon:g} to {1 + high:g}, KL {config.beta:g}"]
    if algorithm.rollout == "dapo" and (dynamic := recipe.dynamic_sampling):
        parts.append(f"dynamic sampling in up to {dynamic.max_generation_rounds} rounds, then {dynamic.when_short}")
    if buffer := overlong_buffer(recipe, name, config.max_completion_length):
        parts.append(f"overlong punishment over the last {buffer:,} of {config.max_completion_length:,} tokens")
    if algorithm.ktae:
        settings = dataclasses.asdict(recipe.key_tokens(name))
        paper = dataclasses.asdict(KTAEConfig(correct_above=recipe.correct_above))
        changed = [f"{key} {value}" for key, value in settings.items() if value != paper[key]]
        parts.append("key tokens by the paper's formula" + (f" but for {', '.join(changed)}" if changed else ""))
    elif algorithm.estimator:
        parts.append(f"values of {algorithm.estimator} on top")
    return "; ".join(parts)


def _training(recipe: Recipe, config: Any, run: Run, weights: str) -> Rows:
    batch, evaluation, limit = recipe.batch, recipe.evaluation, config.max_completion_length
    precision = f"{weights} weights" + ", bfloat16 autocast" * config.bf16 + ", float16 autocast" * config.fp16
    engine = f"vLLM ({config.vllm_mode})" if config.use_vllm else "transformers"
    updates = batch.updates * config.num_iterations
    generations = len(run.train_rows) // batch.prompts  # TRL drops the incomplete last one
    total = config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * generations * updates)
    measured = f"{evaluation.samples} sampled and {int(evaluation.greedy)} greedy a held-out problem, before and after"
    measured += f"; 1 sampled every {evaluation.every} updates" * bool(evaluation.every)
    passes = f"{config.gradient_accumulation_steps:,} pass(es) of {batch.per_device} on {processes()} process(es)"
    through = f"{total / updates / generations:.3g} times through the data"
    return [
        ("learning rate", f"{config.learning_rate:g}, {getattr(config.lr_scheduler_type, 'value', '')}"),
        ("precision", precision + ", gradient checkpointing" * config.gradient_checkpointing),
        ("rewards", f"{' + '.join(recipe.rewards)}; correct where {recipe.correctness} > {recipe.correct_above:g}"),
        ("a generation", f"{batch.prompts:,} problems x {batch.rollouts} rollouts, {updates} updates"),
        ("sampling", f"temperature {config.temperature:g}, at most {limit:,} tokens, {engine}"),
        ("an update", f"{batch.mini_batch:,} problems x {batch.rollouts} rollouts, in {passes}"),
        ("in all", f"{total:,} updates, {math.ceil(total / updates):,} generations, {through}; seed {recipe.seed}"),
        ("evaluation", measured),
    ]


def _prompts(run: Run, config: Any, tokenizer: Any) -> tuple[str, list[int]]:
    """The first prompt as the model gets it, and how many tokens each has."""
    prompts = list(run.train_rows["prompt"][:_TOKENIZED])
    if isinstance(prompts[0], str):
        return prompts[0], [len(ids) for ids in tokenizer(text=prompts)["input_ids"]]
    how = {"add_generation_prompt": True, **(config.chat_template_kwargs or {})}
    ids = tokenizer.apply_chat_template(prompts, return_dict=True, **how)["input_ids"]
    return tokenizer.apply_chat_template(prompts[0], tokenize=False, **how), [len(row) for row in ids]


def _data(recipe: Recipe, run: Run, first: str, lengths: list[int]) -> Rows:
    rewards, note = check_threshold(run.rewards[recipe.correctness], run.train_rows[:_TRIED], recipe.correct_above)
    right = sum(reward is not None and reward > recipe.correct_above for reward in rewards)
    judged = rf"; {recipe.correctness} takes {right} of the first {len(rewards)}, put in \boxed{{}}" if right else ""
    return [
        ("source", f"{recipe.data.source}: {len(run.train_rows):,} rows to train on, {len(run.test_rows):,} held out"),
        ("columns", ", ".join(run.train_rows.column_names)),
        ("a prompt, as sent", first.rstrip()[-_SHOWN:]),
        ("tokens of a prompt", f"median {statistics.median(lengths):g}, at most {max(lengths):,}"),
        ("its answer", " or ".join(run.train_rows[0]["answers"]) + judged),
        *([("reward", note)] if note else []),
    ]


def _warnings(recipe: Recipe, config: Any, model: Any, weights: str, longest: int) -> Iterator[str]:
    if "float32" not in weights and not recipe.lora and processes() == 1:
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


def skeleton(config: Any, lora: Lora | None) -> Any:
    """The model of a transformers configuration, with adapters where there are to be some, without any weights."""
    with torch.device("meta"):
        model = require("transformers", extra="train").AutoModelForCausalLM.from_config(config)
        if lora:
            peft = require("peft", extra="train")
            model = peft.get_peft_model(model, peft.LoraConfig(r=lora.rank, target_modules=lora.target_modules))
    return model


def memory(
    model: Any, stored: int, computed: int, *, shards: int, reference: bool, sampled: int, at_once: int, tokens: int
) -> dict[str, int]:
    """Bytes of one device with AdamW, in closed form; activations, libraries and the allocator's reserve come on top.

    Args:
        model: from `skeleton`.
        stored, computed: bytes of one weight as it is loaded, and of one value in a multiplication.
        shards: devices over which FSDP2 or ZeRO-3 spread weights, gradients and optimizer.
        reference: a second model is held (`trl.beta` > 0, all weights trained).
        sampled: rollouts that transformers samples at once; 0 with vLLM, which takes a share of the device for itself.
        at_once: rollouts in one forward and backward pass.
        tokens: of the longest rollout, prompt included.
    """
    whole, trained = model.num_parameters(), model.num_parameters(only_trainable=True)
    text = model.config.get_text_config()
    if trained < whole:  # PEFT's adapters are float32
        kept, weights = 4, (whole - trained) * stored + trained * 4
    else:  # accelerate shards float32 weights, whatever was loaded
        kept = 4 if shards > 1 and computed == 2 else stored
        weights = whole * kept + whole * stored * reference
    heads = text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    cached = 2 * text.num_hidden_layers * (getattr(text, "num_key_value_heads", None) or heads) * head_size
    tile = min(at_once * tokens, _TILE_TOKENS) * min(text.vocab_size, _TILE_WORDS)
    return {
        "weights": weights // shards,
        "gradients": trained * kept // shards,
        "optimizer": 2 * trained * kept // shards,
        "key-value cache": sampled * max(tokens - 1, 0) * cached * stored,
        # As computed, in float32, and twice as probabilities; TRL makes those of an update tile by tile.
        "logits, sampling": sampled * text.vocab_size * (stored + 12),
        "logits, updating": tile * (computed + 4),
    }


def _memory(recipe: Recipe, config: Any, model: Any, weight_bytes: int, longest: int) -> Rows:
    batch, world = recipe.batch, processes()
    sharded = "true" in (os.environ.get("ACCELERATE_USE_FSDP"), os.environ.get("ACCELERATE_USE_DEEPSPEED"))
    tokens = longest + config.max_completion_length
    terms = memory(
        model,
        weight_bytes,
        2 if config.bf16 or config.fp16 else weight_bytes,
        shards=world if sharded else 1,
        reference=config.beta > 0 and recipe.lora is None,
        sampled=0 if config.use_vllm else batch.prompts * batch.rollouts // world,
        at_once=batch.per_device,
        tokens=tokens,
    )
    held = terms["weights"] + terms["optimizer"]
    terms["while sampling"] = held + terms["key-value cache"] + terms["logits, sampling"]
    terms["while updating"] = held + terms["gradients"] + terms["logits, updating"]
    on_top = {"while sampling": ", and vLLM's share" * config.use_vllm, "while updating": ", and activations"}
    unit, factor = ("GiB", 2**30) if max(terms.values()) >= 2**30 else ("MiB", 2**20)
    return [(name, f"{size / factor:8,.2f} {unit}{on_top.get(name, '')}") for name, size in terms.items() if size]
