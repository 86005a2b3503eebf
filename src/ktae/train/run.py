"""From a recipe to trained policies, a table and a picture, in one folder that an interrupted run can go on from."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ktae.extras import require
from ktae.files import json_lines
from ktae.integrations.credit import TokenCredit
from ktae.models.load import check_model, load_model
from ktae.train.checkpoints import MARKS, TRAINING_STATE, begin, mark_complete, remove
from ktae.train.folder import forget_later, open_folder, sources
from ktae.train.recipe import Recipe, parse_algorithm
from ktae.train.rewards import Guarded, check_threshold, load_reward, split_of
from ktae.train.settings import grpo_config, is_main, overlong_buffer, processes

BEFORE = "start"
_DAPO_PAPER = {"title": "DAPO: An Open-Source LLM Reinforcement Learning System at Scale", "id": "2503.14476"}


@contextmanager
def prepare(recipe: Recipe, out: Path, *, resume: bool) -> Iterator[Callable[[], None]]:
    """Checks everything that can be checked before weights are loaded, and gives the run, to be called.

        with prepare(load_recipe("quickstart"), Path("runs/mine"), resume=False) as run:
            run()

    It trains every algorithm of the recipe from the same model and evaluates before and after. Meanwhile no other
    process can write to `out`: config.yaml (the recipe, every default spelled out), provenance.jsonl (how it was made),
    metrics.jsonl (a row an update), samples.jsonl (rollouts), evaluation/*.jsonl (a row a completion), results.json,
    summary.md, curves.png and, for each algorithm, a folder with its checkpoints and its final `model`.

    Args:
        recipe: what to run.
        out: the run's folder; created, and empty unless `resume`.
        resume: go on with the run in `out`; finished parts are kept, an interrupted algorithm continues from its
            last whole checkpoint.

    Raises:
        BlockingIOError: another process is at work in `out`.
        FileExistsError: `out` holds a run and `resume` is False, or what is not of this run stands in its way.
        FileNotFoundError: `resume` is True and `out` holds no run, or a file that the recipe names is not there.
        ValueError: a setting is wrong, or `resume` is True and the run in `out` has another recipe.
    """
    run = check(recipe, out, resume=resume)
    check_installed(recipe)
    with open_folder(recipe, out, resume) if is_main() else nullcontext():
        yield run.run


def check(recipe: Recipe, out: Path, *, resume: bool = False) -> Run:
    """Reads the data and checks every setting, without loading a model or writing anything."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for module in ("trl", "datasets", "rich", "matplotlib", *(["peft"] if recipe.lora else [])):
        require(module, extra="train")
    from ktae.train.data import load_data

    quiet()
    rewards = load_rewards(recipe)
    train_rows, test_rows = load_data(recipe.data, recipe.seed)
    if len(train_rows) < recipe.batch.prompts:
        raise ValueError(
            f"{recipe.data.source} leaves {len(train_rows)} problems to train on, fewer than batch.prompts "
            f"{recipe.batch.prompts}; lower batch.prompts or data.test_rows"
        )
    if recipe.trl.get("save_only_model"):
        raise ValueError("trl.save_only_model must be false: the run could not go on from such checkpoints")
    for algorithm in recipe.algorithms:
        grpo_config(recipe, algorithm, out, test_rows=len(test_rows))  # TRL's own checks
        if estimator := parse_algorithm(algorithm).load_estimator():
            credit = TokenCredit(estimator, recipe.correct_above)
            credit.check_given("`ktae train`", "log_probs", "entropies")
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
        self.config = grpo_config(recipe, recipe.algorithms[0], out)
        found = self._sources()
        self._evaluate(BEFORE, None, BEFORE)
        for algorithm in recipe.algorithms:
            final = out / algorithm / "model"
            if found[algorithm] != final:
                self._train(algorithm, found[algorithm])
            self._evaluate(algorithm, final, parse_algorithm(algorithm).label)
        if is_main():
            summarize(recipe, out, self.console)
        # A process that ends while others are at work can take them with it.
        require("accelerate", extra="train").PartialState().wait_for_everyone()

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def _sources(self) -> dict[str, Path | None]:
        """What each algorithm goes on from, as the main process finds it, which also tidies up behind it."""
        found: list[Any] = [dict.fromkeys(self.recipe.algorithms)]
        if self.resume and is_main():
            found = [sources(self.recipe, self.out, self._say)]
            forget_later(self.recipe, self.out, found[0], self._say)
        if self.resume and processes() > 1:
            _ = self.config.device  # starts the process group, with its timeout
            require("accelerate.utils", extra="train").broadcast_object_list(found)
        return found[0]

    def _evaluate(self, who: str, trained: Path | None, label: str) -> None:
        """Writes evaluation/<who>_<mode>.jsonl unless an earlier, interrupted call of this run has."""
        from ktae.models.held_out import answer

        recipe, config = self.recipe, self.config
        if not (is_main() and len(self.test_rows)):
            return
        modes = {"sampled": recipe.evaluation.samples, "greedy": None if recipe.evaluation.greedy else 0}
        files = {mode: self.out / "evaluation" / f"{who}_{mode}.jsonl" for mode in modes}
        missing = {mode: n for mode, n in modes.items() if n != 0 and not self._whole(files[mode], n)}
        if not missing:
            return
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
            given = [answer.reward for answer in answers]
            correct = sum(reward is not None and reward > recipe.correct_above for reward in given) / len(given)
            self.console.print(f"{label:<10} {mode} accuracy {correct:.3f}  ({time.perf_counter() - begun:.0f} s)")
            if advice := split_of(given, recipe.correct_above):
                self._say(f"{recipe.correctness}: {advice}")
        del policy
        torch.cuda.empty_cache()  # vLLM takes a share of what is free

    def _whole(self, path: Path, samples: int | None) -> bool:
        """Whether the file holds every answer to every held-out problem."""
        if not path.exists():
            return False
        problems = [row and row.get("problem") for row in json_lines.read_where_whole(path)]
        due = [i for i in range(len(self.test_rows)) for _ in range(samples or 1)]
        if problems != due:
            self._say(f"{path} holds {len(problems):,} rows, not all of the {len(due):,} written; answering again")
        return problems == due

    def _train(self, algorithm: str, checkpoint: Path | None) -> None:
        from ktae.train.callbacks import Display, Records, Show

        recipe, folder, label = self.recipe, self.out / algorithm, parse_algorithm(algorithm).label
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
            card=_card(recipe, algorithm),
            **options,
        )
        trainer.remove_callback(require("transformers", extra="train").PrinterCallback)
        display = Display(label, self.console)
        trainer.add_callback(display)
        trainer.add_callback(Records(trainer, algorithm, self.out, recipe.samples_every))
        trainer.add_callback(Show(trainer, tokenizer, label, self.console, recipe.show_every))
        on_cpu = config.device.type == "cpu"
        seconds = compile_estimator(options["ktae"]) if "ktae" in options and on_cpu else 0.0
        if is_main() and seconds:
            self._say(f"{label:<10} compiled the estimator ({seconds:.0f} s, in no figure below)")
        if is_main() and checkpoint:
            self._say(f"{label:<10} goes on from {checkpoint}")
            if (wrote := len([*checkpoint.glob("rng_state*.pth")])) != processes():
                self._say(f"It is of {wrote} process(es), not {processes()}: other rollouts will be sampled")
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            display.close()
        self._save(trainer, folder)

    def _save(self, trainer: Any, folder: Path) -> None:
        """The final model with its card; renamed last: a folder `model` means that this algorithm is done."""
        unfinished = folder / "unfinished"
        if is_main():
            begin(unfinished)
        trainer.accelerator.wait_for_everyone()
        trainer.save_model(str(unfinished), _internal_call=True)  # without an upload
        trainer.create_model_card()
        trainer.accelerator.wait_for_everyone()
        if is_main():
            shutil.copy(folder / "README.md", unfinished)
            trainer.state.save_to_json(str(unfinished / "trainer_state.json"))
            if trainer.args.push_to_hub:
                upload = require("huggingface_hub", extra="train").upload_folder
                unwanted = [*TRAINING_STATE, *MARKS]
                upload(repo_id=trainer.hub_model_id, folder_path=unfinished, ignore_patterns=unwanted)
            mark_complete(unfinished)
            remove(folder / "model")
            unfinished.rename(folder / "model")
        trainer.accelerator.wait_for_everyone()


def compile_estimator(config: Any) -> float:
    """Compiles what would otherwise be compiled in the first update; seconds that it took, 0 if it was before."""
    from ktae.advantages import key_token_values

    if importlib.util.find_spec("numba") is None:
        return 0.0
    ids, seconds = torch.zeros(2, 1, dtype=torch.long), []
    with require("numba.core.event", extra="fast").install_timer("numba:compile", seconds.append):
        key_token_values(ids, torch.ones_like(ids), torch.tensor([0.0, 1.0]), ids[:, 0], config=config)
    return sum(seconds)


def _trainer(recipe: Recipe, algorithm: str) -> tuple[type, dict[str, Any]]:
    """The trainer's class and the arguments that only it takes."""
    from ktae.integrations.trl import KTAETrainer, TokenAdvantageTrainer
    from ktae.integrations.trl_dynamic_sampling import DynamicSamplingTrainer
    from ktae.train.trainer import RunTrainer

    parsed, on_top, options = parse_algorithm(algorithm), [], {}
    if recipe.lora:
        options["peft_config"] = require("peft", extra="train").LoraConfig(
            r=recipe.lora.rank,
            lora_alpha=recipe.lora.alpha,
            lora_dropout=recipe.lora.dropout,
            target_modules=recipe.lora.target_modules,
            task_type="CAUSAL_LM",
        )
    if parsed.ktae:
        on_top.append(KTAETrainer)
        options["ktae"] = recipe.key_tokens(algorithm)
    elif parsed.estimator:
        on_top.append(TokenAdvantageTrainer)
        options["advantages"] = parsed.load_estimator()
    if parsed.rollout == "dapo" and recipe.dynamic_sampling:  # below, so that estimators see what is trained on
        on_top.append(DynamicSamplingTrainer)
        options |= dataclasses.asdict(recipe.dynamic_sampling)
    return type("Trainer", (*on_top, RunTrainer), {}), options


def _card(recipe: Recipe, algorithm: str) -> dict[str, Any]:
    """What TRL's model card is to say of an algorithm's model."""
    source = recipe.data.source
    card = {
        "trainer_name": parse_algorithm(algorithm).label,
        "base_model": recipe.model.path,
        "dataset_name": source if source.count("/") == 1 and not Path(source).exists() else None,
        "tags": re.split("[_+]", algorithm)[:2],
    }
    return card | ({"paper": _DAPO_PAPER} if algorithm == "dapo" else {})


def quiet() -> None:
    """The libraries' own progress bars, notes and deprecations among themselves would tear the display."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    require("datasets", extra="train").disable_progress_bars()
    logging = require("transformers", extra="train").utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()
