"""Input checks of the public functions: each error names the argument, what was met and what was expected."""

from __future__ import annotations

import torch
from torch import Tensor

from ktae.config import KTAEConfig

_INTEGERS = (
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)
_AT_ONCE = 2**20  # elements
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def config(config: KTAEConfig) -> None:
    """Refuses anything but a KTAEConfig, which has checked its own fields."""
    if not isinstance(config, KTAEConfig):
        raise TypeError(f"config must be a KTAEConfig, got {config!r}, a {type(config).__name__}")


def rewards(rewards: Tensor) -> Tensor:
    """(N,) float64 rewards; NaN marks an unscored rollout, numbers beyond float32's range are refused."""
    _tensor("rewards", rewards, 1, (*_FLOATS, *_INTEGERS, torch.bool), "(N,)")
    rewards_B = rewards.to(torch.float64)
    _in_float32_range("rewards", rewards_B.masked_fill(rewards_B.isnan(), 0.0), "or NaN for an unscored rollout")
    return rewards_B


def group_indices(group_ids: Tensor, rewards_B: Tensor) -> tuple[Tensor, int]:
    """(N,) group numbers 0..n-1 in ascending order of the group ids, and n."""
    _tensor("group_ids", group_ids, 1, _INTEGERS, "(N,)")
    _same_rows("group_ids", group_ids, "rewards", rewards_B)
    labels, index_B = torch.unique(group_ids.long(), return_inverse=True)
    return index_B, len(labels)


def tokens_and_mask(token_ids: Tensor, mask: Tensor, rewards_B: Tensor) -> tuple[Tensor, Tensor]:
    """(N, T) int64 token ids, non-negative inside the mask, and the (N, T) boolean mask."""
    token_types(token_ids, mask, rewards_B)
    token_values(token_ids, mask)
    return token_ids.long(), mask != 0


def token_types(token_ids: Tensor, mask: Tensor, rewards_B: Tensor) -> None:
    """Refuses token ids and masks of unsuitable types, shapes or devices; looks at no element."""
    _tensor("token_ids", token_ids, 2, _INTEGERS, "(N, T)")
    _tensor("mask", mask, 2, (torch.bool, *_INTEGERS, *_FLOATS), "(N, T)")
    if mask.shape != token_ids.shape:
        raise ValueError(f"mask must have the shape of token_ids, {tuple(token_ids.shape)}, got {tuple(mask.shape)}")
    _same_rows("token_ids", token_ids, "rewards", rewards_B)
    _same_device("mask", mask, "token_ids", token_ids)


def token_values(token_ids: Tensor, mask: Tensor) -> None:
    """Refuses a mask other than 0 and 1, and negative ids inside it. Some rows at a time: temporaries stay small."""
    rows_at_once = max(1, _AT_ONCE // token_ids.shape[1])
    for first in range(0, len(token_ids), rows_at_once):
        rows = slice(first, first + rows_at_once)
        ids_BT, flags_BT = token_ids[rows].long(), mask[rows]
        if flags_BT.dtype not in (torch.bool, *_FLOATS):
            flags_BT = flags_BT.long()
        mask_BT = flags_BT != 0
        stray_BT = mask_BT & (flags_BT != 1)
        if stray_BT.any():
            row, column = stray_BT.nonzero()[0].tolist()
            met = flags_BT[row, column].item()
            raise ValueError(f"mask must hold only 0 and 1, got {met} at [{first + row}, {column}]")
        negative_BT = mask_BT & (ids_BT < 0)
        if negative_BT.any():
            row, column = negative_BT.nonzero()[0].tolist()
            met = ids_BT[row, column].item()
            raise ValueError(f"token_ids must be >= 0 where mask is 1, got {met} at [{first + row}, {column}]")


def rollout_advantages(rollout_advantages: Tensor, rewards_B: Tensor) -> Tensor:
    """(N,) float64 rollout advantages, finite wherever the rollout is scored and 0 where it is not."""
    _tensor("rollout_advantages", rollout_advantages, 1, _FLOATS, "(N,)")
    _same_rows("rollout_advantages", rollout_advantages, "rewards", rewards_B)
    advantages_B = rollout_advantages.to(torch.float64).masked_fill(rewards_B.isnan(), 0.0)
    _in_float32_range("rollout_advantages", advantages_B, "for scored rollouts")
    return advantages_B


def _in_float32_range(name: str, values_B: Tensor, condition: str) -> None:
    """Results are float32: a number beyond its range would come out as infinity."""
    outside_B = ~(values_B.abs() <= torch.finfo(torch.float32).max)
    if outside_B.any():
        row = int(outside_B.nonzero()[0])
        raise ValueError(f"{name} must be finite in float32, {condition}; got {values_B[row].item()} at index {row}")


def _tensor(name: str, value: object, rank: int, dtypes: tuple[torch.dtype, ...], shape: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape {shape}, got {type(value).__name__}")
    if value.dtype not in dtypes:
        expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name} must have one of the dtypes {expected}; got {value.dtype}")
    if value.ndim != rank:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
    if value.numel() == 0:
        raise ValueError(f"{name} must have shape {shape} with no dimension of size 0, got {tuple(value.shape)}")


def _same_rows(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if len(value) != len(other):
        raise ValueError(
            f"{name} must have one row for each of the {len(other)} {other_name}, got shape {tuple(value.shape)}"
        )
    _same_device(name, value, other_name, other)


def _same_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.device != other.device:
        raise ValueError(f"{name} must be on {other_name}' device, {other.device}, got {value.device}")
