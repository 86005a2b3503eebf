"""States read from a rollout's own text: tokens are compared among the rollouts that calculated the same before them.

Rollouts say one thing in many words, so the tokens before a token are no state in real text. What they have calculated
is: `calculation` leaves out everything but numbers and signs.

    Mia has 12 + 7 = 19 apples. Twice that is 19 * 2 =
    We get 12 + 7 = 19, then doubled: 19 * 2 =           the same state
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

TERMS = 6
_NUMBER_OR_SIGN = re.compile(r"(?P<number>\d+(?:\.\d+)?)|\\(?:times|cdot|div|d?frac)|[-+*/=^\xd7\xb7\xf7\u2212]")
_SAME = {"\\times": "*", "\\cdot": "*", "\xd7": "*", "\xb7": "*", "\\div": "/", "\xf7": "/", "\u2212": "-"}


def calculation(texts: Sequence[str], terms: int = TERMS) -> list[int]:
    """The state of each token of a rollout: the last numbers and signs of the text before it.

    A number of which the token is a later digit counts as far as it is written.

    Args:
        texts: the text of each token; joined they are the completion.
        terms: how many numbers and signs; more tell states apart better and have fewer rollouts in each.

    Returns:
        As many 64-bit integers, equal where the calculation is equal.

    Raises:
        ValueError: `terms` is less than 1.

    >>> one, other = (["12", "+", "7", "=", "19"], ["so ", "12", " +", " 7", " is", " =", " 1", "8"])
    >>> calculation(one)[4] == calculation(other)[6], calculation(one)[4] == calculation(other)[7]
    (True, False)
    """
    if terms < 1:
        raise ValueError(f"terms must be at least 1, got {terms}")
    found = list(_NUMBER_OR_SIGN.finditer("".join(texts)))
    states, place, begun, before = [], 0, 0, [""]
    for text in texts:
        while begun < len(found) and found[begun].start() < place:
            before.append(_SAME.get(found[begun][0], found[begun][0]))
            begun += 1
        last = found[begun - 1] if begun else None
        recent = before[-terms:]
        if last and last.end() > place:  # nothing of what comes later may be known
            written = last[0][: place - last.start()].rstrip(".") if last["number"] else ""
            recent = [*before[-terms:-1], written] if written else before[-terms - 1 : -1]
        states.append(_hashed(" ".join(recent)))
        place += len(text)
    return states


class Calculation:
    """`calculation` as the `states=` of a trainer: from a rollout's token ids, by the model's tokenizer.

    Args:
        tokenizer: one of transformers.
        terms: as of `calculation`.
    """

    def __init__(self, tokenizer: Any, terms: int = TERMS) -> None:
        self._tokenizer, self._terms = tokenizer, terms
        self._texts: dict[int, str] = {}

    def __call__(self, rollout: Mapping[str, Any]) -> list[int]:
        """The state of each of the rollout's `token_ids`."""
        ids = [int(token_id) for token_id in rollout["token_ids"]]
        for token_id in set(ids) - self._texts.keys():
            self._texts[token_id] = self._text(token_id)
        return calculation([self._texts[token_id] for token_id in ids], self._terms)

    def _text(self, token_id: int) -> str:
        text = self._tokenizer.decode([token_id])
        # Some tokenizers drop the space at the start of a text, which parts two numbers.
        return f" {text}" if str(self._tokenizer.convert_ids_to_tokens(token_id)).startswith("\u2581") else text


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)
