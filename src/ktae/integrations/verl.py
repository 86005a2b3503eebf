"""KTAE in verl: the trainer `ktae_sync`, whose token advantages come on top of any `algorithm.adv_estimator`.

    python -m verl.trainer.main_ppo trainer.v1.trainer_mode=ktae_sync algorithm.adv_estimator=grpo \
        +algorithm.ktae.term_frequency_weight=0 ...

verl imports this module by itself where ktae is installed (entry point in the group `verl.plugins`), or when the
environment says VERL_USE_EXTERNAL_MODULES=ktae.integrations.verl. With trainer.use_v1=False, which verl calls
deprecated, `algorithm.ktae` in the configuration switches KTAE on, and no `ktae/*` are logged. Written for verl 0.9.1.
"""

# verl lives in an environment of its own: it pins other versions of transformers than TRL needs.
# pyright: reportMissingImports=false

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ktae.advantages import key_token_values
from ktae.config import KTAEConfig
from ktae.extras import require
from ktae.integrations.metrics import estimator_metrics

try:
    require("verl", extra="verl")
    import transfer_queue as tq
    from omegaconf import DictConfig, OmegaConf
    from tensordict import TensorDict
    from verl.trainer.ppo import ray_trainer
    from verl.trainer.ppo.v1 import PPOTrainer, PPOTrainerColocateAsync, PPOTrainerSync, register_trainer
    from verl.workers.utils.padding import response_to_nested
except Exception as error:
    # verl hides the errors of entry points; what the user would see is an unknown trainer.
    logging.getLogger(__name__).warning(
        "ktae could not be loaded into verl, so trainer.v1.trainer_mode=ktae_sync will be unknown: %s: %s",
        type(error).__name__,
        error,
    )
    raise

PRESETS = {"paper": KTAEConfig, "released": KTAEConfig.released, "recommended": KTAEConfig.recommended}

# The policy losses that replace a rollout's token advantages by their mean.
_AVERAGES_ADVANTAGES = ("geo_mean",)


class _KeyTokenValues:
    """What the two trainers below share: a mixin in front of one of verl's."""

    mode: str
    """verl's own name of the trainer."""

    def __init__(self, config: DictConfig) -> None:
        self.ktae = ktae_config(config.algorithm.get("ktae"))
        refuse_averaging_losses(config)
        # verl looks up buffers and settings by the trainer's name: an unknown one gets the asynchronous buffer.
        config.trainer.v1.trainer_mode = self.mode
        super().__init__(config)  # type: ignore[call-arg]

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        one_row_a_rollout(batch.keys)
        # Before verl's own step: rollout correction may take tokens out of response_mask.
        rollouts = _read(batch, "responses", "response_mask", "rm_scores", "uid")
        batch = super()._compute_advantage(batch, metrics)  # type: ignore[misc]
        start = time.perf_counter()
        written = _read(batch, "advantages", "response_mask")
        padded, trained_on = rollouts.to_padded_tensor(), written.to_padded_tensor()
        advantage_BT, ktae_metrics = token_advantages(
            trained_on["advantages"],
            trained_on["response_mask"],
            ids_BT=padded["responses"],
            generated_BT=padded["response_mask"],
            rewards_B=padded["rm_scores"].sum(dim=1),
            uids=rollouts["uid"],
            is_padding=[tag.get("is_padding", False) for tag in batch.tags],
            config=self.ktae,
        )
        nested = response_to_nested(advantage_BT, written["response_mask"])
        fields = TensorDict({"advantages": nested}, batch_size=len(batch))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
        metrics.update(ktae_metrics)
        metrics["ktae/seconds"] = time.perf_counter() - start
        return batch


