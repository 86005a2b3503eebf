"""DAPO's dynamic sampling (https://arxiv.org/abs/2503.14476, section 3.2) in TRL, which does not have it.

    from ktae.integrations.trl_dynamic_sampling import DynamicSamplingTrainer
    trainer = DynamicSamplingTrainer(model, reward_funcs, args=GRPOConfig(loss_type="dapo", ...), train_dataset=...)

With key-token values: `class Trainer(KTAETrainer, DynamicSamplingTrainer)`.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

from ktae.integrations.trl import CorrectnessTrainer
from ktae.seeds import derived_seed

logger = logging.getLogger("ktae")


@dataclass
class _Rollout:
    problem: dict[str, Any]
    generated: list[Any]  # prompt ids, completion ids, tool mask, completion, log-probabilities; None where TRL has it
    logged: dict[str, Any]  # by reward functions


class DynamicSamplingTrainer(CorrectnessTrainer):
    """`trl.GRPOTrainer` that trains on groups with reward variance, sampling further problems to fill the batch.

    The correctness reward alone counts, so that a length penalty cannot make a group of correct rollouts look
    informative; rollouts without one do not count. A further round samples as many problems as the share of groups
    kept so far makes necessary, at most a full batch. They are drawn from the training set without those that the batch
    has had, in an order that depends only on the seed and the step: the same on all processes and in a resumed run.
    Evaluation is not touched.

    Args:
        *args, **kwargs: those of `CorrectnessTrainer`.
        max_generation_rounds: generations at most for one batch, which is then filled up with groups without variance,
            as the log says. They count in the loss's denominator, and have the advantages that another reward gives.

    Logs `dynamic_sampling/*` (docs/metrics.md); TRL's `completions/*` are averages over the rounds. Raises a ValueError
    for an iterable dataset, images or environments.
    """

    def __init__(self, *args: Any, max_generation_rounds: int = 10, **kwargs: Any) -> None:
        if max_generation_rounds < 1:
            raise ValueError(f"max_generation_rounds must be at least 1, got {max_generation_rounds}")
        super().__init__(*args, **kwargs)
        if not hasattr(self.train_dataset, "__len__"):
            raise ValueError("dynamic sampling draws further problems by index; train_dataset must not be iterable")
        if self._is_vlm or self.environment_factories is not None:
            raise ValueError("dynamic sampling works neither with images nor with environment_factory")
        self.max_generation_rounds = max_generation_rounds
        # The rollouts to train on: this process's, and the rewards of all processes, (N, functions).
        self._chosen: tuple[list[_Rollout], Tensor] | None = None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Chooses the rollouts, then lets TRL go on as if it had sampled just these."""
        if not cast(torch.nn.Module, self.model).training:
            return super()._generate_and_score_completions(inputs)
        self._chosen = rollouts, _ = self._choose(inputs)
        for name in {name for rollout in rollouts for name in rollout.logged}:
            self._pending_extra_logs[name].extend(rollout.logged.get(name) for rollout in rollouts)
        try:
            return super()._generate_and_score_completions([rollout.problem for rollout in rollouts])
        finally:
            self._chosen = None

    def _generate(self, prompts: list) -> tuple:
        if self._chosen is None:
            return super()._generate(prompts)
        columns = zip(*(rollout.generated for rollout in self._chosen[0]), strict=True)
        return *(None if column[0] is None else list(column) for column in columns), {}, None, []

    def _calculate_rewards(self, *rollouts: Any) -> Tensor:
        if self._chosen is None:
            return super()._calculate_rewards(*rollouts)
        _, self.latest_rewards = self._chosen
        return self.latest_rewards

    def _choose(self, inputs: list[dict[str, Any]]) -> tuple[list[_Rollout], Tensor]:
        """Samples until as many groups have reward variance as the batch holds; the same on every process."""
        size, processes = cast(int, self.num_generations), self.accelerator.num_processes
        wanted = len(inputs) * processes // size
        together = processes // math.gcd(processes, size)  # so many groups divide over the processes
        kept: list[tuple[list[_Rollout], Tensor]] = []
        dropped: list[tuple[list[_Rollout], Tensor]] = []
        further: Iterator[dict[str, Any]] | None = None
        rounds = 0
        while inputs and len(kept) < wanted and rounds < self.max_generation_rounds:
            rollouts, rewards_NF = self._round(inputs)
            rounds += 1
            for first, rewards_GF in zip(range(0, len(rollouts), size), rewards_NF.split(size), strict=True):
                scored = rewards_GF[:, self._correctness_column]
                varied = scored[~scored.isnan()].unique().numel() > 1
                (kept if varied else dropped).append((rollouts[first : first + size], rewards_GF))
            further = further or self._further([group[0].problem for group, _ in kept + dropped])
            missing, seen = max(wanted - len(kept), 0), len(kept) + len(dropped)
            likely = math.ceil(missing * seen / len(kept)) if kept else wanted
            problems = list(islice(further, math.ceil(min(likely, wanted) / together) * together))
            problems = problems[: len(problems) // together * together]
            inputs = self._mine([dict(problem) for problem in problems for _ in range(size)])

        missing = max(wanted - len(kept), 0)
        if missing and self.accelerator.is_main_process:
            logger.warning(
                f"dynamic sampling: {missing} of {wanted} groups are still without reward variance after {rounds} "
                f"rounds of generation at step {self.state.global_step}; the batch is filled up with such groups"
            )
        all_rewards = torch.cat([rewards for _, rewards in kept + dropped])[:, self._correctness_column]
        for name, value in {
            "rounds": rounds,
            "dropped_groups": len(dropped) - missing,
            "filled_groups": missing,
            "reward": torch.nanmean(all_rewards).item(),
        }.items():
            self._metrics["train"][f"dynamic_sampling/{name}"].append(float(value))
        chosen = (kept + dropped[:missing])[:wanted]
        rollouts = [rollout for group, _ in chosen for rollout in group]
        return self._mine(rollouts), torch.cat([rewards for _, rewards in chosen])

    def _mine(self, rows: list[Any]) -> list[Any]:
        """This process's share."""
        share = len(rows) // self.accelerator.num_processes
        return rows[self.accelerator.process_index * share :][:share]

    def _round(self, inputs: list[dict[str, Any]]) -> tuple[list[_Rollout], Tensor]:
        """Samples and scores one round; the rollouts and rewards of all processes, group by group."""
        from accelerate.utils import gather_object

        prompts = [row["prompt"] for row in inputs]
        *columns, fields, _, _ = self._generate(prompts)  # columns as in `_Rollout`
        _, completion_ids, _, completions, _ = columns
        for name, values in fields.items():  # columns that a rollout_func adds for the reward functions
            for index, row in enumerate(inputs):
                row[name] = values[index] if isinstance(values, list) else values
        rewards_NF = self._calculate_rewards(inputs, prompts, completions, completion_ids)
        logged = {name: list(values) for name, values in self._pending_extra_logs.items()}
        self._pending_extra_logs.clear()
        rollouts = []
        for index, row in enumerate(inputs):
            generated = [None if column is None else column[index] for column in columns]
            rollouts.append(_Rollout(row, generated, {name: values[index] for name, values in logged.items()}))
        return gather_object(rollouts), rewards_NF

    def _further(self, had: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The training problems that the batch has not had, in this generation's own order."""
        accumulation = self.args.gradient_accumulation_steps
        generation = self.state.global_step * accumulation + self._step % accumulation
        seeded = torch.Generator().manual_seed(derived_seed(self.args.seed, generation))
        seen = {_text(problem) for problem in had}
        dataset = cast(Any, self.train_dataset)
        for index in torch.randperm(len(dataset), generator=seeded).tolist():
            problem = dataset[index]
            if (text := _text(problem)) not in seen:
                seen.add(text)
                yield problem


def _text(problem: dict[str, Any]) -> str:
    return json.dumps(problem["prompt"], sort_keys=True, default=str)
