"""Token-level credit for trainers that keep rollouts in Python lists: ragged token ids in, ragged advantages out.

    from ktae.integrations import lists
    advantages = lists.advantages(token_ids, masks, rewards, groups)

The same numbers as `ktae.ktae_advantages` on padded tensors. docs/integrations.md shows how to wire it in.
"""

from __future__ import annotations

import numbers
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ktae.estimators import Rollouts
from ktae.integrations.credit import TokenCredit

_Rows = Sequence[Any] | Tensor | np.ndarray


def advantages(
    token_ids: _Rows,
    masks: _Rows | None,
    rewards: _Rows,
    groups: _Rows,
    rollout_advantages: _Rows | None = None,
    *,
    credit: TokenCredit | None = None,
    **optional: _Rows | None,
) -> list[list[float]]:
    """Token advantages (A_i + V_it) * mask_it, a list for each rollout, as long as its token ids; 0.0 outside the mask.

    Args:
        token_ids: integers for each of N rollouts (list, tuple, array or tensor), each of its own length, 0 included.
        masks: for each rollout as many of 0 and 1; 1 marks the tokens the policy generated. None: it generated all.
        rewards: N outcome rewards. None or NaN marks an unscored rollout: its advantages are 0 and no table counts it.
        groups: N hashables, equal for the rollouts of one prompt: a uid, a number, a tuple.
        rollout_advantages: the N rollout advantages A_i to add to; GRPO's by default. An unscored one may be None.
        credit: the estimator, made once for all batches of a run, whose traps it names (docs/metrics.md). By default
            the paper's formula, and no traps.
        **optional: `states`, `log_probs` and `entropies`, each as long as `token_ids`, for estimators that take them.

    Raises:
        TypeError, ValueError: an argument is out of contract; the message names it and the rollout.

    >>> advantages([[5, 7], [5, 9, 5]], None, [1.0, 0.0], ["question 1", "question 1"], [1, -1])
    [[1.0, 2.0], [-1.0, -2.0, -1.0]]
    """
    rollouts, value_BT = _valued((token_ids, masks, rewards, groups, rollout_advantages), credit, optional)
    return _ragged((rollouts.rollout_advantages.float()[:, None] + value_BT) * rollouts.mask, token_ids)


def values(
    token_ids: _Rows,
    masks: _Rows | None,
    rewards: _Rows,
    groups: _Rows,
    rollout_advantages: _Rows | None = None,
    *,
    credit: TokenCredit | None = None,
    **optional: _Rows | None,
) -> list[list[float]]:
    """The values V_it alone, to be added to token advantages of your own.

    Arguments, result and errors are those of `advantages`; some estimators read the rollout advantages.

    >>> values([[5, 7], [5, 9, 5]], [[1, 1], [1, 1, 0]], [1.0, 0.0], [0, 0])
    [[0.0, 1.0], [0.0, -1.0, 0.0]]
    """
    return _ragged(_valued((token_ids, masks, rewards, groups, rollout_advantages), credit, optional)[1], token_ids)


def _valued(given: tuple, credit: TokenCredit | None, optional: dict[str, _Rows | None]) -> tuple[Rollouts, Tensor]:
    """The lists as tensors, padded on the right, and their (N, T) values."""
    token_ids, masks, rewards, groups, rollout_advantages = given
    warn, credit = credit is not None, credit or TokenCredit()
    ids = [_row("token_ids", row, values) for row, values in enumerate(token_ids)]
    lengths = [len(values) for values in ids]
    rewards_B = _numbers("rewards", rewards, len(ids))
    if rollout_advantages is not None:
        rollout_advantages = _numbers("rollout_advantages", rollout_advantages, len(ids))
        for row in (~rollout_advantages.isfinite() & ~rewards_B.isnan()).nonzero().flatten().tolist():
            raise ValueError(f"rollout_advantages must be finite, got {rollout_advantages[row]} at index {row}")
        rollout_advantages = rollout_advantages.masked_fill(rewards_B.isnan(), 0.0)
    _check_count("groups", groups, len(ids))
    rollouts = Rollouts(
        _padded("token_ids", ids, lengths).long(),
        _padded("masks", [torch.ones(length) for length in lengths] if masks is None else masks, lengths),
        rewards_B,
        group_numbers(groups),
        rollout_advantages,  # pyright: ignore[reportArgumentType] (None: GRPO's)
        correct_above=credit.correct_above,
        **{name: _padded(name, rows, lengths) for name, rows in optional.items() if rows is not None},
    )
    return rollouts, credit(rollouts, warn=warn)


def group_numbers(groups: _Rows) -> Tensor:
    """(N,) a number for each group."""
    labels = [group.item() if isinstance(group, Tensor) else group for group in groups]  # tensors hash by identity
    for row, label in enumerate(labels):
        if label is None or not isinstance(label, Hashable) or label != label:
            raise TypeError(f"groups[{row}] must be a hashable value other than None and NaN, got {label!r:.200}")
    number_of = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return torch.tensor([number_of[label] for label in labels])


def _ragged(value_BT: Tensor, token_ids: _Rows) -> list[list[float]]:
    return [row[: len(ids)] for row, ids in zip(value_BT.tolist(), token_ids, strict=True)]


def _padded(name: str, rows: _Rows, lengths: Sequence[int]) -> Tensor:
    """(N, T), 0 after each rollout's end."""
    _check_count(name, rows, len(lengths))
    checked = [_row(name, row, values) for row, values in enumerate(rows)]
    for row, (values, length) in enumerate(zip(checked, lengths, strict=True)):
        if len(values) != length:
            raise ValueError(
                f"{name}[{row}] must be as long as token_ids[{row}]: expected {length} entries, got {len(values)}"
            )
    dtype = torch.float64 if any(len(values) and values.is_floating_point() for values in checked) else torch.long
    # The tensor functions take no empty dimension; a masked column of padding changes nothing.
    rows_and_one = [*(values.to(dtype) for values in checked), torch.zeros(1, dtype=dtype)]
    return pad_sequence(rows_and_one, batch_first=True)[:-1]


def _check_count(name: str, values: _Rows, rows: int) -> None:
    if len(values) != rows:
        raise ValueError(f"{name} must have one entry for each of the {rows} rollouts in token_ids, got {len(values)}")


def _row(name: str, row: int, values: Any) -> Tensor:
    """(T,) what one rollout has for each token."""
    try:
        tensor = torch.as_tensor(values).cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"{name}[{row}] must be a flat sequence of numbers, got {values!r:.200}") from error
    if tensor.ndim != 1:
        raise ValueError(f"{name}[{row}] must be a flat sequence, got shape {tuple(tensor.shape)}")
    whole = name in ("token_ids", "states")
    if whole and len(tensor) and (tensor.is_floating_point() or tensor.dtype == torch.bool):
        raise TypeError(f"{name}[{row}] must hold integers, got {values!r:.200}")
    return tensor


def _numbers(name: str, values: _Rows, rows: int) -> Tensor:
    """(N,) floats, NaN for None. The precision of NumPy's and torch's numbers is kept: see `correct_above`."""
    _check_count(name, values, rows)
    tensor = torch.from_numpy(np.asarray([_number(name, row, value) for row, value in enumerate(values)]))
    return tensor if tensor.is_floating_point() else tensor.double()


def _number(name: str, row: int, value: Any) -> Any:
    if value is None:
        return np.float16("nan")  # widens nothing
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()[()]
    if not isinstance(value, numbers.Real | np.bool_):
        raise TypeError(f"{name}[{row}] must be a number or None, got {value!r:.200}")
    return value if isinstance(value, np.generic) else float(value)
