"""KTAE in verl: the trainer `ktae_sync`, whose token advantages come on top of any `algorithm.adv_estimator`.

    python -m verl.trainer.main_ppo trainer.v1.trainer_mode=ktae_sync algorithm.adv_estimator=grpo \
        +algorithm.ktae.term_frequency_weight=0 ...

verl imports this module by itself where ktae is installed (entry point in the group `verl.plugins`), or when the
environment says VERL_USE_EXTERNAL_MODULES=ktae.integrations.verl. It registers the trainers and changes nothing of
verl's. Written for verl 0.9.1.
"""

# verl lives in an environment of its own: it pins other versions of transformers than TRL needs.
# pyright: reportMissingImports=false

from __future__ import annotations

import dataclasses
import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ktae.config import KTAEConfig
from ktae.estimators import Rollouts, load_estimator
from ktae.extras import require
from ktae.integrations.credit import States, TokenCredit, refuse_unless, rollout_means, state_rows

try:
    require("verl", extra="verl")
    import transfer_queue as tq
    from omegaconf import DictConfig, OmegaConf
    from tensordict import TensorDict
    from verl.trainer.ppo.v1 import PPOTrainerColocateAsync, PPOTrainerSync, register_trainer
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

VERLS_NAMES = {"log_probs": "old_log_probs", "entropies": "entropy"}


class _KeyTokenValues:
    """What the two trainers below share: a mixin in front of one of verl's."""

    mode: str
    """verl's own name of the trainer."""

    def __init__(self, config: DictConfig) -> None:
        self.credit, self.states = token_credit(config)
        refuse_averaging_losses(config)
        # verl looks up buffers and settings by the trainer's name: an unknown one gets the asynchronous buffer.
        config.trainer.v1.trainer_mode = self.mode
        super().__init__(config)  # type: ignore[call-arg]

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        one_row_a_rollout(batch.keys)
        # Before verl's own step: rollout correction may take tokens out of response_mask.
        optional = {VERLS_NAMES[name]: name for name in self.credit.needs if name != "states"}
        rollouts = _read(batch, "responses", "response_mask", "rm_scores", "uid", *optional)
        batch = super()._compute_advantage(batch, metrics)  # type: ignore[misc]
        start = time.perf_counter()
        written = _read(batch, "advantages", "response_mask")
        padded, trained_on = rollouts.to_padded_tensor(), written.to_padded_tensor()
        values = {name: padded[field] for field, name in optional.items()}
        if self.states:
            rows = zip(rollouts["responses"].unbind(), rollouts["response_mask"].unbind(), rollouts["uid"], strict=True)
            known = [{"token_ids": ids.tolist(), "mask": mask.tolist(), "uid": uid} for ids, mask, uid in rows]
            values["states"] = state_rows(self.states, known, padded["responses"].shape[1])
        advantage_BT, ktae_metrics = token_advantages(
            self.credit,
            trained_on["advantages"],
            trained_on["response_mask"],
            ids_BT=padded["responses"],
            generated_BT=padded["response_mask"],
            rewards_B=padded["rm_scores"].sum(dim=1),
            uids=list(rollouts["uid"]),
            is_padding=[tag.get("is_padding", False) for tag in batch.tags],
            **values,
        )
        nested = response_to_nested(advantage_BT, written["response_mask"])
        fields = TensorDict({"advantages": nested}, batch_size=len(batch))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
        metrics.update(ktae_metrics)
        metrics["ktae/seconds"] = time.perf_counter() - start
        return batch


@register_trainer("ktae_sync")
class KTAETrainer(_KeyTokenValues, PPOTrainerSync):
    """verl's synchronous trainer with advantages (A_it + V_it) * mask_it.

    A_it is what `algorithm.adv_estimator` computes, V the key-token value or another estimator's. A group is the rows
    of one uid, wherever they are in the batch. A rollout is correct when the sum of its `rm_scores` (its reward before
    any KL penalty) is greater than `correct_above`. The tables count all tokens that the policy generated, those that
    rollout correction rejects included. verl's padding rows count nowhere. The returns, a critic's targets, stay the
    estimator's.

    Logs `ktae/*` (docs/metrics.md).

    Args:
        config: verl's configuration. `algorithm.ktae` may hold the fields of `KTAEConfig`, `preset` ("paper",
            "released" or "recommended"), which the fields given override, `estimator` (a name or an import path) and
            `states` (the import path of a function of a rollout with token_ids, mask and uid).

    Raises:
        ValueError, TypeError: `algorithm.ktae` has an unknown key or a bad value, the estimator fails on a small batch,
            or the policy loss erases token-level credit; on construction. A rollout consists of several rows; on the
            first step.
    """

    mode = "sync"


@register_trainer("ktae_colocate_async")
class KTAETrainerColocateAsync(_KeyTokenValues, PPOTrainerColocateAsync):
    """The same for verl's `colocate_async`, where rollouts of the next updates are under way during an update."""

    mode = "colocate_async"


