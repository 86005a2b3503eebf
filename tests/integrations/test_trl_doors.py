"""Ways into TRL beyond the plain trainer: docs/integrations.md says which of them are tested, here or elsewhere."""

import inspect

import pytest
import torch

pytest.importorskip("trl")

from tiny import build, key_values, quick  # noqa: F401 (a fixture)
from torch.nn.functional import pad
from trl import GRPOConfig, GRPOTrainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning:transformers"
)


def test_adapters_alone_are_trained_with_token_advantages(tmp_path):
    from peft import LoraConfig

    adapters = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = build(tmp_path, settings={"max_steps": 2, "learning_rate": 0.1}, peft_config=adapters)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()

    for rollouts in trainer.rollouts:
        key_NT = key_values(rollouts.ids, rollouts.rewards[:, 0], 6)
        mask = rollouts.batch["completion_mask"]
        key_NT = pad(key_NT, (0, mask.shape[1] - key_NT.shape[1]))
        wanted = (rollouts.rollout_advantages[:, None] + key_NT) * mask
        torch.testing.assert_close(rollouts.batch["advantages"], wanted, rtol=0, atol=1e-6)
        assert key_NT.any()
    moved = {name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)


def test_liger_replaces_layers_and_no_loss():
    """Liger's fused GRPO loss takes one advantage a rollout; TRL 1.16 has no way to switch it on."""
    assert "use_liger_kernel" in inspect.signature(GRPOConfig).parameters
    assert "use_liger_loss" not in inspect.signature(GRPOConfig).parameters
    assert "LigerFusedLinearGRPOLoss" not in inspect.getsource(inspect.getmodule(GRPOTrainer))
