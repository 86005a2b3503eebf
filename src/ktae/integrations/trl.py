"""Token advantages in TRL: `GRPOTrainer` with any estimator of token-level credit.

    from ktae.integrations.trl import KTAETrainer
    trainer = KTAETrainer(model, reward_funcs, args=GRPOConfig(...), train_dataset=..., ktae=KTAEConfig())

TRL computes the rollout advantages as always; these trainers add a value to each token's. Written for TRL 1.16.
"""

from __future__ import annotations

import inspect
import sys
import time
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from ktae.config import KTAEConfig
from ktae.estimators import Estimator, Rollouts
from ktae.extras import require
from ktae.integrations.credit import States, TokenCredit, reward_column, rollout_means

require("trl", extra="train")

from trl.models.utils import disable_gradient_checkpointing  # noqa: E402 (after the check that names the extra)
from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: E402

# With these losses TRL's sequence-level importance ratio is one number for the whole rollout, clipped and
# differentiated as such: the gradient of every token is scaled by the rollout's mean advantage.
_SEQUENCE_LEVEL_ERASES_TOKENS = ("grpo", "dapo", "dr_grpo", "bnpo", "luspo", "sapo")


class CorrectnessTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` that knows which of its reward functions decides whether a rollout is correct.

    Args:
        model, reward_funcs, *args, **kwargs: those of `GRPOTrainer`.
        correctness_reward: name of that reward function; may be omitted when there is only one. Its raw values are
            used, before reward weights and normalisation. A ValueError before the model is loaded if it is unknown.
        correct_above: a rollout is correct when that reward is greater.
    """

    latest_rewards: Tensor
    """(N, functions) raw rewards of the latest batch, of all processes; NaN where unscored."""

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        *args: Any,
        correctness_reward: str | None = None,
        correct_above: float = 0.0,
        **kwargs: Any,
    ) -> None:
        listed = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        names = [getattr(function, "__name__", None) for function in listed]
        # TRL names reward models and other objects itself, and an environment adds a function of its own.
        if kwargs.get("environment_factory") is None and (correctness_reward is None or all(names)):
            reward_column([name or str(f) for name, f in zip(names, listed, strict=True)], correctness_reward)
        super().__init__(model, reward_funcs, *args, **kwargs)
        self._correctness_column = reward_column(self.reward_func_names, correctness_reward)
        self.correct_above = correct_above

    def _calculate_rewards(self, *rollouts: Any) -> Tensor:
        self.latest_rewards = super()._calculate_rewards(*rollouts)
        return self.latest_rewards


class TokenAdvantageTrainer(CorrectnessTrainer):
    """`trl.GRPOTrainer` whose advantages are A_i + V_it, one a token, instead of A_i, one a rollout.

    With `importance_sampling_level="sequence"`, where the loss would take a rollout's mean advantage for all tokens,
    the ratio is GSPO-token's, s_it = sg[s_i] pi(o_it) / sg[pi(o_it)] (arXiv 2507.18071, section 4.3): its value is the
    sequence's, its gradient the token's. Where all advantages of a rollout are equal this is GSPO.

    Args:
        *args, **kwargs: those of `CorrectnessTrainer`.
        advantages, correct_above: what gives V_it, as the first arguments of `TokenCredit`. An estimator that cannot do
            without log-probabilities or entropies gets the policy's, for which the model runs once more.
        states: a function of a rollout that returns the state in which each of its tokens was chosen, as many integers.
            The rollout is a mapping: token_ids, mask (0 for tool output), completion and the columns of the data.

    Logs `ktae/*` and names traps (docs/metrics.md); the completions table has a column with each rollout's mean value.

    Raises:
        TypeError, ValueError: before the model is loaded: see `TokenCredit` and `CorrectnessTrainer`; after that:
            `off_policy_mask_threshold` is set.
        RuntimeError: Unsloth has replaced TRL's trainer.
    """

    value_column = "token_value"

    def __init__(
        self,
        *args: Any,
        advantages: Estimator | str | KTAEConfig,
        correct_above: float | None = None,
        states: States | None = None,
        **kwargs: Any,
    ) -> None:
        if "unsloth" in sys.modules or GRPOTrainer.__name__.startswith("Unsloth"):
            raise RuntimeError(
                "token advantages do not work with Unsloth: its loss moves each completion by its prompt's padding and "
                "not the token advantages, so that each token would get another token's credit. "
                "Train without importing unsloth."
            )
        self.credit = TokenCredit(advantages, correct_above, states)
        self.credit.check_given("a TokenAdvantageTrainer without states=", "log_probs", "entropies", "states")
        super().__init__(*args, correct_above=self.credit.correct_above, **kwargs)
        if self.off_policy_mask_threshold is not None:
            raise ValueError(
                "off_policy_mask_threshold drops whole rollouts by the sign of the rollout advantage; with token "
                f"advantages it would drop single tokens. It must be None, got {self.off_policy_mask_threshold}"
            )
        self._loss_inputs: dict[str, Any] | None = None
        self._gspo_token = (
            self.importance_sampling_level == "sequence" and self.loss_type in _SEQUENCE_LEVEL_ERASES_TOKENS
        )
        if self._gspo_token:
            self.importance_sampling_level = "token"  # of ratios that have the sequence's value

    def _generate(self, prompts: list) -> tuple:
        """Keeps which tokens are tool output, before truncated rollouts are masked as a whole."""
        generated = super()._generate(prompts)
        self._tool_mask = generated[2]
        return generated

    def _calculate_rewards(self, *rollouts: Any) -> Tensor:
        self._scored = rollouts
        return super()._calculate_rewards(*rollouts)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Turns the (B,) advantages into (B, T): a group's rollouts are gathered from all processes first."""
        training = cast(torch.nn.Module, self.model).training  # generation may leave the model in training mode
        batch = super()._generate_and_score_completions(inputs)
        start = time.perf_counter()
        ids_BT = batch["completion_ids"]
        rows, width = ids_BT.shape
        scored, _, completions, ids = self._scored

        # Not the batch's masks: mask_truncated_completions has zeroed them for truncated rollouts, which still say
        # which tokens go with failure.
        masks = self._tool_mask or [[1] * len(row) for row in ids]
        inside_BT, generated_BT = torch.zeros_like(ids_BT), torch.zeros_like(ids_BT)
        for row, mask in enumerate(masks):
            inside_BT[row, : len(mask)], generated_BT[row, : len(mask)] = 1, torch.tensor(mask, device=ids_BT.device)
        optional: dict[str, Tensor] = {}
        if {"log_probs", "entropies"} & set(self.credit.needs):
            optional |= self._policy(batch, inside_BT)
        if self.credit.states:
            rollouts = [
                row | {"token_ids": tokens, "mask": mask, "completion": completion}
                for row, tokens, mask, completion in zip(scored, ids, masks, completions, strict=True)
            ]
            optional["states"] = self.credit.state_rows(rollouts, width).to(ids_BT.device)

        def gather(local_BT: Tensor) -> Tensor:
            return cast(Tensor, self.accelerator.gather(self.accelerator.pad_across_processes(local_BT, dim=1)))

        ids_NT = gather(ids_BT)
        group_size = cast(int, self.num_generations if training else self.num_generations_eval)
        rollouts_N = Rollouts(
            ids_NT,
            gather(generated_BT),
            self.latest_rewards[:, self._correctness_column],
            torch.arange(len(ids_NT), device=ids_NT.device) // group_size,
            cast(Tensor, self.accelerator.gather(batch["advantages"])),
            correct_above=self.credit.correct_above,
            **{name: gather(local_BT) for name, local_BT in optional.items()},
        )
        value_NT = self.credit(rollouts_N, warn=training and self.accelerator.is_main_process)

        first = self.accelerator.process_index * rows
        value_BT = value_NT[first : first + rows, :width]
        batch["advantages"] = (batch["advantages"][:, None] + value_BT) * batch["completion_mask"]

        metrics = self.credit.metrics | {"seconds": time.perf_counter() - start}
        for name, value in metrics.items():  # TRL leaves NaN out of its averages
            self._metrics["train" if training else "eval"][f"ktae/{name}"].append(value)
        self._logs["extra"][self.value_column].extend(rollout_means(value_NT, rollouts_N.mask).tolist())
        return batch

    def _policy(self, batch: dict[str, Any], inside_BT: Tensor) -> dict[str, Tensor]:
        """(B, T) log-probabilities and entropies of the policy that generated, 0 after a completion's end."""
        names = inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters
        model = cast(Any, self.model)
        with torch.no_grad(), disable_gradient_checkpointing(model, cast(Any, self.args.gradient_checkpointing_kwargs)):
            log_probs, entropies, _ = self._get_per_token_logps_and_entropies(
                model,
                torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
                torch.cat([batch["prompt_mask"], inside_BT], dim=1),
                inside_BT.shape[1],
                batch_size=self.args.per_device_train_batch_size,
                compute_entropy=True,
                **{name: batch[name] for name in names if name in batch},  # of images
            )
        assert entropies is not None
        return {"log_probs": log_probs * inside_BT, "entropies": entropies * inside_BT}

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if not self._gspo_token:
            return super()._compute_loss(model, inputs)
        self._loss_inputs = inputs = dict(inputs)
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._loss_inputs = None

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple:
        """GSPO-token, within TRL's loss: the old log-probabilities for which each ratio has its sequence's value."""
        found = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if (inputs := self._loss_inputs) is not None:
            log_probs_BT = found[0].detach()
            mask_BT = inputs["completion_mask"] * inputs.get("tool_mask", 1)
            log_ratio_BT = (log_probs_BT - inputs.get("old_per_token_logps", log_probs_BT)) * mask_BT
            log_ratio_B = log_ratio_BT.sum(dim=1) / mask_BT.sum(dim=1).clamp(min=1)
            inputs["old_per_token_logps"] = log_probs_BT - log_ratio_B[:, None]
        return found


class KTAETrainer(TokenAdvantageTrainer):
    """`TokenAdvantageTrainer` with key-token values.

    Args:
        *args, **kwargs: those of `TokenAdvantageTrainer` but for `advantages` and `correct_above`.
        ktae: the settings of the key tokens; the paper's formula by default.
    """

    value_column = "key_token_value"
    _name = "KTAE"  # what TRL's model card says
    _tag_names: ClassVar = ["trl", "grpo", "ktae"]
    _paper: ClassVar = {
        "title": "KTAE: A Model-Free Algorithm to Key-Tokens Advantage Estimation in Mathematical Reasoning",
        "id": "2505.16826",
    }

    def __init__(self, *args: Any, ktae: KTAEConfig | None = None, **kwargs: Any) -> None:
        if not isinstance(ktae, KTAEConfig | None):
            raise TypeError(f"ktae must be a KTAEConfig, such as KTAEConfig(scale=8.0), got {ktae!r}")
        super().__init__(*args, advantages=ktae or KTAEConfig(), **kwargs)
