"""A batch through the compiled loops: a few groups at a time, on as many threads as torch uses.

Threads are Python's and last for one call: unlike a pool of OpenMP threads they survive a fork, and may be started from
several threads at once.

Shape suffixes: _B one entry a rollout, _BT one a token, _G one a group, _S one a side.
"""

from __future__ import annotations

import functools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ktae import checks
from ktae.config import KTAEConfig
from ktae.extras import require
from ktae.scores import cohens_h, strengths, values_without_tf

require("numba", "fast")

import numba  # noqa: E402 (after the check that names the extra)
from numba.core import event  # noqa: E402

from ktae.kernels import loops  # noqa: E402

_log = logging.getLogger(__name__)

# Tokens, padding included, that a thread takes at a time, and for which one more thread is started: a new thread may
# run on its parent's core for some milliseconds.
_CHUNK = 2**17
_WORTH_A_THREAD = 2**20


def token_advantages(
    token_ids: Tensor,
    mask: Tensor,
    states: Tensor | None,
    rollout_B: Tensor,
    correct_B: Tensor,
    scored_B: Tensor,
    group_B: Tensor,
    config: KTAEConfig,
) -> Tensor:
    """(N, T) float32 advantages, rollout plus key-token value.

    Args:
        token_ids: (N, T) integers. int32 and int64, of any strides, are read where they are.
        mask: (N, T). bool, int8, uint8, int32, int64 and float32 are read where they are.
        states: (N, T) integers or None.
        rollout_B: (N,) float64, what is added to the key-token values.
        correct_B, scored_B: (N,) bool.
        group_B: (N,) int64 numbers of groups, from 0.
        config: the estimator's settings.

    Raises:
        ValueError: the mask is neither 0 nor 1, or an id inside it is negative.
    """
    rows, columns = token_ids.shape
    order = torch.argsort(group_B, stable=True).numpy()
    start_G = np.concatenate([[0], np.cumsum(np.bincount(group_B.numpy()))])
    side_B = torch.where(scored_B, correct_B.to(torch.int8), -1).numpy()
    within = config.context > 0 or states is not None
    batch = loops.Groups(order, start_G, side_B)
    states_BT = torch.empty(0, 0, dtype=torch.int64, device="cpu") if states is None else states.long()
    tokens = loops.Tokens(*(*_flat(_readable_ids(token_ids)), *_flat(_readable_mask(mask)), *_flat(states_BT)), columns)
    advantage_BT = np.zeros((rows, columns), np.float32)
    index_BT = advantage_BT.view(np.int32)
    added_B = rollout_B.detach().numpy()
    settings = loops.Settings(
        *(config.context, max(config.context, config.ngram - 1), within),
        *(float(config.term_frequency_weight), float(config.scale), config.centered),
        excluded=np.array(config.exclude_token_ids, np.int64),
    )
    most_S = np.bincount(group_B.numpy() * 2 + (side_B == 1), minlength=2 * len(start_G) - 2).reshape(-1, 2).max(axis=0)
    largest = int(np.diff(start_G).max())
    threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined] (set by Numba when it is imported)
    chunks = _chunks(start_G * columns, min(_CHUNK, rows * columns // (4 * threads)))
    waiting = iter(chunks)
    lock = threading.Lock()

    def run(first: int, last: int, space: loops.Space, tables: _Tables) -> bool:
        done, counted = first, False
        while True:
            done = loops.advantages(
                *(tokens, batch, done, last, counted, settings, tables.tables, added_B, space, index_BT, advantage_BT)
            )
            if done in (last, loops.INVALID):
                return done == last
            counted = True
            tables.add(space.missing)

    def work() -> bool:
        space, tables = _space(largest, columns, settings.reach, within, most_S), _Tables(most_S, config)
        while True:
            with lock:
                chunk = next(waiting, None)
            if chunk is None:
                return True
            if not run(*chunk, space, tables):
                return False

    more = min(threads - 1, len(chunks) - 1, rows * columns // _WORTH_A_THREAD)
    if more == 0:
        valid = work()
    else:
        with ThreadPoolExecutor(more) as pool:
            futures = [pool.submit(work) for _ in range(more)]
            valid = all([work(), *(future.result() for future in futures)])
    if not valid:
        checks.token_values(token_ids, mask)
    return torch.from_numpy(advantage_BT)


def _readable_ids(token_ids: Tensor) -> Tensor:
    return token_ids if token_ids.dtype in (torch.int32, torch.int64) else token_ids.long()


def _readable_mask(mask: Tensor) -> Tensor:
    """The mask in a type that the loops know; 0 stays 0, 1 stays 1 and anything else stays something else."""
    if mask.dtype == torch.bool:  # made elsewhere, its bytes may be other than 0 and 1
        bytes_BT = mask.view(torch.uint8)
        return bytes_BT if bytes_BT.amax() <= 1 else (bytes_BT != 0).view(torch.uint8)
    if mask.dtype == torch.int8:
        return mask.view(torch.uint8)
    if mask.dtype in (torch.uint8, torch.int32, torch.int64, torch.float32):
        return mask.detach()
    return mask.double() if mask.is_floating_point() else mask.long()


def _flat(tensor: Tensor) -> tuple[np.ndarray, int, int]:
    """The memory from the first element to the last as one line, with the steps of rows and columns; no copy."""
    (rows, columns), (row_step, column_step) = tensor.shape, tensor.stride()
    if not tensor.numel():
        return tensor.flatten().numpy(), 0, 0
    span = 1 + (rows - 1) * row_step + (columns - 1) * column_step
    return tensor.as_strided((span,), (1,)).numpy(), row_step, column_step


def _chunks(position_G: np.ndarray, largest: int) -> list[tuple[int, int]]:
    """[first, last) of consecutive groups with no more than `largest` tokens together, or of a single group."""
    chunks, first = [], 0
    while first < len(position_G) - 1:
        last = int(np.searchsorted(position_G, position_G[first] + largest, side="right")) - 1
        last = max(last, first + 1)
        chunks.append((first, last))
        first = last
    return chunks


def _space(largest: int, columns: int, reach: int, within: bool, most_S: np.ndarray) -> loops.Space:
    """Room for the largest group; the system provides memory as it is touched."""
    units = largest * columns + 2
    contexts = units if within else 2
    slots = 1 << (2 * units if reach or within else 5 * units // 4).bit_length()  # most tokens in context are new units
    return loops.Space(
        slots=np.empty(slots, np.uint32),
        units=np.empty((units, loops.RECORD), np.uint64),
        context_slots=np.empty(slots if within else 2, np.uint32),
        contexts=np.empty((contexts, loops.RECORD), np.uint64),
        context_U=np.empty(contexts, np.uint32),
        value_U=np.empty(units + 1),
        row=np.empty(columns, np.int64),
        found=np.empty(2, np.int64),
        rollouts_S=np.empty(2, np.int64),
        lengths_S=np.empty(2, np.int64),
        span_B=np.empty((largest, 2), np.int64),
        block=np.empty(loops.BLOCK, np.uint32),
        missing=np.zeros((most_S[1] + 1, most_S[0] + 1), np.bool_),
    )


class _Tables:
    """Strength, Cohen's h and their value of every (a, b), for the margins (n_T, n_F) that have come up."""

    def __init__(self, most_S: np.ndarray, config: KTAEConfig) -> None:
        self._config = config
        self.tables = loops.Tables(np.full((most_S[1] + 1, most_S[0] + 1), -1, np.int64), *np.zeros((3, 0)))

    def add(self, missing: np.ndarray) -> None:
        """Adds the margins that are `missing`, which is cleared."""
        start, parts = self.tables.start, [np.stack(self.tables[1:])]
        known = parts[0].shape[1]
        for n_T, n_F in np.argwhere(missing).tolist():
            start[n_T, n_F] = known
            parts.append(_scores(n_T, n_F, self._config))
            known += parts[-1].shape[1]
        missing[:] = False
        self.tables = loops.Tables(start, *np.concatenate(parts, axis=1))


@functools.lru_cache(maxsize=4096)
def _scores(n_T: int, n_F: int, config: KTAEConfig) -> np.ndarray:
    of_margin = strengths(n_T, n_F, config), cohens_h(n_T, n_F), values_without_tf(n_T, n_F, config)
    return np.stack(of_margin).reshape(3, -1)


class _SaysWhenItCompiles(event.Listener):
    """Numba's event comes when it compiles the loops, and not when it reads them from its cache."""

    def on_start(self, event: event.Event) -> None:
        if event.data is not None and event.data["dispatcher"] is loops.advantages:
            _log.warning("compiling the estimator for this machine; later runs reuse the result")

    def on_end(self, event: event.Event) -> None: ...


event.register("numba:compile", _SaysWhenItCompiles())
