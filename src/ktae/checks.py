"""Input checks of the public functions: each error names the argument, what was met and what was expected."""

from __future__ import annotations

import torch
from torch import Tensor

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def rewards(rewards: Tensor) -> Tensor:
    """(N,) float64 rewards; NaN marks an unscored rollout, infinity is refused."""
    _tensor("rewards", rewards, 1, (*_FLOATS, *_INTEGERS, torch.bool), "(N,)")
    rewards_B = rewards.to(torch.float64)
    if torch.isinf(rewards_B).any():
        row = int(torch.isinf(rewards_B).nonzero()[0])
        raise ValueError(
            f"rewards must be finite, or NaN for an unscored rollout; got {rewards_B[row].item()} at index {row}"
        )
    return rewards_B


def group_indices(group_ids: Tensor, rewards_B: Tensor) -> tuple[Tensor, int]:
    """(N,) group numbers 0..n-1 in ascending order of the group ids, and n."""
    _tensor("group_ids", group_ids, 1, _INTEGERS, "(N,)")
    _same_rows("group_ids", group_ids, "rewards", rewards_B)
    labels, index_B = torch.unique(group_ids.long(), return_inverse=True)
    return index_B, len(labels)


def tokens_and_mask(token_ids: Tensor, mask: Tensor, rewards_B: Tensor) -> tuple[Tensor, Tensor]:
    """(N, T) int64 token ids, non-negative inside the mask, and the (N, T) boolean mask."""
    _tensor("token_ids", token_ids, 2, _INTEGERS, "(N, T)")
    _tensor("mask", mask, 2, (torch.bool, *_INTEGERS, *_FLOATS), "(N, T)")
    if mask.shape != token_ids.shape:
        raise ValueError(f"mask must have the shape of token_ids, {tuple(token_ids.shape)}, got {tuple(mask.shape)}")
    _same_rows("token_ids", token_ids, "rewards", rewards_B)
    _same_device("mask", mask, "token_ids", token_ids)
    mask_BT = mask != 0
    if mask.dtype != torch.bool:
        stray_BT = mask_BT & (mask != 1)
        if stray_BT.any():
            row, column = stray_BT.nonzero()[0].tolist()
            raise ValueError(f"mask must hold only 0 and 1, got {mask[row, column].item()} at [{row}, {column}]")
    units_BT = token_ids.long()
    negative_BT = mask_BT & (units_BT < 0)
    if negative_BT.any():
        row, column = negative_BT.nonzero()[0].tolist()
        raise ValueError(
            f"token_ids must be >= 0 where mask is 1, got {units_BT[row, column].item()} at [{row}, {column}]"
        )
    return units_BT, mask_BT


def rollout_advantages(rollout_advantages: Tensor, rewards_B: Tensor) -> Tensor:
    """(N,) float64 rollout advantages, finite wherever the rollout is scored and 0 where it is not."""
    _tensor("rollout_advantages", rollout_advantages, 1, _FLOATS, "(N,)")
    _same_rows("rollout_advantages", rollout_advantages, "rewards", rewards_B)
    advantages_B = rollout_advantages.to(torch.float64).masked_fill(rewards_B.isnan(), 0.0)
    if not torch.isfinite(advantages_B).all():
        row = int((~torch.isfinite(advantages_B)).nonzero()[0])
        raise ValueError(
            f"rollout_advantages must be finite for scored rollouts, got {advantages_B[row].item()} at index {row}"
        )
    return advantages_B


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
