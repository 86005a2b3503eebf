"""The compiled loops: count the units of a range of groups, then write their tokens' advantages.

Units are found in an open-addressing hash table that grows with the group's distinct units, so the cost depends
neither on the vocabulary nor on the size of the ids. A single token is its own key; a token in context has a 64-bit
hash of itself and the tokens before it, rolled along the row. Two different keys of a group are the same number with a
probability of about n^2 / 2^65, n being how many there are.

Between the two passes the output's memory holds each token's unit. What is written depends on integer counts alone,
so neither the order of the rows nor the division of the groups among threads can change a bit of it.

Shape suffixes: _B one entry a rollout, _BT one a token, _G one a group, _GS one a group and side (0 incorrect,
1 correct).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from ktae.direction import BM25_B, BM25_K1, RATIO_EPS

# Columns of a unit's record. HELD and COUNT have one column for each side.
LAST_ROW, HELD, COUNT, CONTEXT, SHOWN, RECORD = 0, 1, 3, 5, 6, 8
# What the output holds between the passes: nothing, a token that is counted but never valued, or a unit.
NOT_COUNTED, EXCLUDED, FIRST_UNIT = 0, 1, 2
SMALLEST_TABLE_BITS = 10
# Odd multipliers of well-mixed bits (splitmix64's); the tokens before a rollout's first one count as all ones.
_STEP, _MIX = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BEFORE_THE_FIRST = np.uint64(0xFFFFFFFFFFFFFFFF)
_ONE, _HALF = np.uint64(1), np.uint64(32)


class Tokens(NamedTuple):
    """Token ids and mask as they came: flat memory, and the steps from row to row and column to column."""

    ids: np.ndarray
    ids_row: int
    ids_column: int
    mask: np.ndarray
    mask_row: int
    mask_column: int
    columns: int


class Groups(NamedTuple):
    """The rows of each group; side_B is 1 for correct, 0 for incorrect and -1 for unscored rollouts."""

    rows: np.ndarray
    start_G: np.ndarray
    side_B: np.ndarray


class Space(NamedTuple):
    """Working memory of one thread; only the part that a group's distinct units need is ever touched."""

    slots: np.ndarray
    keys: np.ndarray
    units: np.ndarray
    context_slots: np.ndarray
    context_keys: np.ndarray
    contexts: np.ndarray
    units_G: np.ndarray
    rollouts_GS: np.ndarray
    lengths_GS: np.ndarray
    span_B: np.ndarray
    margin_seen: np.ndarray


class Scores(NamedTuple):
    """Look-up tables: entry start[n_T, n_F] + a (n_F + 1) + b belongs to (a, b, n_T, n_F)."""

    start: np.ndarray
    strength: np.ndarray
    cohen: np.ndarray
    value_without_tf: np.ndarray


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Machine code, kept on disk where a place for it can be written, that runs without Python's lock."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        return njit(nogil=True)(function)


@_compiled
def count(
    tokens: Tokens,
    groups: Groups,
    first: int,
    last: int,
    context: int,
    within: bool,
    excluded: np.ndarray,
    index_BT: np.ndarray,
    space: Space,
) -> bool:
    """Counts the units of groups [first, last) into `space` and writes each token's unit to `index_BT`.

    Returns:
        False at a mask that is neither 0 nor 1, or at a negative id inside the mask; nothing is complete then.
    """
    for group in range(first, last):
        if not _count_group(tokens, groups, first, group, context, within, excluded, index_BT, space):
            return False
    return True


