"""The section of a plan that says how much memory a device needs."""

from __future__ import annotations

import math
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ktae.train.memory import (
    Architecture,
    Load,
    Phase,
    Term,
    cache_bytes,
    estimate,
    peaks,
)
from ktae.train.plan_sections import Notes, Policy, Prompts, weights_dtype
from ktae.train.recipe import ALGORITHMS, Recipe
from ktae.train.settings import processes

_CARD = 80e9  # bytes of a GPU, where there is none
_STATES = {"adamw_torch": 2, "adamw_torch_fused": 2, "sgd": 0}  # values kept of each trained weight
_ASSUMED_PROMPT = 1024  # tokens, where neither the data nor vLLM's limit says


def memory_section(
    recipe: Recipe, config: Any, policy: Policy, prompts: Prompts | None, strategy: str | None, notes: Notes
) -> tuple[str, Group]:
    sizes = policy.sizes
    assert sizes is not None
    gpu = torch.accelerator.is_available() or config.use_vllm
    world = processes()
    sharding = "ZeRO-3" if strategy == "ZeRO-3" else "FSDP2" if strategy and strategy.startswith("FSDP") else None
    layouts = [(world, sharding)]
    if gpu and sharding is None and not recipe.lora:
        layouts.append((max(world, 8), "FSDP2"))
    loads = [_load(recipe, config, policy, prompts, count, sharding) for count, sharding in layouts]
    names = [
        f"{load.processes} process{'es' if load.processes > 1 else ''}{f', {load.sharding}' if load.sharding else ''}"
        for load in loads
    ]
    estimates = [estimate(sizes, load) for load in loads]
    totals = [peaks(terms) for terms in estimates]
    unit, factor = ("GiB", 2**30) if max(totals[0].values()) >= 2**30 else ("MiB", 2**20)

    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=28)
    for _ in loads:
        table.add_column(justify="right")
    origin = "how the first figure comes about" if len(loads) > 1 else ""
    table.add_row("", *(Text(name, style="bold") for name in names), Text(origin, style="dim"))
    for name in _in_order(estimates):
        cells = [next((term for term in terms if term.name == name), None) for terms in estimates]
        figures = (f"{cell.bytes / factor:,.2f}" if cell else "" for cell in cells)
        table.add_row(Text(name), *figures, Text(next(cell.formula for cell in cells if cell), style="dim"))
    phases: dict[Phase, None] = dict.fromkeys(phase for total in totals for phase in total)
    for phase in phases:
        figures = (f"{total.get(phase, 0) / factor:,.2f}" for total in totals)
        explanation = {"evaluating": "on the main process, before and after training"}
        table.add_row(Text(f"while {phase}", style="bold"), *figures, Text(explanation.get(phase, ""), style="dim"))
    lines = [_need(name, total, config, unit, factor) for name, total in zip(names, totals, strict=True)]
    if config.use_vllm and config.vllm_mode == "colocate":
        lines.append(_share(sizes, loads[0], config))
    if prompts is None:
        lines.append(f"prompts are taken to have {loads[0].prompt:,} tokens")
    _check_fits(totals[0], config, notes)
    where = "GPU" if gpu else "process"
    return f"Memory of one {where}, {unit}", Group(table, *(Text(line) for line in lines))


def _in_order(estimates: list[list[Term]]) -> list[str]:
    """The names of all terms; one that only a later estimate has follows what it follows there."""
    names: list[str] = []
    for terms in estimates:
        place = 0
        for term in terms:
            if term.name not in names:
                names.insert(place, term.name)
            place = names.index(term.name) + 1
    return names


def _load(recipe: Recipe, config: Any, policy: Policy, prompts: Prompts | None, world: int, sharding: Any) -> Load:
    assert policy.sizes is not None
    batch, evaluation = recipe.batch, recipe.evaluation
    completion = config.max_completion_length
    prompt = min(_ASSUMED_PROMPT, (policy.sizes.context or math.inf) - completion)
    if config.use_vllm and config.vllm_max_model_length:
        prompt = config.vllm_max_model_length - completion
    if prompts is not None:
        prompt = max(prompts.lengths)
    rollouts = batch.prompts * batch.rollouts
    weight_bytes = 4 if weights_dtype(recipe, policy) in ("float32", "unknown") else 2
    return Load(
        per_device=batch.per_device,
        sampled=rollouts // world,
        rollouts=rollouts,
        prompt=max(1, int(prompt)),
        completion=completion,
        weight_bytes=weight_bytes,
        autocast=config.bf16 or config.fp16,
        checkpointing=config.gradient_checkpointing,
        reference=config.beta > 0 and recipe.lora is None,
        adapters=policy.trained if recipe.lora else 0,
        states=_STATES.get(getattr(config.optim, "value", config.optim), 2),
        vllm=config.use_vllm,
        ktae=any(ALGORITHMS[name].ktae for name in recipe.algorithms),
        group=batch.rollouts,
        evaluated=evaluation.batch_size if evaluation.samples or evaluation.greedy else 0,
        processes=world,
        sharding=sharding if world > 1 else None,
        accelerator=torch.accelerator.is_available() or config.use_vllm,
    )


def _needed(totals: dict[Phase, int], config: Any) -> tuple[float, Phase, bool]:
    """Bytes that a device must have, the phase that takes most, and whether vLLM has its share of the device then."""
    share = config.vllm_gpu_memory_utilization if config.use_vllm and config.vllm_mode == "colocate" else 0.0

    def taken(phase: Phase) -> bool:
        asleep = config.vllm_enable_sleep_mode and phase != "sampling"
        return share > 0 and phase != "evaluating" and not asleep

    needed: dict[Phase, float] = {phase: total / (1 - share * taken(phase)) for phase, total in totals.items()}
    phase = max(needed, key=lambda phase: needed[phase])
    return needed[phase], phase, taken(phase)


def _need(name: str, totals: dict[Phase, int], config: Any, unit: str, factor: int) -> str:
    needed, phase, shared = _needed(totals, config)
    return f"{name}: at least {needed / factor:,.1f} {unit} while {phase}{', vLLM beside it' if shared else ''}"


def _share(sizes: Architecture, load: Load, config: Any) -> str:
    card = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else _CARD
    share = config.vllm_gpu_memory_utilization * card
    cache = share - 2 * sizes.parameters / config.vllm_tensor_parallel_size
    full = max(0, int(cache / cache_bytes(sizes, 1, load.tokens, 2))) * config.vllm_tensor_parallel_size
    return (
        f"vLLM's {config.vllm_gpu_memory_utilization:g} of {card / 1e9:.0f} GB: {share / 2**30:.1f} GiB, "
        f"{max(0.0, cache) / 2**30:.1f} of them for caches, {full:,} rollouts of {load.tokens:,} tokens at a time"
    )


def _check_fits(totals: dict[Phase, int], config: Any, notes: Notes) -> None:
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0).total_memory
        needed, phase, _ = _needed(totals, config)
        if needed > card:
            notes.warnings.append(
                f"memory: {needed / 2**30:,.1f} GiB are needed while {phase}, and this GPU has {card / 2**30:,.1f}; "
                "lower batch.per_device, or shard the model (recipes/README.md)"
            )
