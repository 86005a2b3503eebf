"""Devices without float64, and torch's defaults, on which nothing may depend."""

import pytest
import torch
from batches import batch_of, of_every_kind
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ktae import checks, explain, kernels, key_token_values, ktae_advantages, rollout, scores


class NoFloat64(TorchDispatchMode):
    """Refuses every operation that returns a float64 tensor, as Apple's MPS does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returned = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(returned):
            if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64:
                raise TypeError(f"{func}: this device has no float64")
        return returned


@of_every_kind
def test_a_device_without_float64(config, monkeypatch):
    """The tensor path as such a device runs it. What is made on the host is made before: rewards, tables of scores."""
    assert checks.widest_float(torch.device("mps")) == torch.float32  # Apple's
    assert checks.widest_float(torch.device("cuda")) == checks.widest_float(torch.device("cpu")) == torch.float64
    batch = batch_of(9, 8, 60, ids=40)
    monkeypatch.setattr(kernels, "usable", lambda tensor: False)
    expected = ktae_advantages(*batch, config=config)
    assert expected.unique().numel() > 20
    rollout_B = rollout.grpo(batch.rewards, batch.group_ids).float()
    monkeypatch.setattr(checks, "widest_float", lambda device: torch.float32)
    monkeypatch.setattr(checks, "rewards", lambda rewards: rewards)
    monkeypatch.setattr(checks, "rollout_advantages", lambda advantages, rewards: advantages)
    with NoFloat64():
        actual = ktae_advantages(*batch, config=config, rollout_advantages=rollout_B)
        with pytest.raises(TypeError, match="no float64"):
            batch.rewards.double()
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * config.scale)


@pytest.mark.usefixtures("both_paths")
@of_every_kind
def test_default_dtype_and_device(config):
    batch = batch_of(3, 8, 40, ids=30)
    results = []
    for dtype, device in ((torch.float32, "cpu"), (torch.bfloat16, "cpu"), (torch.float64, "meta")):
        scores.strengths.cache_clear()
        scores.released_fisher_scores.cache_clear()
        scores._flat.cache_clear()
        try:
            torch.set_default_dtype(dtype)
            torch.set_default_device(device)
            table = explain(*batch, config=config, permutations=50)
            states = batch.token_ids // 10
            advantages = ktae_advantages(*batch, config=config)
            values = key_token_values(*batch, config=config, states=states)
            results.append((advantages, values, *map(torch.from_numpy, (table.value, table.permutation_p))))
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
    for result in results[1:]:
        for actual, expected in zip(result, results[0], strict=True):
            assert torch.equal(actual, expected)
    assert results[0][0].any()


@pytest.mark.usefixtures("both_paths")
def test_a_boolean_mask_of_other_bytes():
    """NumPy, DLPack and Triton can make booleans whose byte is not 1."""
    batch = batch_of(3, 8, 40, ids=30)
    odd = (batch.mask.view(torch.uint8) * 255).view(torch.bool)
    assert odd.view(torch.uint8).max() == 255
    expected = ktae_advantages(*batch)
    assert expected.any()
    assert torch.equal(ktae_advantages(*batch._replace(mask=odd)), expected)
    assert torch.equal(ktae_advantages(*batch._replace(mask=odd.T.contiguous().T)), expected)
