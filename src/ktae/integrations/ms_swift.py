"""KTAE in ms-swift: key-token values on top of its GRPO advantages. Written for ms-swift 4.6.

A plugin file of your own, given with `--external_plugins ktae_plugin.py`:

    from ktae import KTAEConfig
    from ktae.integrations import ms_swift

    ms_swift.install(KTAEConfig())
"""

from __future__ import annotations

from typing import Any

import torch

from ktae.config import KTAEConfig
from ktae.integrations import lists

_AVERAGES_ADVANTAGES = ("real",)
_IGNORED = -100  # the label of a token that is not trained on


def install(
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
    correctness_reward: str | None = None,
) -> None:
    """Makes `swift rlhf --rlhf_type grpo` of this process train with key-token values.

    Args:
        config: the estimator's settings.
        correctness_reward: name of the reward function that decides which rollouts are correct; may be omitted when
            there is only one.
    """
    from swift import rlhf_trainers  # pyright: ignore[reportMissingImports]

    rlhf_trainers.GRPOTrainer = with_key_tokens(rlhf_trainers.GRPOTrainer, config, correctness_reward)


def with_key_tokens(
    trainer: Any,
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
    correctness_reward: str | None = None,
) -> Any:
    """A subclass of ms-swift's `GRPOTrainer` that adds key-token values to the advantages. Arguments as in `install`.

    Its constructor raises ValueError for a setting that erases or distorts token-level credit.
    """

    class KTAETrainer(trainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            _check(self)
            names = list(self.reward_func_names)
            named = correctness_reward is not None or len(names) > 1
            if named and names.count(correctness_reward) != 1:
                raise ValueError(
                    f"correctness_reward must name one of the reward functions {names}, got {correctness_reward!r}"
                )
            self._correctness_column = names.index(correctness_reward) if named else 0

        def _postprocess_batch(self, samples: list[Any], batch_encoded_inputs: list[dict[str, Any]]) -> None:
            super()._postprocess_batch(samples, batch_encoded_inputs)
            values = self._key_token_values(samples)
            first = 0
            for encoded in batch_encoded_inputs:
                batch = encoded["grpo_batch"]
                rows = values[first : first + len(batch.advantages)]
                first += len(rows)
                add_to_advantages(batch, rows)

        def _key_token_values(self, samples: list[Any]) -> list[list[float]]:
            """Of this process's samples, from the groups of all processes."""
            from accelerate.utils import gather_object

            rollouts = gather_object([(trained_ids(sample.encoded["labels"]), sample.prompt_id) for sample in samples])
            counts = gather_object([len(samples)])
            rewards = self._rewards_per_func[:, self._correctness_column]
            if self.dynamic_num_samples:
                groups = [prompt_id for _, prompt_id in rollouts]
            else:
                size = self.num_generations if self.model.training else self.num_generations_eval
                groups = [place // size for place in range(len(rollouts))]
            values = lists.key_token_values([ids for ids, _ in rollouts], None, rewards, groups, config=config)
            first = sum(counts[: self.accelerator.process_index])
            return values[first : first + len(samples)]

    return KTAETrainer


def trained_ids(labels: Any) -> list[int]:
    """The token ids that a sample is trained on, in order: its labels but for those that are ignored."""
    return [label for label in torch.as_tensor(labels).flatten().tolist() if label != _IGNORED]


def add_to_advantages(batch: Any, values: list[list[float]]) -> None:
    """Adds each row's values to the (B, T) advantages at the places where its completion mask is 1, in order."""
    mask_BT = batch.completion_mask.bool()
    if mask_BT.sum(dim=1).tolist() != [len(row) for row in values]:
        raise ValueError(
            f"completion_mask must be 1 for as many tokens as a sample has labels, {[len(row) for row in values]}, "
            f"got {mask_BT.sum(dim=1).tolist()}"
        )
    flat = torch.tensor([value for row in values for value in row], dtype=batch.advantages.dtype)
    advantages_BT = batch.advantages.clone()
    advantages_BT[mask_BT] += flat.to(advantages_BT.device)
    batch.advantages = advantages_BT


def _check(trainer: Any) -> None:
    if trainer.importance_sampling_level == "sequence":
        raise ValueError(
            "--importance_sampling_level sequence gives all tokens of a rollout the same gradient weight, which erases "
            "token-level credit. Use token or sequence_token."
        )
    if trainer.loss_type in _AVERAGES_ADVANTAGES or trainer.use_liger_loss:
        raise ValueError(
            "--loss_type real and --use_liger_kernel true average the advantages of a rollout, which erases "
            f"token-level credit; got loss_type={trainer.loss_type}, use_liger_kernel={trainer.use_liger_loss}"
        )
    if trainer.off_policy_sequence_mask_delta is not None:
        raise ValueError(
            "--off_policy_sequence_mask_delta drops rollouts by the sign of their mean advantage, which key-token "
            f"values change. It must be left out, got {trainer.off_policy_sequence_mask_delta}"
        )
    if trainer.template.sequence_parallel_size > 1:
        raise ValueError(
            "with sequence parallelism a process holds other samples than it generated, which KTAE's hook does not "
            f"follow: --sequence_parallel_size must be 1, got {trainer.template.sequence_parallel_size}"
        )
