"""KTAE for trainers that keep rollouts in Python lists: ragged token ids in, ragged advantages out.

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

from ktae.advantages import key_token_values as key_token_values_of_tensors
from ktae.advantages import ktae_advantages
from ktae.config import KTAEConfig

_Rows = Sequence[Any] | Tensor | np.ndarray


def advantages(
    token_ids: _Rows,
    masks: _Rows | None,
    rewards: _Rows,
    groups: _Rows,
    *,
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
    rollout_advantages: _Rows | None = None,
) -> list[list[float]]:
    """Token advantages A_it = (A_i + K(o_it)) * mask_it, as `ktae.ktae_advantages`.

    Args:
        token_ids: a sequence of integers for each of N rollouts (list, tuple, array or tensor), each of its own
            length, which may be 0.
        masks: for each rollout as many of 0 and 1; 1 marks the tokens the policy generated. None: it generated all.
        rewards: N outcome rewards. None or NaN marks an unscored rollout: its advantages are 0 and no table counts it.
        groups: N hashables, equal for the rollouts of one prompt: a uid, a number, a tuple.
        config: the estimator's settings.
        rollout_advantages: the N rollout advantages A_i to add to; GRPO's by default. That of an unscored rollout is
            not looked at, and may be None.

    Returns:
        A list for each rollout, as long as its token ids; 0.0 outside the mask.

    Raises:
        TypeError: an argument has an unsuitable type.
        ValueError: lengths differ or a value is out of contract; the message names the argument and the rollout.

    >>> advantages([[5, 7], [5, 9, 5]], None, [1.0, 0.0], ["question 1", "question 1"], rollout_advantages=[1, -1])
    [[1.0, 2.0], [-1.0, -2.0, -1.0]]
    """
    batch = _Batch(token_ids, masks, rewards, groups)
    rollout_B = None if rollout_advantages is None else _numbers("rollout_advantages", rollout_advantages, batch.rows)
    return batch.ragged(ktae_advantages(*batch.tensors, config=config, rollout_advantages=rollout_B))


def key_token_values(
    token_ids: _Rows,
    masks: _Rows | None,
    rewards: _Rows,
    groups: _Rows,
    *,
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
) -> list[list[float]]:
    """Key-token values K(o_it), to be added to token advantages of your own, as `ktae.key_token_values`.

    Arguments, result and errors are those of `advantages`.

    >>> key_token_values([[5, 7], [5, 9, 5]], [[1, 1], [1, 1, 0]], [1.0, 0.0], [0, 0])
    [[0.0, 1.0], [0.0, -1.0, 0.0]]
    """
    batch = _Batch(token_ids, masks, rewards, groups)
    return batch.ragged(key_token_values_of_tensors(*batch.tensors, config=config))


class _Batch:
    """The lists as tensors, padded on the right: token ids, mask, rewards, group numbers."""

    def __init__(
        self,
        token_ids: _Rows,
        masks: _Rows | None,
        rewards: _Rows,
        groups: _Rows,
    ) -> None:
        self.rows = len(token_ids)
        ids = [_row("token_ids", row, values) for row, values in enumerate(token_ids)]
        self.lengths = [len(values) for values in ids]
        if masks is None:
            flags = [torch.ones(length) for length in self.lengths]
        else:
            _check_count("masks", masks, self.rows)
            flags = [_row("masks", row, values) for row, values in enumerate(masks)]

        # The tensor functions take no empty dimension; a masked column of padding changes nothing.
        ids_BT = torch.zeros(self.rows, max([1, *self.lengths]), dtype=torch.long)
        mask_BT = torch.zeros(ids_BT.shape)
        for row, length in enumerate(self.lengths):
            if (met := len(flags[row])) != length:
                raise ValueError(
                    f"masks[{row}] must be as long as token_ids[{row}]: expected {length} entries, got {met}"
                )
            ids_BT[row, :length] = ids[row]
            mask_BT[row, :length] = flags[row]
        self.tensors = ids_BT, mask_BT, _numbers("rewards", rewards, self.rows), _numbered(groups, self.rows)

    def ragged(self, values_BT: Tensor) -> list[list[float]]:
        return [row[:length] for row, length in zip(values_BT.tolist(), self.lengths, strict=True)]


def _check_count(name: str, values: _Rows, rows: int) -> None:
    if len(values) != rows:
        raise ValueError(f"{name} must have one entry for each of the {rows} rollouts in token_ids, got {len(values)}")


def _row(name: str, row: int, values: Any) -> Tensor:
    """(T,) the token ids or the mask of one rollout."""
    try:
        tensor = torch.as_tensor(values).cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"{name}[{row}] must be a flat sequence of integers, got {values!r:.200}") from error
    if tensor.ndim != 1:
        raise ValueError(f"{name}[{row}] must be a flat sequence, got shape {tuple(tensor.shape)}")
    if name == "token_ids" and len(tensor) and (tensor.is_floating_point() or tensor.dtype == torch.bool):
        raise TypeError(f"token_ids[{row}] must hold integers, got {values!r:.200}")
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


def _numbered(groups: _Rows, rows: int) -> Tensor:
    """(N,) a number for each group. Tensors are hashed by identity, so their values are taken out first."""
    _check_count("groups", groups, rows)
    number_of: dict[Hashable, int] = {}
    numbers_B = []
    for row, group in enumerate(groups):
        label = group.item() if isinstance(group, Tensor) else group
        if label is None or not isinstance(label, Hashable) or label != label:
            raise TypeError(f"groups[{row}] must be a hashable value other than None and NaN, got {group!r:.200}")
        numbers_B.append(number_of.setdefault(label, len(number_of)))
    return torch.tensor(numbers_B, dtype=torch.long)
