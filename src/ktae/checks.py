"""Input checks of the public functions: each error names the argument, what was met and what was expected."""

from __future__ import annotations

import torch
from torch import Tensor

from ktae.config import KTAEConfig

_INTEGERS = (
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)
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


def on_host(rewards: Tensor, group_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Both on the CPU: they are small, and what is worked out from them decides what the device does."""
    _tensor("rewards", rewards, 1, (*_FLOATS, *_INTEGERS, torch.bool), "(N,)")
    _tensor("group_ids", group_ids, 1, _INTEGERS, "(N,)")
    _same_rows("group_ids", group_ids, "rewards", rewards)
    return rewards.cpu(), group_ids.cpu()


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


def token_types(token_ids: Tensor, mask: Tensor, rewards: Tensor) -> None:
    """Refuses token ids and masks of unsuitable types, shapes or devices; looks at no element."""
    _tensor("token_ids", token_ids, 2, _INTEGERS, "(N, T)")
    _tensor("mask", mask, 2, (torch.bool, *_INTEGERS, *_FLOATS), "(N, T)")
    if mask.shape != token_ids.shape:
        raise ValueError(f"mask must have the shape of token_ids, {tuple(token_ids.shape)}, got {tuple(mask.shape)}")
    _same_rows("token_ids", token_ids, "rewards", rewards)
    _same_device("mask", mask, "token_ids", token_ids)


def token_values(token_ids: Tensor, mask: Tensor) -> Tensor:
    """Refuses a mask other than 0 and 1, and negative ids inside it. Waits for the device once.

    Returns:
        (N,) int64 on the CPU, how many tokens each row has inside the mask.
    """
    ids_BT, mask_BT = int32_or_int64(token_ids), mask != 0
    length_B = mask_BT.sum(dim=1, dtype=torch.int32)
    stray_B = (mask_BT & (mask != 1)).any(dim=1)
    negative_B = (mask_BT & (ids_BT < 0)).any(dim=1)
    length_B, stray_B, negative_B = torch.stack([length_B, stray_B.int(), negative_B.int()]).cpu()
    if stray_B.any():
        row = int(stray_B.nonzero()[0])
        column = int((mask_BT[row] & (mask[row] != 1)).nonzero()[0])
        raise ValueError(f"mask must hold only 0 and 1, got {mask[row, column].item()} at [{row}, {column}]")
    if negative_B.any():
        row = int(negative_B.nonzero()[0])
        column = int((mask_BT[row] & (ids_BT[row] < 0)).nonzero()[0])
        met = ids_BT[row, column].item()
        raise ValueError(f"token_ids must be >= 0 where mask is 1, got {met} at [{row}, {column}]")
    return length_B.long()


def int32_or_int64(token_ids: Tensor) -> Tensor:
    """Token ids of the two usual types as they are, others as int64."""
    return token_ids if token_ids.dtype in (torch.int32, torch.int64) else token_ids.long()


def rollout_advantages(rollout_advantages: Tensor, rewards: Tensor) -> Tensor:
    """(N,) float64 rollout advantages on the CPU, finite wherever the rollout is scored and 0 where it is not."""
    _tensor("rollout_advantages", rollout_advantages, 1, _FLOATS, "(N,)")
    _same_rows("rollout_advantages", rollout_advantages, "rewards", rewards)
    advantages_B = rollout_advantages.detach().cpu().double().masked_fill(rewards.cpu().isnan(), 0.0)
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