@_compiled
def _count_group(tokens, groups, first, group, context, within, excluded, index_BT, space):
    columns, masks, ids = tokens.columns, tokens.mask, tokens.ids
    mask_step, id_step = tokens.mask_column, tokens.ids_column
    offset = (groups.start_G[group] - groups.start_G[first]) * columns
    keys, units = space.keys[offset:], space.units[offset:]
    context_keys = space.context_keys[offset if within else 0 :]
    contexts = space.contexts[offset if within else 0 :]
    slots, context_slots = space.slots, space.context_slots
    bits = context_bits = SMALLEST_TABLE_BITS
    slots[: 1 << bits] = 0
    context_slots[: 1 << bits] = 0
    units_found = contexts_found = 0
    rollouts_S, lengths_S = space.rollouts_GS[group - first], space.lengths_GS[group - first]
    rollouts_S[:] = 0
    lengths_S[:] = 0
    window = np.empty(context + 1, np.uint64)
    leaving_weight = _ONE
    for _ in range(context):
        leaving_weight *= _STEP

    for place in range(groups.start_G[group], groups.start_G[group + 1]):
        row = groups.rows[place]
        side = groups.side_B[row]
        begin, end, length = columns, 0, 0
        if side >= 0:
            rollouts_S[side] += 1
        before = np.uint64(0)
        for back in range(context):
            window[back] = _mixed(_BEFORE_THE_FIRST)
            before = before * _STEP + window[back]
        oldest = 0
        mask_at, id_at = row * tokens.mask_row, row * tokens.ids_row
        for t in range(columns):
            mask = masks[mask_at + t * mask_step]
            if mask == 0:
                continue
            token = np.int64(ids[id_at + t * id_step])
            if mask != 1 or token < 0:
                return False
            if side < 0:
                continue
            begin, end, length = min(begin, t), t + 1, length + 1

            key = np.uint64(token)
            context_index = 0
            if context > 0:
                if within:
                    slot = _find(context_slots, context_bits, context_keys, before)
                    context_index = context_slots[slot] - 1
                    if context_index < 0:
                        context_index = contexts_found
                        contexts_found += 1
                        context_slots[slot] = contexts_found
                        context_keys[context_index] = before
                        _clear(contexts, context_index)
                        if contexts_found << 1 > 1 << context_bits:
                            context_bits = _grown(context_slots, context_bits, context_keys, contexts_found)
                    _add(contexts, context_index, row, side)
                token_hash = _mixed(key)
                key = before * _STEP + token_hash
                before = key - window[oldest] * leaving_weight
                window[oldest] = token_hash
                oldest = oldest + 1 if oldest + 1 < context else 0

            slot = _find(slots, bits, keys, key)
            unit = slots[slot] - 1
            if unit < 0:
                unit = units_found
                units_found += 1
                slots[slot] = units_found
                keys[unit] = key
                _clear(units, unit)
                units[unit, CONTEXT] = context_index
                units[unit, SHOWN] = FIRST_UNIT + unit
                for other in excluded:
                    if token == other:
                        units[unit, SHOWN] = EXCLUDED
                if units_found << 1 > 1 << bits:
                    bits = _grown(slots, bits, keys, units_found)
            _add(units, unit, row, side)
            index_BT[row, t] = units[unit, SHOWN]
        space.span_B[place - groups.start_G[first], 0] = begin
        space.span_B[place - groups.start_G[first], 1] = end
        if side >= 0:
            lengths_S[side] += length

    space.units_G[group - first] = units_found
    if within:
        for context_index in range(contexts_found):
            space.margin_seen[contexts[context_index, HELD + 1], contexts[context_index, HELD]] = 1
    else:
        space.margin_seen[rollouts_S[1], rollouts_S[0]] = 1
    return True


@_compiled
def _mixed(x):
    """A bijection of 64-bit integers that spreads every bit."""
    x = (x ^ (x >> np.uint64(31))) * _MIX
    return x ^ (x >> np.uint64(29))


@_compiled
def _find(slots, bits, keys, key):
    """Where `key` is in the table of 2^bits slots, or the empty slot where it belongs."""
    last_slot = (1 << bits) - 1
    slot = np.int64(((key ^ (key >> _HALF)) * _STEP) >> np.uint64(64 - bits))
    while slots[slot] != 0 and keys[slots[slot] - 1] != key:
        slot = (slot + 1) & last_slot
    return slot


@_compiled
def _grown(slots, bits, keys, found):
    """Spreads the table over twice as many slots; returns the new number of bits."""
    bits += 1
    slots[: 1 << bits] = 0
    for index in range(found):
        slots[_find(slots, bits, keys, keys[index])] = index + 1
    return bits


