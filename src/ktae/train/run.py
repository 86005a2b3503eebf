"""From a recipe to trained policies, a table and a picture, in one folder that an interrupted run can go on from."""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from pathlib import Path
from typing import Any

import torch

import ktae
from ktae.extras import require
from ktae.files import json_lines
from ktae.integrations.credit import TokenCredit
from ktae.models.load import check_model, load_model
from ktae.states import Calculation
from ktae.train.data import load_data
from ktae.train.folder import forget_later, newest
from ktae.train.recipe import Recipe, parse_algorithm
from ktae.train.rewards import RewardError, answer, check_threshold, load_reward, split_of
from ktae.train.settings import grpo_config, is_main, overlong_buffer, processes

BEFORE = "start"
_TRIED = 20  # answers that the reward function is given


class Run:
    """A run whose settings have been checked, without loading weights or writing anything to its folder `out`.

    With `resume` the run there is to go on: finished parts are kept, an interrupted algorithm continues from its last
    whole checkpoint. Raises a ValueError or OSError that names the setting.
    """

    def __init__(self, recipe: Recipe, out: Path, *, resume: bool = False) -> None:
        self.recipe, self.out, self.resume = recipe, out, resume
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        for module in ("trl", "rich", "matplotlib"):
            require(module, extra="train")
        quiet()
        self.rewards = {name: load_reward(name) for name in recipe.rewards}
        self.train_rows, self.test_rows = load_data(recipe.data, recipe.seed)
        if len(self.train_rows) < recipe.batch.prompts:
            raise ValueError(
                f"{recipe.data.source} leaves {len(self.train_rows)} problems to train on, fewer than batch.prompts "
                f"{recipe.batch.prompts}; lower batch.prompts or data.test_rows"
            )
        self.configs = {algorithm: grpo_config(recipe, algorithm, out) for algorithm in recipe.algorithms}
        for algorithm, config in self.configs.items():
            if config.eval_strategy != "no" and not len(self.test_rows):
                raise ValueError("trl.eval_strategy must be no without held-out problems; set data.test_rows")
            if estimator := parse_algorithm(algorithm).load_estimator():
                TokenCredit(estimator, recipe.correct_above)
        model_config, self.tokenizer = check_model(recipe.model)
        if not isinstance(self.train_rows[0]["prompt"], str) and self.tokenizer.chat_template is None:
            raise ValueError(
                f"the prompts are chat messages, and the tokenizer of {recipe.model.path} has no chat template"
            )
        self.model = skeleton(model_config, recipe.lora)  # PEFT's checks
        # What answers that are known to be right got, and what is to be said of that.
        self.tried, self.note = check_threshold(
            self.rewards[recipe.correctness], self.train_rows[:_TRIED], recipe.correct_above
        )

    def run(self) -> None:
        """Trains every algorithm of the recipe from the same model and evaluates before and after.

        What is finished is left out. docs/metrics.md lists the files.
        """
        from rich.console import Console

        from ktae.train.summary import summarize

        recipe, out = self.recipe, self.out
        self.console = Console() if Console().is_terminal else Console(width=100)
        found = {algorithm: newest(out / algorithm) for algorithm in recipe.algorithms}
        finished = {algorithm for algorithm in recipe.algorithms if (out / algorithm / "model").exists()}
        if self.resume and is_main():
            forget_later(out, {name: math.inf if name in finished else step for name, (step, _) in found.items()})
            for name, (_, checkpoint) in found.items():
                where = f"goes on from {checkpoint}" if checkpoint else "starts from update 0: no checkpoint is whole"
                self.say(f"{parse_algorithm(name).label:<10} {'is finished' if name in finished else where}")
        if self.note and is_main():
            self.say(f"{recipe.correctness}: {self.note}")
        self._evaluate(BEFORE, None, BEFORE)
        for algorithm in recipe.algorithms:
            if algorithm not in finished:
                self._train(algorithm, found[algorithm][1])
            self._evaluate(algorithm, out / algorithm / "model", parse_algorithm(algorithm).label)
        if is_main():
            summarize(recipe, out, self.console)
        # A process that ends while others are at work can take them with it.
        require("accelerate", extra="train").PartialState().wait_for_everyone()

    def say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def _evaluate(self, who: str, trained: Path | None, label: str) -> None:
        """Writes evaluation/<who>_<mode>.jsonl unless an earlier, interrupted call of this run has."""
        recipe, config = self.recipe, self.configs[self.recipe.algorithms[0]]
        modes = {"sampled": recipe.evaluation.samples, "greedy": None if recipe.evaluation.greedy else 0}
        files = {mode: self.out / "evaluation" / f"{who}_{mode}.jsonl" for mode in modes}
        missing = {mode: n for mode, n in modes.items() if n != 0 and not files[mode].exists()}
        if not (is_main() and len(self.test_rows) and missing):
            return
        # With ZeRO-3 configured, transformers would load a shard of the model.
        require("transformers.integrations.deepspeed", extra="train").unset_hf_deepspeed_config()
        policy, tokenizer = load_model(recipe.model, trained)
        policy.to(config.device)
        how = {name: getattr(config, name) for name in ("max_completion_length", "chat_template_kwargs")}
        for mode, samples in missing.items():
            begun = time.perf_counter()
            rows = answer(policy, tokenizer, self.test_rows, self.rewards[recipe.correctness], samples=samples, **how)
            rewards = [row["reward"] for row in rows]
            if advice := split_of(rewards, recipe.correct_above):
                # Where right answers are known to be above the threshold, the policy may just not give any yet.
                within_reach = any(reward is not None and reward > recipe.correct_above for reward in self.tried)
                if who == BEFORE and ("as correct" in advice or not within_reach):
                    raise RewardError(f"{recipe.correctness}, before training: {advice}")
            json_lines.write(files[mode], rows)
            correct = sum(reward is not None and reward > recipe.correct_above for reward in rewards) / len(rewards)
            self.say(f"{label:<10} {mode} accuracy {correct:.3f}  ({time.perf_counter() - begun:.0f} s)")
            if advice:
                self.say(f"{recipe.correctness}: {advice}")
        del policy
        torch.cuda.empty_cache()  # vLLM takes a share of what is free

    def _train(self, algorithm: str, checkpoint: Path | None) -> None:
        from ktae.integrations.trl import KTAETrainer, TokenAdvantageTrainer
        from ktae.integrations.trl_dynamic_sampling import DynamicSamplingTrainer
        from ktae.train.trainer import Records, RunTrainer

        recipe, parsed, config = self.recipe, parse_algorithm(algorithm), self.configs[algorithm]
        transformers = require("transformers", extra="train")
        transformers.set_seed(recipe.seed)  # TRL adds adapters, whose weights are random, before it does so itself
        model, tokenizer = load_model(recipe.model)
        reward_funcs, trainers = list(self.rewards.values()), list[type]([RunTrainer])
        options: dict[str, Any] = {"correct_above": recipe.correct_above}
        if buffer := overlong_buffer(recipe, algorithm, config.max_completion_length):
            punishment = require("trl.rewards", extra="train").get_soft_overlong_punishment
            reward_funcs.append(punishment(config.max_completion_length, buffer))
        if parsed.rollout == "dapo" and recipe.dynamic_sampling:  # below, so that estimators see what is trained on
            trainers.insert(0, DynamicSamplingTrainer)
            options["max_generation_rounds"] = recipe.dynamic_sampling
        if parsed.ktae:
            trainers.insert(0, KTAETrainer)
            options["ktae"] = recipe.key_tokens(algorithm)
        elif estimator := parsed.load_estimator():
            trainers.insert(0, TokenAdvantageTrainer)
            needs_states = "states" in TokenCredit(estimator).needs
            options |= {"advantages": estimator, "states": Calculation(tokenizer) if needs_states else None}
        trainer_class: Any = type("Trainer", tuple(trainers), {})
        trainer = trainer_class(
            model=model,
            processing_class=tokenizer,
            reward_funcs=reward_funcs,
            args=config,
            train_dataset=self.train_rows,
            eval_dataset=self.test_rows if config.eval_strategy != "no" else None,
            correctness_reward=self.rewards[recipe.correctness].__name__,
            peft_config=None if recipe.lora is None else lora_config(recipe.lora),
            **options,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.add_callback(Records(trainer, self, parsed))
        if is_main() and checkpoint and (wrote := len([*checkpoint.glob("rng_state*.pth")])) != processes():
            self.say(f"{checkpoint} is of {wrote} process(es), not {processes()}: other rollouts will be sampled")
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

        # Renamed last: a folder `model` means that this algorithm is done.
        folder, unfinished = self.out / algorithm, self.out / algorithm / "unfinished"
        trainer.save_model(str(unfinished), _internal_call=True)
        trainer.accelerator.wait_for_everyone()
        if is_main():
            (unfinished / "README.md").write_text(_card(recipe, algorithm))
            os.sync()
            unfinished.rename(folder / "model")
        trainer.accelerator.wait_for_everyone()


def lora_config(settings: dict[str, Any]) -> Any:
    """PEFT's configuration of a recipe's adapters."""
    defaults = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    return require("peft", extra="train").LoraConfig(**defaults | settings)


def skeleton(config: Any, lora: dict[str, Any] | None) -> Any:
    """The model of a transformers configuration, with adapters where there are to be some, without any weights."""
    with torch.device("meta"):
        model = require("transformers", extra="train").AutoModelForCausalLM.from_config(config)
        return model if lora is None else require("peft", extra="train").get_peft_model(model, lora_config(lora))


def _card(recipe: Recipe, algorithm: str) -> str:
    """The model card of an algorithm's model."""
    source, parsed = recipe.data.source, parse_algorithm(algorithm)
    front = {"library_name": "transformers", "tags": ["trl", *re.split("[_+]", algorithm)[:2]]}
    if source.count("/") == 1 and not Path(source).exists():
        front["datasets"] = [source]
    on_top = f", key tokens (https://arxiv.org/abs/2505.16826) by `{recipe.key_tokens(algorithm)}`" * parsed.ktae
    return (
        f"---\n{require('yaml', extra='train').safe_dump(front)}---\n\n# {recipe.name}-{algorithm}\n\n"
        f"`{recipe.model.path}`, trained with {parsed.label} on `{source}` by `ktae train` (ktae {ktae.__version__}): "
        f"algorithm `{algorithm}`{on_top}, seed {recipe.seed}.\n"
    )


def quiet() -> None:
    """The libraries' own progress bars, notes and deprecations among themselves would tear the display."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    require("datasets", extra="train").disable_progress_bars()
    logging = require("transformers", extra="train").utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()
