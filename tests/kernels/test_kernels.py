"""The compiled path against the tensor path, and what only it does: threads, memory read in place, hash tables."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from batches import Batch, batches, configs
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from ktae import KTAEConfig, kernels, key_token_values, ktae_advantages
from ktae.kernels import batch as compiled
from ktae.kernels import loops

TOLERANCE = 1e-6
CONFIGS = [
    KTAEConfig(),
    KTAEConfig.recommended(),
    KTAEConfig(ngram=4, centered=True),
    KTAEConfig(context=1, fisher="released", exclude_token_ids=(1, 2)),
]
IDS = ["default", "recommended", "centered", "released"]


def tensor_path(batch, config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "usable", lambda tensor: False)
        return ktae_advantages(*batch, config=config)


def zipf_batch(groups, size, columns, seed=0):
    rng = np.random.default_rng(seed)
    n = groups * size
    ids = np.minimum(rng.zipf(1.2, (n, columns)), 151_935)
    mask = np.arange(columns) < rng.integers(0, columns + 1, n)[:, None]
    rewards = rng.integers(0, 2, n).astype(np.float64)
    order = rng.permutation(n)
    return Batch(*map(torch.from_numpy, (ids, mask, rewards, np.repeat(np.arange(groups), size)[order])))


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)


@given(data=st.data(), batch=batches())
def test_tensor_path(data, batch):
    config = KTAEConfig(**data.draw(configs(batch)))
    close(ktae_advantages(*batch, config=config), tensor_path(batch, config))


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
@pytest.mark.parametrize("size", [5, 16, 65, 200])
def test_groups_of_any_size(size, config):
    batch = zipf_batch(3, size, 300)
    values = ktae_advantages(*batch, config=config)
    close(values, tensor_path(batch, config))
    assert values.unique().numel() > 20


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_rows_longer_than_a_block(config):
    """Rows are written 512 tokens at a time."""
    batch = zipf_batch(2, 6, 1300)
    assert batch.mask.sum(1).max() > 2 * loops.BLOCK
    values = ktae_advantages(*batch, config=config)
    close(values, tensor_path(batch, config))
    assert values[:, 2 * loops.BLOCK :].any()


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
@pytest.mark.parametrize("columns", [64, 100])
def test_no_id_twice_in_a_rollout(columns, config):
    """The hash table is as full as it gets; every unit occurs in one or two rollouts."""
    first = torch.arange(8)[:, None] // 2 * columns
    rewards = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    batch = Batch(first + torch.arange(columns), torch.ones(8, columns), rewards, torch.arange(8) // 4)
    close(ktae_advantages(*batch, config=config), tensor_path(batch, config))
    assert config.centered or key_token_values(*batch, config=config).any()  # all of a rollout's values are equal


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_same_bits_for_any_number_of_threads_and_any_chunks(config, monkeypatch):
    batch = zipf_batch(9, 8, 120)
    before = torch.get_num_threads()
    monkeypatch.setattr(compiled.numba.config, "NUMBA_NUM_THREADS", 8)
    monkeypatch.setattr(compiled, "_WORTH_A_THREAD", 1)
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            for chunk in (1, 2000, 2**18):
                monkeypatch.setattr(compiled, "_CHUNK", chunk)
                results.append(ktae_advantages(*batch, config=config))
    finally:
        torch.set_num_threads(before)
    assert results[0].any()
    for result in results[1:]:
        assert torch.equal(result, results[0])


@pytest.mark.parametrize("ids_dtype", [torch.int16, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.int64, torch.float32, torch.bfloat16], ids=str)
def test_types_and_strides(ids_dtype, mask_dtype):
    """Slices, transposes and expanded rows are read where they lie."""
    batch = zipf_batch(2, 6, 40)
    ids, mask = (batch.token_ids % 50).to(ids_dtype), batch.mask.to(mask_dtype)
    expected = key_token_values(ids.long(), batch.mask, *batch[2:])
    assert expected.any()
    wide = torch.zeros(24, 95, dtype=ids_dtype)
    wide[::2, 10:90:2] = ids
    for changed in (wide[::2, 10:90:2], ids.T.contiguous().T):
        assert torch.equal(key_token_values(changed, mask.T.contiguous().T, *batch[2:]), expected)
    same = ids[:1].expand(12, 40)
    assert torch.equal(key_token_values(same, mask, *batch[2:]), key_token_values(same.contiguous(), mask, *batch[2:]))


def test_ids_and_mask_are_not_copied():
    ids, mask = torch.zeros(4, 6, dtype=torch.int32), torch.ones(4, 6, dtype=torch.bool)
    for tensor, readable in ((ids, compiled._readable_ids(ids)), (mask, compiled._readable_mask(mask))):
        flat, row_step, column_step = compiled._flat(readable)
        assert flat.ctypes.data == tensor.data_ptr()
        assert (row_step, column_step) == tensor.stride()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), context=st.integers(1, 6))
def test_contexts_are_told_apart_by_every_token_in_them(seed, context):
    """Few ids in long rows: many contexts that differ in one place, or hold the same tokens in another order."""
    rng = np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(0, 3, (8, 60)))
    batch = Batch(ids, torch.ones_like(ids).bool(), torch.arange(8) % 2.0, torch.zeros(8, dtype=torch.int64))
    config = KTAEConfig(context=context, term_frequency_weight=0.0)
    close(ktae_advantages(*batch, config=config), tensor_path(batch, config))


def test_bad_values_are_found_in_unscored_rollouts_too():
    batch = zipf_batch(2, 4, 10)
    batch.rewards[3] = float("nan")
    batch.mask[3, 4] = True
    batch.token_ids[3, 4] = -7
    with pytest.raises(ValueError, match=r"token_ids must be >= 0 where mask is 1, got -7 at \[3, 4\]"):
        ktae_advantages(*batch)


def test_without_numba_the_tensor_path_is_used():
    script = (
        "import sys, torch, ktae\n"
        "sys.modules['numba'] = None\n"
        "ids = torch.tensor([[5, 7], [5, 9]])\n"
        "rewards, groups = torch.tensor([1.0, 0.0]), torch.tensor([0, 0])\n"
        "print(ktae.key_token_values(ids, torch.ones_like(ids), rewards, groups).tolist())\n"
        "print('ktae.kernels.batch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[[0.0, 1.0], [0.0, -1.0]]", "False"]
    assert done.stderr == ""


@pytest.mark.slow
def test_compiling_is_said_when_numba_compiles_and_at_no_other_time(tmp_path):
    script = (
        "import logging, torch, ktae\n"
        "logging.basicConfig()\n"
        "ids = torch.tensor([[5, 7], [5, 9]])\n"
        "ktae.key_token_values(ids, torch.ones_like(ids), torch.tensor([1.0, 0.0]), torch.tensor([0, 0]))\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        ).stderr
        for _ in range(2)
    ]
    assert "compiling the estimator for this machine" in said[0]
    assert said[1] == ""
