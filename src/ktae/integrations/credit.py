"""What a run adds to its advantages: an estimator, tried out before the run, with its metrics and its warnings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from ktae.config import KTAEConfig
from ktae.estimators import Estimator, Rollouts, load_estimator, token_values
from ktae.estimators.key_tokens import key_tokens
from ktae.extras import load_function
from ktae.integrations.metrics import measure, traps

logger = logging.getLogger("ktae")
_PATIENCE = 3  # batches in a row that a trap must show in before it is named

States = Callable[[Mapping[str, Any]], Sequence[int]]
"""The state in which each token of a rollout was chosen, from the rollout: a mapping with `token_ids`, `mask` and what
else the trainer knows of it. As many integers as token ids."""

PRESETS = {"paper": KTAEConfig, "released": KTAEConfig.released, "recommended": KTAEConfig.recommended}


class TokenCredit:
    """The token-level credit of one run.

    Args:
        estimator: settings of the key tokens, or another estimator: its name, its import path `package.module:function`
            or itself.
        correct_above: a rollout is correct when its reward is greater; 0 by default. Of key tokens it is a setting.
        states: gives the states of a rollout's tokens, in trainers that take them.

    After a call `metrics` has that batch's (docs/metrics.md). `needs` names what of log_probs, entropies and states the
    estimator cannot do without.

    Raises:
        TypeError, ValueError: there is no such estimator; on a batch of four small rollouts it fails or returns
            something else than finite values that are 0 outside the mask.
    """

    metrics: dict[str, float]

    def __init__(
        self,
        estimator: KTAEConfig | Estimator | str = KTAEConfig(),  # noqa: B008 (frozen)
        correct_above: float | None = None,
        states: States | None = None,
    ) -> None:
        self.states, self._asked_for = states, estimator
        if isinstance(estimator, KTAEConfig):
            if correct_above not in (None, estimator.correct_above):
                raise ValueError(f"correct_above must be that of {estimator}, got {correct_above!r}")
            self.estimator, self.needs = key_tokens(estimator), ()
            self.correct_above, self.scale = estimator.correct_above, estimator.scale
        elif isinstance(estimator, str) or callable(estimator):
            self.correct_above, self.scale = KTAEConfig(correct_above=correct_above or 0.0).correct_above, None
            self.estimator = load_estimator(estimator) if isinstance(estimator, str) else estimator
            self.needs = needs(self.estimator, self.correct_above)
        else:
            raise TypeError(
                f"estimator must be a KTAEConfig, a name, an import path or a function of Rollouts, got {estimator!r}"
            )
        self._streaks: dict[str, int] = {}
        self._named: set[str] = set()

    def __call__(self, rollouts: Rollouts, *, warn: bool = True) -> Tensor:
        """(N, T) float32, the values to add to the advantages of a batch of whole groups; 0 in unscored rollouts.

        `warn`: whether to look for traps (docs/metrics.md); each is named once, in the log of the logger "ktae".
        """
        value_NT = token_values(self.estimator, rollouts).masked_fill(rollouts.rewards.isnan()[:, None], 0.0)
        self.metrics = measure(value_NT, rollouts, self.scale)
        if warn:
            found = traps(value_NT, rollouts, self.scale, self.metrics["value_ratio"])
            self._streaks = {name: self._streaks.get(name, 0) + 1 for name in found}
            for name, message in found.items():
                if self._streaks[name] >= _PATIENCE and name not in self._named:
                    self._named.add(name)
                    logger.warning("ktae, batch after batch: %s", message)
        return value_NT

    def check_given(self, trainer: str, *given: str) -> None:
        """Raises a ValueError if the estimator needs what `trainer` does not have, or `states` would not be called.

        `given` are those of log_probs, entropies and states that it has.
        """
        for name in self.needs:
            if name not in given or (name == "states" and self.states is None):
                raise ValueError(
                    f"estimator {self._asked_for!r} needs the rollouts' {name}, which {trainer} does not give"
                )
        if self.states is not None and "states" not in given:
            raise ValueError(f"states must be None: {trainer} does not hand them on")

    def state_rows(self, rollouts: Sequence[Mapping[str, Any]], width: int) -> Tensor:
        """(N, width) int64, each rollout's states, 0 after its end. Refuses anything but an integer a token id."""
        assert self.states is not None
        state_NT = torch.zeros(len(rollouts), width, dtype=torch.long)
        for row, rollout in enumerate(rollouts):
            length, found = len(rollout["token_ids"]), torch.as_tensor(self.states(rollout))
            if found.shape != (length,) or found.is_floating_point():
                raise ValueError(
                    f"states must return an integer for each of the rollout's {length} tokens, "
                    f"got {found.tolist()!r:.200}"
                )
            state_NT[row, :length] = found
        return state_NT