@register_trainer("ktae_sync")
class KTAETrainer(_KeyTokenValues, PPOTrainerSync):
    """verl's synchronous trainer with advantages (A_it + K(o_it)) * mask_it.

    A_it is what `algorithm.adv_estimator` computes, K the key-token value. A group is the rows of one uid, wherever
    they are in the batch. A rollout is correct when the sum of its `rm_scores` (its reward before any KL penalty) is
    greater than `correct_above`. The tables count all tokens that the policy generated, those that rollout correction
    rejects included. verl's padding rows count nowhere. The returns, a critic's targets, stay the estimator's.

    Logs `ktae/*` (docs/metrics.md).

    Args:
        config: verl's configuration. `algorithm.ktae` may hold the fields of `KTAEConfig` and `preset` ("paper",
            "released" or "recommended"), which the fields given override.

    Raises:
        ValueError, TypeError: `algorithm.ktae` has an unknown key or a bad value, or the policy loss erases
            token-level credit; on construction. A rollout consists of several rows; on the first step.
    """

    mode = "sync"


@register_trainer("ktae_colocate_async")
class KTAETrainerColocateAsync(_KeyTokenValues, PPOTrainerColocateAsync):
    """The same for verl's `colocate_async`, where rollouts of the next updates are under way during an update."""

    mode = "colocate_async"


def ktae_config(settings: Mapping[str, Any] | DictConfig | None) -> KTAEConfig:
    """The estimator's settings from verl's `algorithm.ktae`.

    Args:
        settings: fields of `KTAEConfig` and optionally `preset`; None means the defaults.

    Raises:
        ValueError, TypeError: a key is unknown or a value is out of range; the message names `algorithm.ktae.KEY`.

    >>> config = ktae_config({"preset": "recommended", "scale": 4.0})
    >>> config.scale, config.context, config.ngram
    (4.0, 2, 'context')
    """
    if isinstance(settings, DictConfig):
        settings = OmegaConf.to_container(settings, resolve=True)  # type: ignore[assignment]
    if settings is None:
        return KTAEConfig()
    known = [field.name for field in dataclasses.fields(KTAEConfig)]
    if not isinstance(settings, Mapping):
        raise TypeError(f"algorithm.ktae must hold some of preset, {', '.join(known)}; got {settings!r}")
    fields = dict(settings)
    preset = fields.pop("preset", "paper")
    if preset not in PRESETS:
        raise ValueError(f"algorithm.ktae.preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    for key in fields:
        if key not in known:
            raise ValueError(f"algorithm.ktae.{key} is unknown; algorithm.ktae may hold preset, {', '.join(known)}")
    try:
        return dataclasses.replace(PRESETS[preset](), **fields)
    except (TypeError, ValueError) as error:  # its message begins with the field's name
        raise type(error)(f"algorithm.ktae.{error}") from error


def refuse_averaging_losses(config: DictConfig) -> None:
    """Raises ValueError if the policy loss of verl's whole configuration erases token-level credit."""
    loss_mode = OmegaConf.select(config, "actor_rollout_ref.actor.policy_loss.loss_mode")
    if loss_mode in _AVERAGES_ADVANTAGES:
        raise ValueError(
            f"actor_rollout_ref.actor.policy_loss.loss_mode={loss_mode} averages the advantages of a rollout, "
            "which erases token-level credit. Use another loss, such as vanilla."
        )


def one_row_a_rollout(keys: list[str]) -> None:
    """Checks that no rollout is spread over several rows.

    Args:
        keys: verl's, `UID_SESSION_INDEX`; the index counts the outputs of one rollout's agent loop.

    Raises:
        ValueError: two keys differ in the index alone.
    """
    rows = Counter(key.rpartition("_")[0] for key in keys)
    session, number = rows.most_common(1)[0]
    if number > 1:
        raise ValueError(
            "ktae needs agent loops with one output a rollout, since its tables count rollouts; "
            f"rollout {session} has {number} outputs"
        )


def token_advantages(
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    ids_BT: Tensor,
    generated_BT: Tensor,
    rewards_B: Tensor,
    uids: Iterable[str],
    is_padding: Sequence[bool],
    config: KTAEConfig,
) -> tuple[Tensor, dict[str, float]]:
    """Adds key-token values to advantages.

    Args:
        advantage_BT: (B, T) float, verl's.
        mask_BT: (B, T) of 0 and 1; 1 marks the tokens that are trained on.
        ids_BT: (B, T) integers, the responses.
        generated_BT: (B, T) of 0 and 1; 1 marks the tokens that the policy generated.
        rewards_B: (B,) float, one outcome reward a rollout.
        uids: B, equal for the rollouts of one prompt.
        is_padding: B, True for rows that verl added to fill the batch.
        config: the estimator's settings.

    Returns:
        (B, T) advantages, 0 outside `mask_BT`, and the metrics, without those that have nothing to average.
    """
    real_B = ~torch.tensor(is_padding)
    _, group_B = np.unique(np.array(list(uids), dtype=str), return_inverse=True)
    group_N, generated_NT, rewards_N = torch.from_numpy(group_B)[real_B], generated_BT[real_B], rewards_B[real_B]

    value_NT = key_token_values(ids_BT[real_B], generated_NT, rewards_N, group_N, config=config)
    value_BT = torch.zeros_like(advantage_BT)
    value_BT[real_B] = value_NT
    metrics = estimator_metrics(value_NT, generated_NT.bool(), rewards_N, group_N, config)
    logged = {f"ktae/{name}": value for name, value in metrics.items() if not math.isnan(value)}
    return (advantage_BT + value_BT) * mask_BT, logged


def _read(batch: Any, *fields: str) -> TensorDict:
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields))


