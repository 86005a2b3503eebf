"""What a run adds to its advantages: an estimator, tried out before the run, with its metrics and its warnings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor

from ktae.config import KTAEConfig
from ktae.estimators import Estimator, Rollouts, load_estimator, token_values
from ktae.estimators.key_tokens import key_tokens
from ktae.integrations.metrics import PATIENCE, Batch

logger = logging.getLogger("ktae")

States = Callable[[Mapping[str, Any]], Sequence[int]]
"""The state in which each token of a rollout was chosen, from the rollout: a mapping with `token_ids`, `mask` and what
else the trainer knows of it. As many integers as token ids."""


PRESETS = {"paper": KTAEConfig, "released": KTAEConfig.released, "recommended": KTAEConfig.recommended}


def choose(config: KTAEConfig, estimator: Estimator | str | None) -> Estimator:
    """The estimator that was asked for: key tokens with the settings of `config`, or the one given.

    Raises:
        TypeError, ValueError: there is no such estimator, `config` is no KTAEConfig, or it sets what another estimator
            than key tokens does not read.
    """
    if not isinstance(config, KTAEConfig):
        raise TypeError(
            f"ktae's settings must be a KTAEConfig, such as KTAEConfig(scale=8.0) or KTAEConfig.recommended(), "
            f"got {config!r}"
        )
    if estimator is None:
        return key_tokens(config)
    default = KTAEConfig()
    for field in fields(KTAEConfig):
        if field.name != "correct_above" and getattr(config, field.name) != getattr(default, field.name):
            raise ValueError(f"{field.name} is a setting of key tokens; estimator {estimator!r} does not read it")
    if isinstance(estimator, str):
        return load_estimator(estimator)
    if not callable(estimator):
        raise TypeError(f"estimator must be a name, an import path or a function of Rollouts, got {estimator!r}")
    return estimator


class TokenCredit:
    """The token-level credit of one run.

    Args:
        config: settings of the key tokens, and for all estimators `correct_above`.
        estimator: another estimator than key tokens: its name, its import path `package.module:function` or itself.
        gives: what the trainer has besides ids, mask, rewards and groups: some of log_probs, entropies, states.
        trainer: the trainer's name, for messages.

    After a call `metrics` has that batch's (docs/metrics.md). `needs` names what of log_probs, entropies and states the
    estimator cannot do without.

    Raises:
        TypeError, ValueError: see `choose`; on a batch of four small rollouts the estimator fails or returns something
            else than finite values that are 0 outside the mask; it needs what the trainer does not give.
    """

    metrics: dict[str, float]

    def __init__(
        self,
        config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
        estimator: Estimator | str | None = None,
        *,
        gives: Sequence[str] = (),
        trainer: str = "this trainer",
    ) -> None:
        self.estimator, self.correct_above = choose(config, estimator), config.correct_above
        self.scale = config.scale if estimator is None else None
        self.needs = () if estimator is None else needs(self.estimator, config.correct_above)
        for name in self.needs:
            if name not in gives:
                raise ValueError(f"estimator {estimator!r} needs the rollouts' {name}, which {trainer} does not give")
        self._streaks: dict[str, int] = {}
        self._named: set[str] = set()

    def __call__(self, rollouts: Rollouts, *, warn: bool = True) -> Tensor:
        """(N, T) float32, the values to add to the rollout advantages; 0 in unscored rollouts.

        Args:
            rollouts: all rollouts of a batch, whole groups.
            warn: whether to look for traps (docs/metrics.md); each is named once, in the log of the logger "ktae".
        """
        value_NT = token_values(self.estimator, rollouts).masked_fill(rollouts.rewards.isnan()[:, None], 0.0)
        batch = Batch(value_NT, rollouts, self.scale)
        self.metrics = batch.metrics()
        if warn:
            found = batch.traps()
            self._streaks = {name: self._streaks.get(name, 0) + 1 for name in found}
            for name, message in found.items():
                patience = PATIENCE.get(name, 3)
                if self._streaks[name] >= patience and name not in self._named:
                    self._named.add(name)
                    logger.warning("ktae, batch after batch: %s" if patience > 1 else "ktae: %s", message)
        return value_NT


def from_settings(
    settings: Any, name: str, *, gives: Sequence[str] = (), trainer: str
) -> tuple[TokenCredit, States | None]:
    """What the configuration of a trainer asks for.

    Args:
        settings: None, or a mapping of fields of `KTAEConfig`, `preset` ("paper", "released" or "recommended"), which
            the fields override, `estimator` (a name or an import path) and `states` (an import path).
        name: what the user calls them, such as `algorithm.ktae`.
        gives, trainer: see `TokenCredit`. With "states" among `gives` they are given if the settings name them.

    Raises:
        ValueError, TypeError: a key is unknown or a value is out of range; the message names `NAME.KEY`.
    """
    known = ["preset", "estimator", *(["states"] if "states" in gives else []), *(f.name for f in fields(KTAEConfig))]
    if not isinstance(settings, Mapping | None):
        raise TypeError(f"{name} must hold some of {', '.join(known)}; got {settings!r}")
    found = dict(settings or {})
    for key in found:
        if key not in known:
            raise ValueError(f"{name}.{key} is unknown; {name} may hold {', '.join(known)}")
    preset, estimator, states = found.pop("preset", "paper"), found.pop("estimator", None), found.pop("states", None)
    if preset not in PRESETS:
        raise ValueError(f"{name}.preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    if states is not None and ":" not in str(states):
        raise ValueError(f"{name}.states must be an import path package.module:function, got {states!r}")
    given = [field for field in gives if field != "states" or states]
    try:
        credit = TokenCredit(PRESETS[preset](**found), estimator, gives=given, trainer=trainer)
        return credit, cast(States, load_estimator(states)) if states else None
    except (TypeError, ValueError) as error:  # its message begins with the field's name
        raise type(error)(f"{name}.{error}") from error


def needs(estimator: Estimator, correct_above: float) -> tuple[str, ...]:
    """Which of log_probs, entropies and states the estimator cannot do without, found by leaving each out.

    Raises:
        ValueError, TypeError: it fails with all of them on a batch of four small rollouts; the message says how.
    """
    mask_NT = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1]])
    given = {"log_probs": -0.5 * mask_NT, "entropies": 0.25 * mask_NT, "states": torch.tensor([[0, 1, 2]] * 4)}
    token_ids_NT, group_N = torch.tensor([[1, 2, 3], [1, 4, 2], [5, 2, 0], [5, 6, 6]]), torch.tensor([7, 7, 3, 3])
    margin_N = (1.0 + abs(correct_above)) * torch.tensor([1.0, -1.0, 1.0, torch.nan], dtype=torch.float64)
    rollouts = Rollouts(token_ids_NT, mask_NT, correct_above + margin_N, group_N, correct_above=correct_above, **given)
    try:
        token_values(estimator, rollouts)
    except Exception as error:
        name = getattr(estimator, "__name__", type(estimator).__name__)
        raise ValueError(
            f"estimator {name} fails on a batch of four small rollouts: {type(error).__name__}: {error}"
        ) from error
    needed = []
    for name in given:
        try:
            token_values(estimator, replace(rollouts, **{name: None}))
        except Exception:
            needed.append(name)
    return tuple(needed)


def state_rows(states: States, rollouts: Sequence[Mapping[str, Any]], width: int) -> Tensor:
    """(N, width) int64, each rollout's states, 0 after its last token.

    Raises:
        ValueError: `states` returned something else than as many integers as token ids.
    """
    state_NT = torch.zeros(len(rollouts), width, dtype=torch.long)
    for row, rollout in enumerate(rollouts):
        length, found = len(rollout["token_ids"]), torch.as_tensor(states(rollout))
        if found.shape != (length,) or found.is_floating_point():
            raise ValueError(
                f"states must return an integer for each of the rollout's {length} tokens, got {found.tolist()!r:.200}"
            )
        state_NT[row, :length] = found
    return state_NT


def rollout_means(advantage_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """(N,) the mean of each rollout's token advantages, which is its rollout advantage where they are all equal."""
    return (advantage_NT * mask_NT).sum(dim=1) / mask_NT.sum(dim=1).clamp(min=1)


def expect(holder: Any, name: str, why: str, *allowed: Any, other_than: Any = ..., option: str | None = None) -> None:
    """Raises a ValueError if a trainer has a setting with which tokens would not get their own credit.

    Args:
        holder: what has the setting: arguments, a configuration, a trainer.
        name: the path of attributes to it, also written as an option: `--advantage-estimator`.
        why: what goes wrong otherwise.
        allowed: the values that it may have; or
        other_than: the one that it may not have.
        option: its name for the user, if that is another.
    """
    met = attrgetter(name.lstrip("-").replace("-", "_"))(holder)
    if met not in allowed if allowed else met == other_than:
        wanted = "another" if not allowed else allowed[0] if len(allowed) == 1 else f"one of {allowed}"
        raise ValueError(f"{option or name} must be {wanted} for token-level credit, got {met!r}: {why}")