def from_settings(settings: Any, name: str, trainer: str, *given: str) -> TokenCredit:
    """What the configuration of a trainer asks for.

    Args:
        settings: None, or a mapping of fields of `KTAEConfig` and `preset` ("paper", "released" or "recommended"),
            which the fields override; or `estimator` (a name or an import path) and `correct_above`; and `states` (an
            import path).
        name: what the user calls them, such as `algorithm.ktae`.
        trainer, given: those of `TokenCredit.check_given`.

    Raises:
        ValueError, TypeError: a key is unknown or a value is out of range; the message names `NAME.KEY`.
    """
    states_too = ["states"] if "states" in given else []
    known = ["preset", "estimator", *states_too, *(field.name for field in fields(KTAEConfig))]
    if not isinstance(settings, Mapping | None):
        raise TypeError(f"{name} must hold some of {', '.join(known)}; got {settings!r}")
    found = dict(settings or {})
    for key in found:
        if key not in known:
            raise ValueError(f"{name}.{key} is unknown; {name} may hold {', '.join(known)}")
    estimator, states = found.pop("estimator", None), found.pop("states", None)
    try:
        if states is not None:
            if ":" not in str(states):
                raise ValueError(f"states must be an import path package.module:function, got {states!r}")
            states = load_function("states", states, {})
        if estimator is None:
            preset = found.pop("preset", "paper")
            if preset not in PRESETS:
                raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
            credit = TokenCredit(PRESETS[preset](**found), states=states)
        else:
            correct_above = found.pop("correct_above", None)
            for key in found:
                raise ValueError(f"{key} is a setting of key tokens; estimator {estimator!r} does not read it")
            credit = TokenCredit(estimator, correct_above, states)
        credit.check_given(trainer, *given)
        return credit
    except (TypeError, ValueError) as error:  # its message begins with the key
        raise type(error)(f"{name}.{error}") from error


def needs(estimator: Estimator, correct_above: float) -> tuple[str, ...]:
    """Which of log_probs, entropies and states the estimator cannot do without, found by leaving each out."""
    mask_NT = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1]])
    given = {"log_probs": -0.5 * mask_NT, "entropies": 0.25 * mask_NT, "states": torch.tensor([[0, 1, 2]] * 4)}
    token_ids_NT, group_N = torch.tensor([[1, 2, 3], [1, 4, 2], [5, 2, 0], [5, 6, 6]]), torch.tensor([7, 7, 3, 3])
    margin_N = (1.0 + abs(correct_above)) * torch.tensor([1.0, -1.0, 1.0, torch.nan], dtype=torch.float64)
    rollouts = Rollouts(token_ids_NT, mask_NT, correct_above + margin_N, group_N, correct_above=correct_above, **given)

    def error_of(rollouts: Rollouts) -> Exception | None:
        try:
            token_values(estimator, rollouts)
        except Exception as error:
            return error

    if error := error_of(rollouts):
        name = getattr(estimator, "__name__", type(estimator).__name__)
        message = f"estimator {name} fails on a batch of four small rollouts: {type(error).__name__}: {error}"
        raise ValueError(message) from error
    return tuple(name for name in given if error_of(replace(rollouts, **{name: None})))


def rollout_means(advantage_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """(N,) the mean of each rollout's token advantages, which is its rollout advantage where they are all equal."""
    return (advantage_NT * mask_NT).sum(dim=1) / mask_NT.sum(dim=1).clamp(min=1)


def reward_column(names: Sequence[str], correctness_reward: str | None) -> int:
    """The place of the reward function that decides correctness, which must be named if there are several."""
    places = [place for place, name in enumerate(names) if name == correctness_reward]
    if correctness_reward is None and len(names) == 1:
        return 0
    if len(places) != 1:
        raise ValueError(
            "correctness_reward must name the reward function that decides correctness, exactly one of the reward "
            f"functions {list(names)}, got {correctness_reward!r}"
        )
    return places[0]


def expect(holder: Any, name: str, why: str, *allowed: Any, other_than: Any = ...) -> None:
    """Raises a ValueError if a trainer has a setting with which tokens would not get their own credit.

    `name` is the path of attributes from `holder` to it, also written as an option: `--advantage-estimator`. It may
    have one of the values `allowed`, or any value `other_than` one; `why` says what goes wrong otherwise.
    """
    met = attrgetter(name.lstrip("-").replace("-", "_"))(holder)
    if met not in allowed if allowed else met == other_than:
        wanted = "another" if not allowed else allowed[0] if len(allowed) == 1 else f"one of {allowed}"
        raise ValueError(f"{name} must be {wanted} for token-level credit, got {met!r}: {why}")
