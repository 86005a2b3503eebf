"""The compiled path against the tensor path, and what only it does: threads, memory read in place, hash tables."""

import os
import subprocess
import sys

import pytest
import torch
from batches import Batch, batch_of, of_every_kind

pytest.importorskip("numba")

from ktae import kernels, key_token_values, ktae_advantages
from ktae.kernels import batch as compiled
from ktae.kernels import loops


def tensor_path(batch, config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "usable", lambda tensor: False)
        return ktae_advantages(*batch, config=config)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@of_every_kind
@pytest.mark.parametrize(("groups", "size", "columns"), [*((3, size, 300) for size in (5, 16, 65, 200)), (2, 6, 1300)])
def test_large_groups_and_rows_longer_than_a_block(groups, size, columns, config):
    """Rows are written 512 tokens at a time."""
    batch = batch_of(groups, size, columns, ids=50)
    values = ktae_advantages(*batch, config=config)
    close(values, tensor_path(batch, config))
    assert values[:, min(2 * loops.BLOCK, columns // 2) :].unique().numel() > 20


@of_every_kind
@pytest.mark.parametrize("columns", [64, 100])
def test_no_id_twice_in_a_rollout(columns, config):
    """The hash table is as full as it gets; every unit occurs in one or two rollouts."""
    first = torch.arange(8)[:, None] // 2 * columns
    rewards = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    batch = Batch(first + torch.arange(columns), torch.ones(8, columns), rewards, torch.arange(8) // 4)
    close(ktae_advantages(*batch, config=config), tensor_path(batch, config))
    assert config.centered or key_token_values(*batch, config=config).any()  # all of a rollout's values are equal


@of_every_kind
def test_same_bits_for_any_number_of_threads_and_any_chunks(config, monkeypatch):
    batch = batch_of(9, 8, 120)
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


def test_ids_and_mask_are_not_copied():
    ids, mask = torch.zeros(4, 6, dtype=torch.int32), torch.ones(4, 6, dtype=torch.bool)
    for tensor, readable in ((ids, compiled._readable_ids(ids)), (mask, compiled._readable_mask(mask))):
        flat, row_step, column_step = compiled._flat(readable)
        assert flat.ctypes.data == tensor.data_ptr()
        assert (row_step, column_step) == tensor.stride()


def test_bad_values_are_found_in_unscored_rollouts_too():
    batch = batch_of(2, 4, 10)
    batch.rewards[3] = float("nan")
    batch.mask[3, 4] = True
    batch.token_ids[3, 4] = -7
    with pytest.raises(ValueError, match=r"token_ids must be >= 0 where mask is 1, got -7 at \[3, 4\]"):
        ktae_advantages(*batch)


BATCH = """
import logging, sys, torch, ktae
ids = torch.tensor([[5, 7], [5, 9]])
batch = ids, torch.ones_like(ids), torch.tensor([1.0, 0.0]), torch.tensor([0, 0])
"""


def in_a_process(code, **environment):
    """What a script prints, and what it says on stderr."""
    command = [sys.executable, "-c", BATCH + code]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_torch_and_numpy_are_enough():
    optional = ("numba", "pandas", "pyarrow", "matplotlib", "rich", "transformers", "regex", "trl", "datasets")
    code = f"""
sys.modules.update(dict.fromkeys({optional}))
print(ktae.key_token_values(*batch).tolist(), "ktae.kernels.batch" in sys.modules)
print(len(ktae.explain(*batch).rows()))
try: import ktae.integrations.trl
except ImportError as error: print(error)
"""
    printed, complaints = in_a_process(code, PYTHONWARNINGS="error")
    assert printed.startswith("[[0.0, 1.0], [0.0, -1.0]] False\n3\n")
    assert 'pip install "ktae[train]"' in printed
    assert complaints == ""


@pytest.mark.slow
def test_compiling_is_said_when_numba_compiles_and_at_no_other_time(tmp_path):
    code = "logging.basicConfig()\nktae.key_token_values(*batch)"
    (_, first), (_, second) = (in_a_process(code, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert "compiling the estimator for this machine" in first
    assert second == ""
