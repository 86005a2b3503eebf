"""A trained model, or any checkpoint of a run, as a plain Hugging Face folder."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from ktae.extras import require
from ktae.models.load import load_model
from ktae.train.checkpoints import TRAINING_STATE, checkpoints, damage
from ktae.train.recipe import Recipe, load_recipe


def export(
    run: Path, out: Path, *, algorithm: str | None = None, step: int | None = None, merge_lora: bool = False
) -> None:
    """Writes a folder that `from_pretrained` reads.

    Args:
        run: a run's folder.
        out: the folder to write; must not exist.
        algorithm: whose model; may be omitted when the run has one only.
        step: update of a checkpoint to take; None for the final model.
        merge_lora: add the adapters of a LoRA run to the base model's weights, so that the folder needs nothing else.

    Raises:
        FileNotFoundError: `run` is not a run's folder.
        FileExistsError: `out` exists.
        ValueError: there is no such algorithm or checkpoint, it is damaged, or there are no adapters to merge.
    """
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(f"{run} is not the folder of a run: it has no config.yaml")
    if out.exists():
        raise FileExistsError(f"{out} exists; give another --out")
    recipe = load_recipe(str(run / "config.yaml"))
    source = _source(run, recipe, algorithm, step)
    if wrong := damage(source):
        raise ValueError(f"{source} is damaged: {wrong}")
    is_adapter = (source / "adapter_config.json").exists()
    if merge_lora and not is_adapter:
        raise ValueError(f"--merge-lora: {source} holds no LoRA adapters")
    if not (is_adapter or any(source.glob("*.safetensors"))):
        raise ValueError(
            f"{source} holds sharded weights; let the trainer gather them when it saves "
            "(FSDP: fsdp_state_dict_type FULL_STATE_DICT, DeepSpeed: stage3_gather_16bit_weights_on_model_save)"
        )
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    if merge_lora:
        require("peft", extra="train")
        policy, tokenizer = load_model(recipe.model, source)
        policy.merge_and_unload().save_pretrained(unfinished)  # pyright: ignore[reportCallIssue] (an adapted model)
        tokenizer.save_pretrained(unfinished)
    else:
        shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns(*TRAINING_STATE))
    unfinished.rename(out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser."""
    parser.description = "Copies a model of a run to a folder that from_pretrained reads."
    add = parser.add_argument
    add("folder", type=Path, metavar="RUN", help="the run's folder")
    add("--out", type=Path, required=True, help="the folder to write")
    add("--algorithm", help="whose model; may be left out if the run has one only")
    add("--step", type=int, help="update of a checkpoint (default: the final model)")
    add("--merge-lora", action="store_true", help="add LoRA adapters to the base model's weights")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    given = arguments
    export(given.folder, given.out, algorithm=given.algorithm, step=given.step, merge_lora=given.merge_lora)
    print(f"{given.out} is ready for from_pretrained")


def _source(run: Path, recipe: Recipe, algorithm: str | None, step: int | None) -> Path:
    if algorithm is None:
        if len(recipe.algorithms) > 1:
            raise ValueError(f"--algorithm must be one of {recipe.algorithms}")
        algorithm = recipe.algorithms[0]
    if algorithm not in recipe.algorithms:
        raise ValueError(f"--algorithm must be one of {recipe.algorithms}, got {algorithm!r}")
    there = checkpoints(run / algorithm)
    if step is None:
        if not (run / algorithm / "model").is_dir():
            raise ValueError(f"{algorithm} is not finished; give --step, one of {list(there)}")
        return run / algorithm / "model"
    if step not in there:
        raise ValueError(f"--step must be a checkpoint of {algorithm}, one of {list(there)}, got {step}")
    return there[step]
