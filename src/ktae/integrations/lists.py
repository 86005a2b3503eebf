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

from ktae.config import KTAEConfig
from ktae.estimators import Estimator, Rollouts, token_values
from ktae.integrations.credit import TokenCredit, choose

_Rows = Sequence[Any] | Tensor | np.ndarray


def advantages(
    token_ids: _Rows,
    masks: _Rows | None,
    rewards: _Rows,
    groups: _Rows,
    *,
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
    estimator: Estimator | str | None = None,
    rollout_advantages: _Rows | None = None,
    **optional: _Rows | None,
) -> list[list[float]]:
    """Token advantages (A_i + V_it) * mask_it; V_it are key-token values if no other estimator is named.

    Args:
        token_ids: a sequence of integers for each of N rollouts (list, tuple, array or tensor), each of its own
            length, which may be 0.
        masks: for each rollout as many of 0 and 1; 1 marks the tokens the policy generated. None: it generated all.
        rewards: N outcome rewards. None or NaN marks an unscored rollout: its advantages are 0 and no table counts it.
        groups: N hashables, equal for the rollouts of one prompt: a uid, a number, a tuple.
        config: the settings of the key tokens; for another estimator its `correct_above` alone.
        estimator: an estimator's name, a function of `ktae.estimators.Rollouts` or its import path.
        rollout_advantages: the N rollout advantages A_i to add to; GRPO's by default. That of an unscored rollout is
            not looked at, and may be None.
        **optional: `states`, `log_probs` and `entropies`, each as long as `token_ids`, for estimators that take them.

    Returns:
        A list for each rollout, as long as its token ids; 0.0 outside the mask.

    Raises:
        TypeError: an argument has an unsuitable type.
        ValueError: lengths differ or a value is out of contract; the message names the argument and the rollout.

    >>> advantages([[5, 7], [5, 9, 5]], None, [1.0, 0.0], ["question 1", "question 1"], rollout_advantages=[1, -1])
    [[1.0, 2.0], [-1.0, -2.0, -1.0]]
    """
    given = token_ids, masks, rewards, groups, rollout_advantages
    batch = Batch(*given, correct_above=config.correct_above, **optional)
    rollouts = batch.rollouts
    value_BT = token_values(choose(config, estimator), rollouts)
    return batch.ragged((rollouts.rollout_advantages.float()[:, None] + value_BT) * rollouts.mask)


def values(
    token_ids: _Rows,
    masks: _Rows | None,
    rewards: _Rows,
    groups: _Rows,
    *,
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
    estimator: Estimator | str | None = None,
    **optional: _Rows | None,
) -> list[list[float]]:
    """The values V_it alone, to be added to token advantages of your own.

    Arguments, result and errors are those of `advantages`.

    >>> values([[5, 7], [5, 9, 5]], [[1, 1], [1, 1, 0]], [1.0, 0.0], [0, 0])
    [[0.0, 1.0], [0.0, -1.0, 0.0]]
    """
    batch = Batch(token_ids, masks, rewards, groups, correct_above=config.correct_above, **optional)
    return batch.ragged(token_values(choose(config, estimator), batch.rollouts))


def of_run(credit: TokenCredit, *rollouts: Any, **optional: _Rows | None) -> list[list[float]]:
    """`values` of one batch of a run, with its warnings, for the adapters. Arguments as those of `Batch`."""
    batch = Batch(*rollouts, correct_above=credit.correct_above, **optional)
    return batch.ragged(credit(batch.rollouts))


class Batch:
    """The lists as `Rollouts`, padded on the right, and the way back. Arguments as those of `advantages`."""

    def __init__(
        self,
        token_ids: _Rows,
        masks: _Rows | None,
        rewards: _Rows,
        groups: _Rows,
        rollout_advantages: _Rows | None = None,
        *,
        correct_above: float = 0.0,
        **optional: _Rows | None,
    ) -> None:
        ids = [_row("token_ids", row, values) for row, values in enumerate(token_ids)]
        self.lengths = [len(values) for values in ids]
        rewards_B = _numbers("rewards", rewards, len(ids))
        if rollout_advantages is not None:
            rollout_advantages = _numbers("rollout_advantages", rollout_advantages, len(ids))
            for row in (~rollout_advantages.isfinite() & ~rewards_B.isnan()).nonzero().flatten().tolist():
                raise ValueError(f"rollout_advantages must be finite, got {rollout_advantages[row]} at index {row}")
            rollout_advantages = rollout_advantages.masked_fill(rewards_B.isnan(), 0.0)
        self.rollouts = Rollouts(
            self._padded("token_ids", ids).long(),
            self._padded("masks", [torch.ones(length) for length in self.lengths] if masks is None else masks),
            rewards_B,
            _numbered(groups, len(ids)),
            rollout_advantages,  # pyright: ignore[reportArgumentType] (None: GRPO's)
            correct_above=correct_above,
            **{name: self._padded(name, rows) for name, rows in optional.items() if rows is not None},
        )

    def _padded(self, name: str, rows: _Rows) -> Tensor:
        """(N, T), 0 after each rollout's end."""
        _check_count(name, rows, len(self.lengths))
        checked = [_row(name, row, values) for row, values in enumerate(rows)]
        dtype = torch.float64 if any(len(values) and values.is_floating_point() for values in checked) else torch.long
        # The tensor functions take no empty dimension; a masked column of padding changes nothing.
        padded_BT = torch.zeros(len(checked), max([1, *self.lengths]), dtype=dtype)
        for row, (values, length) in enumerate(zip(checked, self.lengths, strict=True)):
            if len(values) != length:
                raise ValueError(
                    f"{name}[{row}] must be as long as token_ids[{row}]: expected {length} entries, got {len(values)}"
                )
            padded_BT[row, :length] = values
        return padded_BT

    def ragged(self, values_BT: Tensor) -> list[list[float]]:
        """As long as the token ids; 0 in unscored rollouts."""
        values_BT = values_BT.masked_fill(self.rollouts.rewards.isnan()[:, None], 0.0)
        return [row[:length] for row, length in zip(values_BT.tolist(), self.lengths, strict=True)]


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
