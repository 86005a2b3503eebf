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
    """(N,) float64 rewards on the CPU; NaN marks an unscored rollout, numbers beyond float32's range are refused."""
    _tensor("rewards", rewards, 1, (*_FLOATS, *_INTEGERS, torch.bool), "(N,)")
    rewards_B = rewards.detach().cpu().double()  # some devices have no float64
    _in_float32_range("rewards", rewards_B.masked_fill(rewards_B.isnan(), 0.0), "or NaN for an unscored rollout")
    return rewards_B


def on_host(rewards: Tensor, group_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Both on the CPU: they are small, and what is worked out from them decides what the device does."""
    _tensor("rewards", rewards, 1, (*_FLOATS, *_INTEGERS, torch.bool), "(N,)")
    _tensor("group_ids", group_ids, 1, _INTEGERS, "(N,)")
    _same_rows("group_ids", group_ids, "rewards", rewards)
    return rewards.cpu(), group_ids.cpu()


def group_indices(group_ids: Tensor, rewards: Tensor) -> Tensor:
    """(N,) group numbers 0..n-1, in ascending order of the group ids, on the CPU."""
    _tensor("group_ids", group_ids, 1, _INTEGERS, "(N,)")
    _same_rows("group_ids", group_ids, "rewards", rewards)
    return torch.unique(group_ids.cpu().long(), return_inverse=True)[1]


def token_types(token_ids: Tensor, mask: Tensor, rewards: Tensor) -> None:
    """Refuses token ids and masks of unsuitable types, shapes or devices; looks at no element."""
    _tensor("token_ids", token_ids, 2, _INTEGERS, "(N, T)")
    _tensor("mask", mask, 2, (torch.bool, *_INTEGERS, *_FLOATS), "(N, T)")
    if mask.shape != token_ids.shape:
        raise ValueError(f"mask must have the shape of token_ids, {tuple(token_ids.shape)}, got {tuple(mask.shape)}")
    _same_rows("token_ids", token_ids, "rewards", rewards)
    _same_device("mask", mask, "token_ids", token_ids)


def token_values(token_ids: Tensor, mask: Tensor) -> Tensor:
    """(N, T) bool mask. Refuses a mask other than 0 and 1, and negative ids inside it."""
    if mask.dtype == torch.bool:  # made elsewhere, its bytes may be other than 0 and 1
        bytes_BT = mask.view(torch.uint8)
        mask_BT = mask if bytes_BT.amax() <= 1 else bytes_BT != 0
    else:
        mask_BT = mask != 0
        stray_BT = mask_BT & (mask != 1)
        if stray_BT.any():
            row, column = stray_BT.nonzero()[0].tolist()
            raise ValueError(f"mask must hold only 0 and 1, got {mask[row, column].item()} at [{row}, {column}]")
    ids_BT = token_ids if token_ids.dtype in (torch.int32, torch.int64) else token_ids.long()
    if ids_BT.amin() < 0 and (mask_BT & (ids_BT < 0)).any():
        row, column = (mask_BT & (ids_BT < 0)).nonzero()[0].tolist()
        met = ids_BT[row, column].item()
        raise ValueError(f"token_ids must be >= 0 where mask is 1, got {met} at [{row}, {column}]")
    return mask_BT


def states(states: Tensor | None, token_ids: Tensor) -> None:
    """Refuses states that are not integers of the token ids' shape and device."""
    if states is not None:
        _tensor("states", states, 2, _INTEGERS, "(N, T)")
        if states.shape != token_ids.shape:
            raise ValueError(
                f"states must have the shape of token_ids, {tuple(token_ids.shape)}, got {tuple(states.shape)}"
            )
        _same_device("states", states, "token_ids", token_ids)


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 on devices that have no float64 (Apple's MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


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
