"""From a recipe to trained policies, a table and a picture, in one folder that an interrupted run can go on from."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ktae.extras import require
from ktae.train import records
from ktae.train.recipe import ALGORITHMS, Model, Recipe

BEFORE = "start"


def train(recipe: Recipe, out: Path, *, resume: bool = False) -> None:
    """Trains every algorithm of the recipe from the same model and evaluates before and after.

    Writes to `out`: config.yaml (the recipe, every default spelled out), metrics.jsonl (a row a step),
    samples.jsonl (rollouts), evaluation/*.jsonl (a row a completion), results.json, summary.md, curves.png and,
    for each algorithm, a folder with its checkpoints and its final `model`.

    Args:
        recipe: what to run.
        out: the run's folder; created, and empty unless `resume`.
        resume: go on with the run in `out`; finished parts are kept, an interrupted algorithm continues from its
            last checkpoint.

    Raises:
        FileExistsError: `out` holds a run and `resume` is False.
        FileNotFoundError: `resume` is True and `out` holds no run.
        ValueError: `resume` is True and the run in `out` has another recipe.
    """
    prepare(recipe, out, resume=resume)()


def prepare(recipe: Recipe, out: Path, *, resume: bool) -> Callable[[], None]:
    """Checks everything that can be checked before a model is loaded, and opens the run's folder.

    Arguments and errors are those of `train`. Returns the rest of the run.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for module in ("trl", "datasets", "rich", "matplotlib"):
        require(module, extra="train")
    from ktae.train.data import load_data
    from ktae.train.models import resolve

    _quiet()
    rewards = load_rewards(recipe)
    train_rows, test_rows = load_data(recipe.data, recipe.seed)
    resolve(recipe.model.path)
    for algorithm in recipe.algorithms:
        _grpo_config(recipe, algorithm, out)  # TRL's own checks
    if _is_main():
        _open_folder(recipe, out, resume)
    return functools.partial(_run, recipe, out, train_rows, test_rows, rewards, resume)


def _run(recipe: Recipe, out: Path, train_rows: Any, test_rows: Any, rewards: dict[str, Any], resume: bool) -> None:
    from rich.console import Console

    from ktae.train.summary import summarize

    console = Console()
    if not console.is_terminal:
        console = Console(width=100)

    def evaluate(who: str, path: str, label: str) -> None:
        _evaluate(recipe, dataclasses.replace(recipe.model, path=path), who, label, out, test_rows, rewards, console)

    evaluate(BEFORE, recipe.model.path, BEFORE)
    for algorithm in recipe.algorithms:
        final = out / algorithm / "model"
        if not final.exists():
            _train(recipe, algorithm, out, train_rows, rewards, console, resume)
        evaluate(algorithm, str(final), ALGORITHMS[algorithm].label)
    if _is_main():
        summarize(recipe, out, console)


def load_rewards(recipe: Recipe) -> dict[str, Any]:
    """The recipe's reward functions by name, in its order."""
    from ktae.train.rewards import load_reward

    rewards = {name: load_reward(name) for name in recipe.rewards}
    if recipe.correctness_reward is not None and recipe.correctness_reward not in rewards:
        raise ValueError(f"correctness_reward must be one of {list(rewards)}, got {recipe.correctness_reward!r}")
    if len(rewards) > 1 and recipe.correctness_reward is None:
        raise ValueError(f"correctness_reward must name one of {list(rewards)}")
    return rewards


def _evaluate(
    recipe: Recipe, model: Model, who: str, label: str, out: Path, rows: Any, rewards: dict[str, Any], console: Any
) -> None:
    """Writes evaluation/<who>_<mode>.jsonl unless an earlier, interrupted call of this run has."""
    from ktae.train.evaluate import answer
    from ktae.train.models import load_model

    modes = {"sampled": recipe.evaluation.samples, "greedy": None if recipe.evaluation.greedy else 0}
    missing = {
        mode: samples for mode, samples in modes.items() if samples != 0 and not _answers(out, who, mode).exists()
    }
    if not (_is_main() and len(rows) and missing):
        return
    policy, tokenizer = load_model(model)
    config = _grpo_config(recipe, recipe.algorithms[0], out)
    for mode, samples in missing.items():
        begun = time.perf_counter()
        answers = answer(
            policy,
            tokenizer,
            rows,
            rewards[_correctness(recipe)],
            max_completion_length=config.max_completion_length,
            samples=samples,
            batch_size=recipe.evaluation.batch_size,
            chat_template_kwargs=config.chat_template_kwargs,
        )
        records.write(_answers(out, who, mode), [dataclasses.asdict(answer) for answer in answers])
        correct = sum((answer.reward or 0.0) > recipe.ktae.correct_above for answer in answers) / len(answers)
        console.print(f"{label:<10} {mode} accuracy {correct:.3f}  ({time.perf_counter() - begun:.0f} s)")


def _answers(out: Path, who: str, mode: str) -> Path:
    return out / "evaluation" / f"{who}_{mode}.jsonl"


def _correctness(recipe: Recipe) -> str:
    return recipe.correctness_reward or recipe.rewards[0]


def _is_main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _train(
    recipe: Recipe,
    algorithm: str,
    out: Path,
    rows: Any,
    rewards: dict[str, Any],
    console: Any,
    resume: bool,
) -> None:
    from transformers.trainer_utils import get_last_checkpoint
    from trl.trainer.grpo_trainer import GRPOTrainer

    from ktae.integrations.trl import KTAETrainer
    from ktae.train.callbacks import Display, Records
    from ktae.train.models import load_model

    folder = out / algorithm
    checkpoint = get_last_checkpoint(str(folder)) if resume and folder.exists() else None
    _forget_after(checkpoint, algorithm, out)
    model, tokenizer = load_model(recipe.model)
    options: dict[str, Any] = {}
    trainer_class: type[GRPOTrainer] = GRPOTrainer
    if ALGORITHMS[algorithm].ktae:
        trainer_class = KTAETrainer
        options = {"ktae": recipe.ktae, "correctness_reward": rewards[_correctness(recipe)].__name__}
    trainer = trainer_class(
        model=model,
        processing_class=tokenizer,
        reward_funcs=list(rewards.values()),
        args=_grpo_config(recipe, algorithm, out),
        train_dataset=rows,
        **options,
    )
    trainer.remove_callback(require("transformers", extra="train").PrinterCallback)
    trainer.add_callback(Display(ALGORITHMS[algorithm].label, console))
    trainer.add_callback(Records(trainer, algorithm, out, recipe.samples_every))
    trainer.train(resume_from_checkpoint=checkpoint)
    # Renamed when complete: a folder `model` means that this algorithm is done.
    trainer.save_model(str(folder / "unfinished"))
    if _is_main():
        (folder / "unfinished").rename(folder / "model")


def _grpo_config(recipe: Recipe, algorithm: str, out: Path) -> Any:
    accelerator = torch.accelerator.is_available()
    defaults = {
        "report_to": "none",
        "logging_steps": 1,
        "save_total_limit": 1,
        "use_cpu": not accelerator,
        "bf16": accelerator,
        "gradient_checkpointing": accelerator,
    }
    settings = {**defaults, **ALGORITHMS[algorithm].trl, **recipe.trl}
    return require("trl", extra="train").GRPOConfig(
        output_dir=str(out / algorithm), seed=recipe.seed, disable_tqdm=True, **settings
    )


def _open_folder(recipe: Recipe, out: Path, resume: bool) -> None:
    yaml = require("yaml", extra="train")
    config = yaml.safe_dump(recipe.as_dict(), sort_keys=False)
    path = out / "config.yaml"
    if resume:
        if not path.exists():
            raise FileNotFoundError(f"--resume: {path} does not exist")
        if path.read_text() != config:
            raise ValueError(f"--resume: the recipe differs from the one in {path}; resume with the same settings")
        return
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; give --resume to go on with it, or another --out")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(config)


def _forget_after(checkpoint: str | None, algorithm: str, out: Path) -> None:
    """Drops the records of steps that will be trained again, and a line that a kill cut off."""
    last = int(checkpoint.rpartition("-")[2]) if checkpoint else 0
    for path in (out / "metrics.jsonl", out / "samples.jsonl"):
        rows = records.read(path)
        records.write(path, [row for row in rows if row["algorithm"] != algorithm or row["step"] <= last])


def _quiet() -> None:
    """The libraries' own progress bars, notes and deprecations among themselves would tear the display."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    require("datasets", extra="train").disable_progress_bars()
    logging = require("transformers", extra="train").utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()