@_compiled
def _clear(units, unit):
    for column in range(CONTEXT):
        units[unit, column] = 0
    units[unit, LAST_ROW] = -1


@_compiled
def _add(units, unit, row, side):
    """One more occurrence in a rollout; the rollout itself counts once. No branch: it would often be guessed wrong."""
    units[unit, HELD + side] += np.int32(units[unit, LAST_ROW] != row)
    units[unit, LAST_ROW] = row
    units[unit, COUNT + side] += 1


@_compiled
def write(
    groups: Groups,
    first: int,
    last: int,
    within: bool,
    term_frequency_weight: float,
    scale: float,
    centered: bool,
    rollout_B: np.ndarray,
    scores: Scores,
    space: Space,
    index_BT: np.ndarray,
    advantage_BT: np.ndarray,
) -> None:
    """Replaces each token's unit by its advantage; `index_BT` and `advantage_BT` are the same memory."""
    columns = index_BT.shape[1]
    units, contexts = space.units, space.contexts
    start, strength, cohen, value_without_tf = scores.start, scores.strength, scores.cohen, scores.value_without_tf
    for group in range(first, last):
        offset = (groups.start_G[group] - groups.start_G[first]) * columns
        found = space.units_G[group - first]
        n_T, n_F = space.rollouts_GS[group - first, 1], space.rollouts_GS[group - first, 0]
        length_T, length_F = space.lengths_GS[group - first, 1], space.lengths_GS[group - first, 0]
        value_U = np.zeros(FIRST_UNIT + found)
        for unit in range(offset, offset + found):
            if within:
                context = offset + units[unit, CONTEXT]
                n_T, n_F = np.int64(contexts[context, HELD + 1]), np.int64(contexts[context, HELD])
                length_T, length_F = np.int64(contexts[context, COUNT + 1]), np.int64(contexts[context, COUNT])
            if n_T == 0 or n_F == 0:
                continue
            entry = start[n_T, n_F] + units[unit, HELD + 1] * (n_F + 1) + units[unit, HELD]
            if term_frequency_weight == 0.0:
                value = value_without_tf[entry]
            else:
                contrast = _contrast(units[unit, COUNT + 1], units[unit, COUNT], length_T, length_F)
                value = math.tanh(strength[entry] * (cohen[entry] + term_frequency_weight * contrast) / 2)
            value_U[FIRST_UNIT + unit - offset] = value
        for place in range(groups.start_G[group], groups.start_G[group + 1]):
            row = groups.rows[place]
            begin, end = space.span_B[place - groups.start_G[first]]
            mean = _mean(index_BT[row, begin:end], value_U) if centered else 0.0
            for t in range(begin, end):
                index = index_BT[row, t]
                if index != NOT_COUNTED:
                    value = value_U[index] - mean if index >= FIRST_UNIT else 0.0
                    advantage_BT[row, t] = rollout_B[row] + np.float32(scale * value)


@_compiled
def _contrast(count_T, count_F, length_T, length_F):
    """As in `ktae.direction.term_frequency_contrast`."""
    average = (length_T + length_F) / 2
    tf_T = _term_frequency(count_T, length_T, average)
    tf_F = _term_frequency(count_F, length_F, average)
    return tf_T / (tf_F + RATIO_EPS) - tf_F / (tf_T + RATIO_EPS)


@_compiled
def _term_frequency(count, length, average):
    f = count / max(length, 1)
    return f * (BM25_K1 + 1) / (f + BM25_K1 * (1 - BM25_B + BM25_B * length / average))


@_compiled
def _mean(index_T, value_U):
    """Mean over the valued tokens, summed as integers in units of 2^-40: in any order, the same bits."""
    total, valued = 0, 0
    for index in index_T:
        if index >= FIRST_UNIT:
            total += np.int64(np.rint(value_U[index] * 2.0**40))
            valued += 1
    return total / 2.0**40 / max(valued, 1)
