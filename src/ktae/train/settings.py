"""TRL's settings for one algorithm of a recipe, on however many processes train together."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch

from ktae.extras import require
from ktae.train.recipe import ROLLOUT_ALGORITHMS, Recipe, parse_algorithm

_SAVE_EVERY = 10  # generations, unless trl.save_steps says otherwise


def processes() -> int:
    """How many processes train together, as torchrun and accelerate say."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def grpo_config(recipe: Recipe, algorithm: str, out: Path) -> Any:
    """TRL's `GRPOConfig`: the defaults of `ktae train`, below the algorithm's, below the recipe's section `trl`.

    Raises a ValueError if settings do not go together.
    """
    rollout, batch = parse_algorithm(algorithm).rollout, recipe.batch
    accelerator = torch.accelerator.is_available() and not recipe.trl.get("use_cpu")
    updates = batch.updates * recipe.trl.get("num_iterations", 1)
    defaults = {
        "report_to": "none",
        "run_name": f"{recipe.name}-{algorithm}",
        "logging_steps": 1,
        "save_steps": _SAVE_EVERY * updates,
        "save_total_limit": 2,
        "num_generations_eval": 1,
        "per_device_eval_batch_size": batch.per_device,
        "ddp_timeout": 24 * 3600,  # the other processes wait while the main one evaluates
        "use_cpu": not accelerator,
        "bf16": accelerator,
        "gradient_checkpointing": accelerator,
    }
    settings = {**defaults, **ROLLOUT_ALGORITHMS[rollout], **recipe.trl}
    if settings.get("save_strategy", "steps") == "steps" and settings["save_steps"] % updates:
        # A checkpoint holds no rollouts.
        raise ValueError(
            f"trl.save_steps must be a multiple of the {updates} updates that follow each generation, so that a "
            f"resumed run is the same, got {settings['save_steps']}"
        )
    if settings["save_total_limit"] == 1:
        raise ValueError("trl.save_total_limit must be at least 2: a kill while saving must leave one checkpoint")
    if weights := settings.get("reward_weights"):
        if len(weights) != len(recipe.rewards):
            raise ValueError(f"trl.reward_weights must be one a reward, {len(recipe.rewards)}, got {weights}")
        settings["reward_weights"] = [*weights, *([1.0] if rollout == "dapo" and recipe.overlong else [])]
    at_once, update = batch.per_device * processes(), batch.mini_batch * batch.rollouts
    if update % at_once:
        raise ValueError(
            f"a mini-batch of {batch.mini_batch} problems x {batch.rollouts} rollouts does not divide into passes of "
            f"batch.per_device {batch.per_device} rollouts on {processes()} process(es)"
        )
    settings |= {
        "output_dir": str(out / algorithm),
        "seed": recipe.seed,
        "disable_tqdm": True,
        "num_generations": batch.rollouts,
        "per_device_train_batch_size": batch.per_device,
        "gradient_accumulation_steps": update // at_once,
        "steps_per_generation": batch.prompts * batch.rollouts // at_once,
    }
    try:
        config = require("trl", extra="train").GRPOConfig(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"TRL refuses the settings of {algorithm}: {error}") from error
    if config.beta and recipe.lora is None and recipe.model.path.endswith(".gguf"):
        raise ValueError("trl.beta must be 0 with a .gguf file, which TRL cannot load as the reference model")
    overlong_buffer(recipe, algorithm, config.max_completion_length)
    return config


def overlong_buffer(recipe: Recipe, algorithm: str, limit: int) -> int | None:
    """Over how many tokens before the limit of a completion the overlong punishment grows; None without one."""
    if parse_algorithm(algorithm).rollout != "dapo" or recipe.overlong is None:
        return None
    buffer = limit // 4 if recipe.overlong == "quarter" else recipe.overlong
    if not 0 < buffer <= limit:
        raise ValueError(f"overlong must be at least 1 and at most trl.max_completion_length {limit}, got {buffer}")
    return buffer


def check_installed(recipe: Recipe) -> None:
    """What TRL would miss only after the first evaluation."""
    loggers = recipe.trl.get("report_to") or []
    needed = [loggers] if isinstance(loggers, str) else list(loggers)
    needed += ["vllm"] if recipe.trl.get("use_vllm") else []
    for name in needed:
        if name in ("tensorboard", "trackio", "wandb", "vllm") and importlib.util.find_spec(name) is None:
            raise ValueError(f"{name}, which the recipe's trl section asks for, is not installed: pip install {name}")
