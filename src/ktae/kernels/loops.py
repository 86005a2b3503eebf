"""The compiled loops: group by group, count the units, value each, write the tokens' advantages.

They know no formula of their own: tables of scores come from `ktae.scores`, the arithmetic of term frequencies, values
and hashes is that of `ktae.scores` and `ktae.units`, compiled. Units are found in a hash table, so the cost depends
neither on the vocabulary nor on the size of the ids.

Between counting and writing the output's memory holds each token's unit. What is written depends on integer counts
alone, so neither the order of the rows nor the division of the groups among threads can change a bit of it.

Shape suffixes: _B one entry a rollout, _BT one a token, _G one a group, _S one a side (0 incorrect, 1
correct), _U one a unit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from ktae import scores, units

# Columns of a unit's record. HELD and COUNT have the incorrect rollouts in their lower half, the correct ones in the
# upper.
KEY, HELD, COUNT, LAST_ROW, RECORD = 0, 1, 2, 3, 4
# What the output holds in between: nothing, a token that is counted but never valued, or a unit (from 1) + 1.
NOT_COUNTED, EXCLUDED, FIRST_UNIT = 0, 1, 2
INVALID = -1
BLOCK = 512
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio
_ZERO, _ONE, _HALF, _LOWER = np.uint64(0), np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)


class Tokens(NamedTuple):
    """Token ids and mask as they came: flat memory, and the steps from row to row and column to column."""

    ids: np.ndarray
    ids_row: int
    ids_column: int
    mask: np.ndarray
    mask_row: int
    mask_column: int
    states: np.ndarray  # empty where there are none
    states_row: int
    states_column: int
    columns: int


class Groups(NamedTuple):
    """The rows of each group; side_B is 1 for correct, 0 for incorrect and -1 for unscored rollouts."""

    rows: np.ndarray
    start_G: np.ndarray
    side_B: np.ndarray


class Settings(NamedTuple):
    """The configuration, as far as it is not in the scores."""

    context: int
    reach: int  # tokens before a token that its unit is made of; `context` of them are what it is compared within
    within: bool  # compared within a context or a state, instead of in the group
    term_frequency_weight: float
    scale: float
    centered: bool
    excluded: np.ndarray


class Space(NamedTuple):
    """What is known of the group in hand. Only the part that its distinct units need is ever touched."""

    slots: np.ndarray
    units: np.ndarray
    context_slots: np.ndarray
    contexts: np.ndarray
    context_U: np.ndarray
    value_U: np.ndarray
    row: np.ndarray  # the tokens of the rollout in hand
    found: np.ndarray  # units, contexts
    rollouts_S: np.ndarray  # (incorrect, correct)
    lengths_S: np.ndarray
    span_B: np.ndarray
    block: np.ndarray
    missing: np.ndarray  # [n_T, n_F], margins that came up and have no scores yet


class Tables(NamedTuple):
    """Scores: entry start[n_T, n_F] + a (n_F + 1) + b belongs to (a, b, n_T, n_F); start is -1 for none."""

    start: np.ndarray
    strength: np.ndarray
    cohens_h: np.ndarray
    value_without_tf: np.ndarray


# Numba's cache looks for changes in the file of the function it compiles, and in no other: the name tells the rest.
_SOURCES = (Path(module.__file__ or "").read_bytes() for module in (scores, units))
_FORMULAS = hashlib.sha256(b"".join(_SOURCES)).hexdigest()[:8]


def _compiled(function: Callable[..., Any]) -> Any:
    """Machine code, kept on disk where a place for it can be written, that runs without Python's lock."""
    function.__qualname__ += f"_{_FORMULAS}"
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        return njit(nogil=True)(function)


_joined = njit(units.joined)
_frequency = njit(scores.term_frequency)
_contrast = njit(scores.term_frequency_contrast)
_value = njit(scores.value_by(math.tanh))
_START = units.START


@_compiled
def advantages(
    tokens: Tokens,
    groups: Groups,
    first: int,
    last: int,
    counted: bool,
    settings: Settings,
    tables: Tables,
    rollout_B: np.ndarray,
    space: Space,
    index_BT: np.ndarray,
    advantage_BT: np.ndarray,
) -> int:
    """Writes the advantages of the groups [first, last); `index_BT` and `advantage_BT` are the same memory.

    Args:
        counted: the first group was counted by the call before, which stopped for scores.

    Returns:
        `last`; a group that needs the scores of the margins in `space.missing`; or INVALID at a mask that is neither 0
        nor 1, or at a negative id inside the mask.
    """
    for group in range(first, last):
        if not (counted and group == first) and not _count(tokens, groups, group, settings, space, index_BT):
            return INVALID
        if _scores_are_missing(settings, tables, space):
            return group
        _value_units(settings, tables, space)
        for place in range(groups.start_G[group], groups.start_G[group + 1]):
            row = groups.rows[place]
            begin, end = space.span_B[place - groups.start_G[group]]
            _write(index_BT[row, begin:end], advantage_BT[row, begin:end], rollout_B[row], settings, space)
    return last


