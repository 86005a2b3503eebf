"""The estimator's settings."""

from __future__ import annotations

import numbers
import operator
from dataclasses import dataclass
from typing import Any, Literal

# Far beyond any sensible setting, and small enough that no product or sum of settings overflows float32.
LARGEST = 1e30


@dataclass(frozen=True)
class KTAEConfig:
    """Settings of the key-token estimator; the defaults are the paper's formula with an exact Fisher test.

    Attributes:
        fisher_weight: h1 >= 0, weight of the Fisher score in the association strength.
        information_gain_weight: h2 >= 0, weight of the information gain. h1 + h2 must be positive.
        term_frequency_weight: h3 >= 0, weight of the term-frequency contrast in the direction; 0 drops it.
        correct_above: a rollout is correct when its reward is greater than this, in the rewards' own precision.
        exclude_token_ids: token ids whose key-token value is always 0 (a padding token that also ends a
            completion, say). They keep the rollout advantage.
        scale: factor > 0 on the key-token value, which then lies in [-scale, scale] ([-2 scale, 2 scale] if centered).
        context: a token is compared among the rollouts that reached the same `context` generated tokens before it and
            went on with this token or another; 0 is the paper's comparison among all rollouts of the group.
        ngram: units are runs of this many tokens; 1 is the paper's single token. It must be 1 or more than
            `context` + 1, since a token in its context already is a run of `context` + 1.
        centered: the mean value of each rollout's tokens is subtracted, so that values move credit within a rollout
            and leave its total alone.
        fisher: "exact" computes Fisher's p-values in exact arithmetic; "released" reproduces the float32
            table of the authors' code, rounding errors included (docs/differences-from-the-released-code.md).

    Raises:
        ValueError: a field is out of its range.

    >>> KTAEConfig(term_frequency_weight=0.0).fisher
    'exact'
    """

    fisher_weight: float = 1.0
    information_gain_weight: float = 1.0
    term_frequency_weight: float = 1.0
    correct_above: float = 0.0
    exclude_token_ids: tuple[int, ...] = ()
    scale: float = 1.0
    context: int = 0
    ngram: int = 1
    centered: bool = False
    fisher: Literal["exact", "released"] = "exact"

    def __post_init__(self) -> None:
        for name in ("fisher_weight", "information_gain_weight", "term_frequency_weight"):
            self._check_number(name)
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)!r}")
        for name in ("correct_above", "scale"):
            self._check_number(name)
        if self.scale <= 0:
            raise ValueError(f"scale must be > 0, got {self.scale!r}")
        if self.fisher_weight + self.information_gain_weight <= 0:
            raise ValueError(
                "fisher_weight + information_gain_weight must be positive, got "
                f"{self.fisher_weight!r} + {self.information_gain_weight!r}"
            )
        for name, least in (("context", 0), ("ngram", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 64:
                raise ValueError(f"{name} must be an integer in {least}..64, got {value!r}")
        if 1 < self.ngram <= self.context + 1:
            raise ValueError(
                f"ngram must be 1 or more than context + 1, {self.context + 1}, to have an effect; got {self.ngram}"
            )
        if not isinstance(self.centered, bool):
            raise ValueError(f"centered must be True or False, got {self.centered!r}")
        if self.fisher not in ("exact", "released"):
            raise ValueError(f"fisher must be 'exact' or 'released', got {self.fisher!r}")
        try:
            ids = tuple(operator.index(token_id) for token_id in self.exclude_token_ids)
        except TypeError as error:
            raise ValueError(
                f"exclude_token_ids must be a sequence of integers, got {self.exclude_token_ids!r}"
            ) from error
        if any(not 0 <= token_id < 2**63 for token_id in ids):
            raise ValueError(f"exclude_token_ids must hold ids in [0, 2**63), got {self.exclude_token_ids!r}")
        object.__setattr__(self, "exclude_token_ids", ids)

    def _check_number(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or not -LARGEST <= float(value) <= LARGEST:
            raise ValueError(f"{name} must be a finite number within +-{LARGEST:g}, got {value!r}")

    @classmethod
    def released(cls, **changes: Any) -> KTAEConfig:
        """The settings that reproduce the authors' released code, float32 Fisher table included, with `changes`.

        That code also never values the padding token of the one tokenizer it was written for; name it in
        `exclude_token_ids` where it can occur inside the mask.
        """
        return cls(**{"fisher": "released", **changes})

    @classmethod
    def recommended(cls, **changes: Any) -> KTAEConfig:
        """What did best of these settings in our first experiments, with `changes`; docs/results.md has the later ones.

        A token is compared with the other tokens with which the group's rollouts went on after the same two tokens, and
        the term-frequency contrast is left out. After a mistake only incorrect rollouts reach what follows, so the
        blame stays with the mistake.

        >>> KTAEConfig.recommended(correct_above=0.5).correct_above
        0.5
        """
        return cls(**{"context": 2, "term_frequency_weight": 0.0, "scale": 8.0, **changes})