# What follows concerns runs with `algorithm.ktae` and another trainer than the two above; other runs are left alone.


def _ktae_refused(init: Callable[..., None]) -> Callable[..., None]:
    """Stops verl's own V1 trainers, which would ignore `algorithm.ktae`."""

    @functools.wraps(init)
    def wrapped(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        if "ktae" in config.algorithm and not isinstance(self, _KeyTokenValues):
            raise ValueError(
                f"algorithm.ktae is set, but trainer.v1.trainer_mode={config.trainer.v1.trainer_mode} does not read it."
                " Use trainer.v1.trainer_mode=ktae_sync or ktae_colocate_async."
            )
        init(self, config, *args, **kwargs)

    return wrapped


def _ktae_checked(init: Callable[..., None]) -> Callable[..., None]:
    """Checks the settings when the older trainer (trainer.use_v1=False) is constructed, before any work."""

    @functools.wraps(init)
    def wrapped(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        if "ktae" in config.algorithm:
            ktae_config(config.algorithm.ktae)
            refuse_averaging_losses(config)
            correction = config.algorithm.get("rollout_correction") or {}
            if correction.get("rollout_rs") and not correction.get("bypass_mode"):
                raise ValueError(
                    f"algorithm.rollout_correction.rollout_rs={correction.get('rollout_rs')} takes tokens out of the "
                    "mask before ktae can count them with trainer.use_v1=False. Use trainer.use_v1=True."
                )
        init(self, config, *args, **kwargs)

    return wrapped


def _with_key_token_values(compute_advantage: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the values in the older trainer. The V1 trainers have bound verl's function above and never get here."""

    @functools.wraps(compute_advantage)
    def wrapped(data: Any, *args: Any, config: Any = None, **kwargs: Any) -> Any:
        data = compute_advantage(data, *args, config=config, **kwargs)
        if config is not None and "ktae" in config:
            batch = data.batch
            batch["advantages"], _ = token_advantages(
                batch["advantages"],
                batch["response_mask"],
                ids_BT=batch["responses"],
                generated_BT=batch["response_mask"],
                rewards_B=batch["token_level_scores"].sum(dim=1),
                uids=data.non_tensor_batch["uid"],
                is_padding=[False] * len(data),
                config=ktae_config(config.ktae),
            )
        return data

    return wrapped


PPOTrainer.__init__ = _ktae_refused(PPOTrainer.__init__)
# The older trainer is constructed by name and calls a function of its module: no subclass can take its place.
ray_trainer.RayPPOTrainer.__init__ = _ktae_checked(ray_trainer.RayPPOTrainer.__init__)
ray_trainer.compute_advantage = _with_key_token_values(ray_trainer.compute_advantage)
