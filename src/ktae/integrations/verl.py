"""KTAE in verl: the trainer `ktae_sync`, whose token advantages come on top of any `algorithm.adv_estimator`.

    python -m verl.trainer.main_ppo trainer.v1.trainer_mode=ktae_sync algorithm.adv_estimator=grpo \
        +algorithm.ktae.term_frequency_weight=0 ...

verl imports this module by itself where ktae is installed (docs/verl.md). It registers the trainer and changes nothing
of verl's. Written for verl 0.9.1.
"""

# verl lives in an environment of its own: it pins other versions of transformers than TRL needs.
# pyright: reportMissingImports=false

from __future__ import annotations

import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ktae.estimators import Rollouts
from ktae.extras import require
from ktae.integrations.credit import TokenCredit, expect, from_settings, rollout_means
from ktae.integrations.lists import group_numbers

try:
    require("verl", extra="verl")
    import transfer_queue as tq
    from omegaconf import DictConfig, OmegaConf
    from tensordict import TensorDict
    from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer
    from verl.workers.utils.padding import response_to_nested
except Exception as error:
    # verl hides the errors of entry points; what the user would see is an unknown trainer.
    logging.getLogger(__name__).warning(
        "ktae could not be loaded into verl, so trainer.v1.trainer_mode=ktae_sync will be unknown: %s: %s",
        type(error).__name__,
        error,
    )
    raise

VERLS_NAMES = {"log_probs": "old_log_probs", "entropies": "entropy"}


@register_trainer("ktae_sync")
class KTAETrainer(PPOTrainerSync):
    """verl's synchronous trainer with advantages (A_it + V_it) * mask_it.

    A_it is what `algorithm.adv_estimator` computes, V the key-token value or another estimator's. docs/verl.md says
    what is taken from verl and what `algorithm.ktae` may hold. Logs `ktae/*` (docs/metrics.md).

    Raises:
        ValueError, TypeError: on construction: a setting is unknown or bad, the estimator fails on a small batch, or
            the policy loss erases token-level credit; on the first step: a rollout consists of several rows.
    """

    def __init__(self, config: DictConfig) -> None:
        self.credit = token_credit(config)
        loss = "actor_rollout_ref.actor.policy_loss.loss_mode"
        if OmegaConf.select(config, loss):
            expect(config, loss, "it averages the advantages of a rollout", other_than="geo_mean")
        # verl looks up buffers and settings by the trainer's name: an unknown one gets the asynchronous buffer.
        config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        one_row_a_rollout(batch.keys)
        # Before verl's own step: rollout correction may take tokens out of response_mask.
        optional = {VERLS_NAMES[name]: name for name in self.credit.needs if name != "states"}
        given = _read(batch, "responses", "response_mask", "rm_scores", "uid", *optional)
        batch = super()._compute_advantage(batch, metrics)
        start = time.perf_counter()
        written = _read(batch, "advantages", "response_mask")
        padded, trained_on = given.to_padded_tensor(), written.to_padded_tensor()
        ids_BT, generated_BT = padded["responses"], padded["response_mask"]
        advantage_BT, mask_BT = trained_on["advantages"], trained_on["response_mask"]
        values = {name: padded[field] * generated_BT for field, name in optional.items()}
        if self.credit.states:
            rows = zip(given["responses"].unbind(), given["response_mask"].unbind(), given["uid"], strict=True)
            known = [{"token_ids": ids.tolist(), "mask": mask.tolist(), "uid": uid} for ids, mask, uid in rows]
            values["states"] = self.credit.state_rows(known, ids_BT.shape[1])
        rollouts = Rollouts(
            ids_BT,
            generated_BT,
            padded["rm_scores"].sum(dim=1),
            group_numbers([str(uid) for uid in given["uid"]]),
            rollout_means(advantage_BT, mask_BT),
            correct_above=self.credit.correct_above,
            **values,
        )
        is_padding = [tag.get("is_padding", False) for tag in batch.tags]
        advantage_BT, ktae_metrics = token_advantages(self.credit, rollouts, advantage_BT, mask_BT, is_padding)
        nested = response_to_nested(advantage_BT, written["response_mask"])
        fields = TensorDict({"advantages": nested}, batch_size=len(batch))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
        metrics.update(ktae_metrics | {"ktae/seconds": time.perf_counter() - start})
        return batch


def token_credit(config: DictConfig) -> TokenCredit:
    """The estimator that verl's whole configuration asks for; errors as `from_settings`."""
    settings = config.algorithm.get("ktae")
    settings = OmegaConf.to_container(settings, resolve=True) if OmegaConf.is_config(settings) else settings
    given = ["log_probs", "states"]
    if not OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode"):
        given.append("entropies")  # verl computes them with the old log-probabilities
    return from_settings(settings, "algorithm.ktae", "verl with these settings", *given)


def one_row_a_rollout(keys: list[str]) -> None:
    """Refuses rollouts spread over several rows: keys, UID_SESSION_INDEX, that differ in the agent loop's output."""
    rows = Counter(key.rpartition("_")[0] for key in keys)
    session, number = rows.most_common(1)[0]
    if number > 1:
        raise ValueError(
            "ktae needs agent loops with one output a rollout, since its tables count rollouts; "
            f"rollout {session} has {number} outputs"
        )


def token_advantages(
    credit: TokenCredit, rollouts: Rollouts, advantage_BT: Tensor, mask_BT: Tensor, is_padding: Sequence[bool]
) -> tuple[Tensor, dict[str, float]]:
    """(B, T) verl's advantages plus values, 0 outside `mask_BT`, and the metrics that have something to average.

    `rollouts` are as generated, `mask_BT` marks the tokens trained on, `is_padding` rows that verl added to the batch.
    """
    real_B = ~torch.tensor(is_padding)
    value_BT = torch.zeros_like(advantage_BT)
    value_BT[real_B] = credit(rollouts.rows(real_B)).to(value_BT)
    logged = {f"ktae/{name}": value for name, value in credit.metrics.items() if not math.isnan(value)}
    return (advantage_BT + value_BT) * mask_BT, logged


def _read(batch: Any, *fields: str) -> TensorDict:
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields))


def refuse_ignored_settings(arguments: Sequence[str]) -> None:
    """Stops the command whose arguments set `algorithm.ktae` for a trainer of verl's own, which would ignore it."""
    mode = next((one for one in reversed(arguments) if "trainer_mode=" in one), "the default trainer.v1.trainer_mode")
    if any("algorithm.ktae" in argument for argument in arguments) and "=ktae_sync" not in mode:
        raise SystemExit(f"algorithm.ktae is set, and {mode} does not read it. Use trainer.v1.trainer_mode=ktae_sync.")


refuse_ignored_settings(sys.argv[1:])