@_compiled
def _count(tokens, groups, group, settings, space, index_BT):
    """Counts the group's units and writes each token's unit to `index_BT`; False at an invalid mask or id."""
    masks, ids, states = tokens.mask, tokens.ids, tokens.states
    mask_step, id_step, state_step = tokens.mask_column, tokens.ids_column, tokens.states_column
    context, reach, within = settings.context, settings.reach, settings.within
    slots, units, context_slots, contexts = space.slots, space.units, space.context_slots, space.contexts
    slots[:] = 0
    context_slots[:] = 0
    shift, context_shift = _shift(slots), _shift(context_slots)
    found = contexts_found = 0
    _clear(units, 1)
    _clear(contexts, 1)
    space.rollouts_S[:] = 0
    space.lengths_S[:] = 0
    has_states, row_tokens = len(states) > 0, space.row
    start, stop = groups.start_G[group], groups.start_G[group + 1]
    for place in range(start, stop):
        row = groups.rows[place]
        side = groups.side_B[row]
        one, mark = _ONE << np.uint64(32 * max(side, 0)), np.uint64(1 + place - start)
        begin, end, length = tokens.columns, 0, 0
        mask_at, id_at, state_at = row * tokens.mask_row, row * tokens.ids_row, row * tokens.states_row
        for t in range(tokens.columns):
            mask = masks[mask_at + t * mask_step]
            if mask == 0:
                continue
            token = np.int64(ids[id_at + t * id_step])
            if mask != 1 or token < 0:
                return False
            if side < 0:
                continue
            begin, end = min(begin, t), t + 1

            key, context_unit = np.uint64(token), 0
            if within or reach > 0:  # as in ktae.units.units
                before = _joined(_START, np.int64(states[state_at + t * state_step])) if has_states else _START
                row_tokens[length] = token
                for back in range(1, min(context, length) + 1):
                    before = _joined(before, row_tokens[length - back])
                if within:
                    context_key = np.uint64(before)
                    context_unit = _unit(context_slots, context_shift, contexts, contexts_found, context_key)
                    contexts_found = max(contexts_found, context_unit)
                    _add(contexts, context_unit, context_key, mark, one)
                    _clear(contexts, contexts_found + 1)
                for back in range(context + 1, min(reach, length) + 1):
                    before = _joined(before, row_tokens[length - back])
                key = np.uint64(_joined(before, token))
            length += 1

            unit = _unit(slots, shift, units, found, key)
            found = max(found, unit)
            _add(units, unit, key, mark, one)
            _clear(units, found + 1)
            if within:
                space.context_U[unit] = context_unit
            shown = unit + 1
            for other in settings.excluded:
                if token == other:
                    shown = EXCLUDED
            index_BT[row, t] = shown
        space.span_B[place - start, 0], space.span_B[place - start, 1] = begin, end
        if side >= 0:
            space.rollouts_S[side] += 1
            space.lengths_S[side] += length
    space.found[0], space.found[1] = found, contexts_found
    return True


@_compiled
def _shift(slots):
    """What leaves as many of the highest bits, which a multiplication mixes best, as there are slots."""
    bits = 0
    while 1 << bits < len(slots):
        bits += 1
    return np.uint64(64 - bits)


@_compiled
def _unit(slots, shift, records, found, key):
    """The unit of `key`; a new one is number `found` + 1.

    Units count from 1. Record 0 is a sentinel that holds the key looked for: empty slots need no branch of their own,
    and whether a token is new, which no processor can guess, decides nothing but a number.
    """
    records[0, KEY] = key
    last_slot = len(slots) - 1
    slot = np.int64(((key ^ (key >> _HALF)) * _MULTIPLIER) >> shift)
    unit = np.int64(slots[slot])
    while records[unit, KEY] != key:
        slot = (slot + 1) & last_slot
        unit = np.int64(slots[slot])
    unit = found + 1 if unit == 0 else unit
    slots[slot] = unit
    return unit