def token_credit(config: DictConfig) -> tuple[TokenCredit, States | None]:
    """The estimator and the function of states that verl's whole configuration asks for.

    Raises:
        ValueError, TypeError: a key is unknown or a value is out of range; the message names `algorithm.ktae.KEY`.
    """
    settings = config.algorithm.get("ktae")
    settings = OmegaConf.to_container(settings, resolve=True) if isinstance(settings, DictConfig) else settings
    known = ["preset", "estimator", "states", *(field.name for field in dataclasses.fields(KTAEConfig))]
    if not isinstance(settings, Mapping | None):
        raise TypeError(f"algorithm.ktae must hold some of {', '.join(known)}; got {settings!r}")
    fields = {str(key): value for key, value in (settings or {}).items()}
    for key in fields:
        if key not in known:
            raise ValueError(f"algorithm.ktae.{key} is unknown; algorithm.ktae may hold {', '.join(known)}")
    preset = fields.pop("preset", "paper")
    estimator, states = fields.pop("estimator", None), fields.pop("states", None)
    if preset not in PRESETS:
        raise ValueError(f"algorithm.ktae.preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    gives = ["log_probs", *(["states"] if states else [])]
    if not OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode"):
        gives.append("entropies")  # verl computes them with the old log-probabilities
    try:
        ktae = dataclasses.replace(PRESETS[preset](), **fields)
        credit = TokenCredit(ktae, estimator, gives=gives, trainer="verl with these settings")
    except (TypeError, ValueError) as error:  # its message begins with the field's name
        raise type(error)(f"algorithm.ktae.{error}") from error
    if states and ":" not in states:
        raise ValueError(f"algorithm.ktae.states must be an import path package.module:function, got {states!r}")
    return credit, cast(States, load_estimator(states)) if states else None


def refuse_averaging_losses(config: DictConfig) -> None:
    """Raises ValueError if the policy loss of verl's whole configuration erases token-level credit."""
    name = "actor_rollout_ref.actor.policy_loss.loss_mode"
    loss_mode = OmegaConf.select(config, name)
    refuse_unless(loss_mode != "geo_mean", name, "another", loss_mode, "it averages the advantages of a rollout")


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
    credit: TokenCredit,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    ids_BT: Tensor,
    generated_BT: Tensor,
    rewards_B: Tensor,
    uids: Sequence[str],
    is_padding: Sequence[bool],
    **optional: Tensor,
) -> tuple[Tensor, dict[str, float]]:
    """Adds an estimator's values to advantages.

    Args:
        credit: the run's estimator.
        advantage_BT: (B, T) float, verl's.
        mask_BT: (B, T) of 0 and 1; 1 marks the tokens that are trained on.
        ids_BT: (B, T) integers, the responses.
        generated_BT: (B, T) of 0 and 1; 1 marks the tokens that the policy generated.
        rewards_B: (B,) float, one outcome reward a rollout.
        uids: B, equal for the rollouts of one prompt.
        is_padding: B, True for rows that verl added to fill the batch.
        **optional: (B, T) each: log_probs, entropies, states.

    Returns:
        (B, T) advantages, 0 outside `mask_BT`, and the metrics, without those that have nothing to average.
    """
    real_B = ~torch.tensor(is_padding)
    _, group_B = np.unique(np.array(uids, dtype=str), return_inverse=True)
    chosen = {name: value_BT[real_B] * generated_BT[real_B] for name, value_BT in optional.items()}
    value_NT = credit(
        Rollouts(
            ids_BT[real_B],
            generated_BT[real_B],
            rewards_B[real_B],
            torch.from_numpy(group_B)[real_B],
            rollout_means(advantage_BT, mask_BT)[real_B],
            correct_above=credit.correct_above,
            **chosen,
        )
    )
    value_BT = torch.zeros_like(advantage_BT)
    value_BT[real_B] = value_NT
    logged = {f"ktae/{name}": value for name, value in credit.metrics.items() if not math.isnan(value)}
    return (advantage_BT + value_BT) * mask_BT, logged


def _read(batch: Any, *fields: str) -> TensorDict:
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields))


def refuse_ignored_settings(arguments: Sequence[str]) -> None:
    """Stops the command whose arguments set `algorithm.ktae` for a trainer of verl's own, which would ignore it."""
    if any("algorithm.ktae" in argument for argument in arguments):
        modes = [argument for argument in arguments if "trainer_mode=" in argument]
        if not any("=ktae_" in mode for mode in modes):
            raise SystemExit(
                f"algorithm.ktae is set, and {modes[-1] if modes else 'the default trainer.v1.trainer_mode'} does not "
                "read it. Use trainer.v1.trainer_mode=ktae_sync or ktae_colocate_async."
            )


refuse_ignored_settings(sys.argv[1:])
