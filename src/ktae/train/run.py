"""From a recipe to trained policies, a table and a picture, in one folder that an interrupted run can go on from."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ktae.extras import require
from ktae.files import json_lines
from ktae.train.checkpoints import latest
from ktae.train.folder import forget_after, open_folder
from ktae.train.recipe import Recipe, parse_algorithm
from ktae.train.settings import grpo_config, is_main, overlong_buffer

BEFORE = "start"


def train(recipe: Recipe, out: Path, *, resume: bool = False) -> None:
    """Trains every algorithm of the recipe from the same model and evaluates before and after.

    Writes to `out`: config.yaml (the recipe, every default spelled out), provenance.jsonl (how it was made),
    metrics.jsonl (a row an update), samples.jsonl (rollouts), evaluation/*.jsonl (a row a completion), results.json,
    summary.md, curves.png and, for each algorithm, a folder with its checkpoints and its final `model`.

    Args:
        recipe: what to run.
        out: the run's folder; created, and empty unless `resume`.
        resume: go on with the run in `out`; finished parts are kept, an interrupted algorithm continues from its
            last complete checkpoint.

    Raises:
        FileExistsError: `out` holds a run and `resume` is False.
        FileNotFoundError: `resume` is True and `out` holds no run, or a file that the recipe names is not there.
        ValueError: a setting is wrong, or `resume` is True and the run in `out` has another recipe.
    """
    prepare(recipe, out, resume=resume)()


def prepare(recipe: Recipe, out: Path, *, resume: bool) -> Callable[[], None]:
    """Checks everything that can be checked before a model is loaded, and opens the run's folder.

    Arguments and errors are those of `train`. Returns the rest of the run.
    """
    run = check(recipe, out, resume=resume)
    check_installed(recipe)
    if is_main():
        open_folder(recipe, out, resume)
    return run.run


def check(recipe: Recipe, out: Path, *, resume: bool = False) -> Run:
    """Reads the data and checks every setting, without loading a model or writing anything."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for module in ("trl", "datasets", "rich", "matplotlib", *(["peft"] if recipe.lora else [])):
        require(module, extra="train")
    from ktae.models.load import check_model
    from ktae.train.data import load_data
    from ktae.train.rewards import check_threshold

    quiet()
    rewards = load_rewards(recipe)
    train_rows, test_rows = load_data(recipe.data, recipe.seed)
    if len(train_rows) < recipe.batch.prompts:
        raise ValueError(
            f"{recipe.data.source} leaves {len(train_rows)} problems to train on, fewer than batch.prompts "
            f"{recipe.batch.prompts}; lower batch.prompts or data.test_rows"
        )
    for algorithm in recipe.algorithms:
        grpo_config(recipe, algorithm, out, test_rows=len(test_rows))  # TRL's own checks
        if parse_algorithm(algorithm).load_estimator():
            raise ValueError(f"{algorithm}: there is no trainer yet for other estimators than key-token values")
    _, tokenizer = check_model(recipe.model)
    if not isinstance(train_rows[0]["prompt"], str) and tokenizer.chat_template is None:
        raise ValueError(
            f"the prompts are chat messages, and the tokenizer of {recipe.model.path} has no chat template"
        )
    if is_main():
        check_threshold(rewards[recipe.correctness], train_rows[:4], recipe.correct_above)
    return Run(recipe, out, train_rows, test_rows, rewards, resume)


def check_installed(recipe: Recipe) -> None:
    """What TRL would miss only after the first evaluation."""
    loggers = recipe.trl.get("report_to") or []
    needed = [loggers] if isinstance(loggers, str) else list(loggers)
    needed += ["vllm"] if recipe.trl.get("use_vllm") else []
    for name in needed:
        if name in ("tensorboard", "trackio", "wandb", "vllm") and importlib.util.find_spec(name) is None:
            raise ValueError(f"{name}, which the recipe's trl section asks for, is not installed: pip install {name}")


def load_rewards(recipe: Recipe) -> dict[str, Any]:
    """The recipe's reward functions by name, in its order, guarded against rollouts that they cannot handle."""
    from ktae.train.rewards import Guarded, load_reward

    return {name: Guarded(name, load_reward(name)) for name in recipe.rewards}


@dataclass
class Run:
    """A run whose settings have been checked."""

    recipe: Recipe
    out: Path
    train_rows: Any
    test_rows: Any
    rewards: dict[str, Any]
    resume: bool

    def run(self) -> None:
        """Everything from the first evaluation to the table; parts that are finished are left out."""
        from rich.console import Console

        from ktae.train.summary import summarize

        recipe, out = self.recipe, self.out
        self.console = Console()
        if not self.console.is_terminal:
            self.console = Console(width=100)
        self._evaluate(BEFORE, None, BEFORE)
        for algorithm in recipe.algorithms:
            final = out / algorithm / "model"
            if not final.exists():
                self._train(algorithm)
            self._evaluate(algorithm, final, parse_algorithm(algorithm).label)
        if is_main():
            summarize(recipe, out, self.console)
        # A process that ends while others are at work can take them with it.
        require("accelerate", extra="train").PartialState().wait_for_everyone()

    def _evaluate(self, who: str, trained: Path | None, label: str) -> None:
        """Writes evaluation/<who>_<mode>.jsonl unless an earlier, interrupted call of this run has."""
        from ktae.models.held_out import answer
        from ktae.models.load import load_model
        from ktae.train.rewards import split_of

        recipe = self.recipe
        modes = {"sampled": recipe.evaluation.samples, "greedy": None if recipe.evaluation.greedy else 0}
        files = {mode: self.out / "evaluation" / f"{who}_{mode}.jsonl" for mode in modes}
        missing = {mode: samples for mode, samples in modes.items() if samples != 0 and not files[mode].exists()}
        if not (is_main() and len(self.test_rows) and missing):
            return
        config = grpo_config(recipe, recipe.algorithms[0], self.out)
        # With ZeRO-3 configured, transformers would load a shard of the model.
        require("transformers.integrations.deepspeed", extra="train").unset_hf_deepspeed_config()
        policy, tokenizer = load_model(recipe.model, trained)
        policy.to(config.device)
        for mode, samples in missing.items():
            begun = time.perf_counter()
            answers = answer(
                policy,
                tokenizer,
                self.test_rows,
                self.rewards[recipe.correctness],
                max_completion_length=config.max_completion_length,
                samples=samples,
                batch_size=recipe.evaluation.batch_size,
                chat_template_kwargs=config.chat_template_kwargs,
            )
            json_lines.write(files[mode], [dataclasses.asdict(answer) for answer in answers])
            rewards = [answer.reward for answer in answers]
            correct = sum(reward is not None and reward > recipe.correct_above for reward in rewards) / len(rewards)
            self.console.print(f"{label:<10} {mode} accuracy {correct:.3f}  ({time.perf_counter() - begun:.0f} s)")
            if advice := split_of(rewards, recipe.correct_above):
                self.console.print(f"[bold dark_orange]{recipe.correctness}: {advice}[/]", highlight=False)
        del policy
        torch.cuda.empty_cache()  # vLLM takes a share of what is free

    def _train(self, algorithm: str) -> None:
        from ktae.models.load import load_model
        from ktae.train.callbacks import Display, Records
        from ktae.train.show import Show

        recipe, folder, label = self.recipe, self.out / algorithm, parse_algorithm(algorithm).label
        checkpoint = latest(folder) if self.resume else None
        if is_main():
            forget_after(checkpoint, algorithm, self.out)
        config = grpo_config(recipe, algorithm, self.out, test_rows=len(self.test_rows))
        reward_funcs = list(self.rewards.values())
        if buffer := overlong_buffer(recipe, algorithm, config.max_completion_length):
            punishment = require("trl.rewards", extra="train").get_soft_overlong_punishment
            reward_funcs.append(punishment(config.max_completion_length, buffer))
        trainer_class, options = _trainer(recipe, algorithm)
        # TRL adds adapters, whose weights are random, before it sets the seed itself.
        require("transformers", extra="train").set_seed(recipe.seed)
        model, tokenizer = load_model(recipe.model)
        trainer = trainer_class(
            model=model,
            processing_class=tokenizer,
            reward_funcs=reward_funcs,
            args=config,
            train_dataset=self.train_rows,
            eval_dataset=self.test_rows if config.eval_strategy != "no" else None,
            correctness_reward=self.rewards[recipe.correctness].__name__,
            correct_above=recipe.correct_above,
            **options,
        )
        trainer.remove_callback(require("transformers", extra="train").PrinterCallback)
        trainer.add_callback(Display(label, self.console))
        trainer.add_callback(Records(trainer, algorithm, self.out, recipe.samples_every))
        trainer.add_callback(Show(trainer, tokenizer, label, self.console, recipe.show_every))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        # Renamed when complete: a folder `model` means that this algorithm is done.
        trainer.save_model(str(folder / "unfinished"))
        trainer.accelerator.wait_for_everyone()
        if is_main():
            (folder / "unfinished").rename(folder / "model")
        trainer.accelerator.wait_for_everyone()


def _trainer(recipe: Recipe, algorithm: str) -> tuple[type, dict[str, Any]]:
    """The trainer's class and the arguments that only it takes."""
    from ktae.train import trainer

    options: dict[str, Any] = {}
    if recipe.lora:
        options["peft_config"] = require("peft", extra="train").LoraConfig(
            r=recipe.lora.rank,
            lora_alpha=recipe.lora.alpha,
            lora_dropout=recipe.lora.dropout,
            target_modules=recipe.lora.target_modules,
            task_type="CAUSAL_LM",
        )
    if parse_algorithm(algorithm).ktae:
        options["ktae"] = recipe.key_tokens(algorithm)
    dynamic = parse_algorithm(algorithm).rollout == "dapo" and recipe.dynamic_sampling
    if dynamic:
        options |= dataclasses.asdict(dynamic)
    classes = {
        (False, False): trainer.RunTrainer,
        (True, False): trainer.KTAERunTrainer,
        (False, True): trainer.DynamicRunTrainer,
        (True, True): trainer.KTAEDynamicRunTrainer,
    }
    return classes[parse_algorithm(algorithm).ktae, bool(dynamic)], options


def quiet() -> None:
    """The libraries' own progress bars, notes and deprecations among themselves would tear the display."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    require("datasets", extra="train").disable_progress_bars()
    logging = require("transformers", extra="train").utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()