@_compiled
def _add(records, unit, key, mark, one):
    """One more occurrence in the rollout `mark`; the rollout itself counts once."""
    records[unit, KEY] = key
    records[unit, HELD] += one if records[unit, LAST_ROW] != mark else _ZERO
    records[unit, COUNT] += one
    records[unit, LAST_ROW] = mark


@_compiled
def _clear(records, unit):
    for column in range(RECORD):
        records[unit, column] = _ZERO


@_compiled
def _scores_are_missing(settings, tables, space):
    """Whether a margin (n_T, n_F) of the counted group has no scores; it is marked in `space.missing`."""
    if not settings.within:
        n_T, n_F = space.rollouts_S[1], space.rollouts_S[0]
        space.missing[n_T, n_F] = tables.start[n_T, n_F] < 0
        return space.missing[n_T, n_F]
    some = False
    for context in range(1, space.found[1] + 1):
        n_T, n_F = _halves(space.contexts[context, HELD])
        if tables.start[n_T, n_F] < 0:
            space.missing[n_T, n_F] = some = True
    return some


@_compiled
def _halves(packed):
    return np.int64(packed >> _HALF), np.int64(packed & _LOWER)


@_compiled
def _value_units(settings, tables, space):
    """The value of each unit, without the scale, to `space.value_U`."""
    start, strength, cohens_h, value_without_tf = tables
    units, contexts, value_U = space.units, space.contexts, space.value_U
    n_T, n_F = space.rollouts_S[1], space.rollouts_S[0]
    length_T, length_F = space.lengths_S[1], space.lengths_S[0]
    weight = settings.term_frequency_weight
    # Most units occur once in each rollout that holds them; their values are those of (a, b) alone.
    once = np.zeros((n_T + 1) * (n_F + 1))
    if not settings.within and weight != 0.0 and n_T > 0 and n_F > 0 and space.found[0] > 0:
        for a in range(n_T + 1):
            for b in range(n_F + 1):
                at = a * (n_F + 1) + b
                entry = start[n_T, n_F] + at
                tf_T, tf_F = _frequency(a, length_T, length_F), _frequency(b, length_F, length_T)
                direction = cohens_h[entry] + weight * _contrast(tf_T, tf_F)
                once[at] = _value(strength[entry], direction)
    value_U[:FIRST_UNIT] = 0.0
    for unit in range(1, space.found[0] + 1):
        a, b = _halves(units[unit, HELD])
        if settings.within:
            context = space.context_U[unit]
            n_T, n_F = _halves(contexts[context, HELD])
            length_T, length_F = _halves(contexts[context, COUNT])
        at = a * (n_F + 1) + b
        if n_T == 0 or n_F == 0:
            value = 0.0
        elif weight == 0.0:
            value = value_without_tf[start[n_T, n_F] + at]
        elif not settings.within and units[unit, COUNT] == units[unit, HELD]:
            value = once[at]
        else:
            entry = start[n_T, n_F] + at
            count_T, count_F = _halves(units[unit, COUNT])
            tf_T, tf_F = _frequency(count_T, length_T, length_F), _frequency(count_F, length_F, length_T)
            direction = cohens_h[entry] + weight * _contrast(tf_T, tf_F)
            value = _value(strength[entry], direction)
        value_U[unit + 1] = value


@_compiled
def _write(index_T, advantage_T, rollout, settings, space):
    """Replaces the units of a rollout by their advantages, which lie in the same memory."""
    value_U, block = space.value_U, space.block
    mean = _mean(index_T, value_U) if settings.centered else 0.0
    for begin in range(0, len(index_T), BLOCK):
        length = min(BLOCK, len(index_T) - begin)
        # A copy, so that the loop below reads nothing that it writes and can take several tokens at once.
        block[:length] = index_T[begin : begin + length]
        for t in range(length):
            index = block[t]
            value = np.float32(settings.scale * (value_U[index] - mean)) if index >= FIRST_UNIT else np.float32(0)
            advantage_T[begin + t] = np.float32(rollout + value) if index != NOT_COUNTED else np.float32(0)


@_compiled
def _mean(index_T, value_U):
    """Mean over the valued tokens, summed as integers in units of 2^-40: in any order, the same bits."""
    total, valued = np.int64(0), np.int64(0)
    for index in index_T:
        if index >= FIRST_UNIT:
            total += np.int64(np.rint(value_U[index] * 2.0**40))
            valued += 1
    return total / 2.0**40 / max(valued, 1)
