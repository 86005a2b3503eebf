"""Saves what verl's trainer computes and what its actor trains on, in $KTAE_TEST_DIR/step_N.pt.

It wraps methods of verl's base class and knows nothing of ktae: VERL_USE_EXTERNAL_MODULES=...,spy.
"""

import os
from pathlib import Path

import torch
import transfer_queue as tq
from verl.trainer.ppo.v1 import PPOTrainer

seen = {}


def rows(batch, *fields):
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields))
    return {
        field: list(data[field]) if field == "uid" else [row.clone() for row in data[field].unbind()]
        for field in fields
    }


def compute_advantage(self, batch, metrics, verls=PPOTrainer._compute_advantage):
    seen["generated"] = rows(batch, "prompts", "responses", "response_mask", "rm_scores", "uid")
    seen["keys"], seen["padding"] = list(batch.keys), [tag.get("is_padding", False) for tag in batch.tags]
    batch = verls(self, batch, metrics)
    seen["estimator"] = rows(batch, "advantages", "returns", "response_mask")
    return batch


def update_actor(self, batch, metrics, verls=PPOTrainer._update_actor):
    assert list(batch.keys) == seen["keys"]
    seen["actor"] = rows(batch, "responses", "advantages", "returns", "response_mask")
    seen["trainer"] = f"{type(self).__module__}.{type(self).__qualname__}"
    seen["ranks"] = self.actor_rollout_wg.world_size
    seen["metrics"] = {name: value for name, value in metrics.items() if name.startswith("ktae/")}
    torch.save(seen, Path(os.environ["KTAE_TEST_DIR"]) / f"step_{self.global_steps}.pt")
    return verls(self, batch, metrics)


PPOTrainer._compute_advantage = compute_advantage
PPOTrainer._update_actor = update_actor
