"""Text to tokens and tokens to text: a model's tokenizer, or plain words where there is none."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ktae.extras import require

# Chinese, Japanese, Thai, ... have no spaces between words: there a token is a grapheme.
_SPACELESS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
_WORD = rf"\s*(?:(?={_SPACELESS}|[^\w\s])\X|(?:(?!{_SPACELESS})\w)+)|\s+"
_BROKEN = "\N{REPLACEMENT CHARACTER}"
_CUT = (
    "--tokenizer words cuts scripts without spaces between words, such as Chinese, Japanese or Thai, into single "
    "characters; a model's tokenizer would not"
)


def load_tokenizer(name: str | None) -> Tokenizer | None:
    """`words`, or a tokenizer by its name on the Hugging Face hub or its folder; a ValueError if there is none."""
    if name is None:
        return None
    if name == "words":
        return Words()
    try:
        return ModelTokenizer(require("transformers", extra="report").AutoTokenizer.from_pretrained(name))
    except OSError as error:  # transformers' word for all that can go wrong, over many lines
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"--tokenizer must be words or a tokenizer's name or path, got {name}: {first}") from error


class Words:
    """Words and punctuation marks, for text without a tokenizer at hand.

    A token is a run of letters, digits and underscores, or any other single grapheme, with the white space before it.
    In scripts that put no spaces between words every grapheme is one, and stderr says so. Its id is the start of the
    SHA-256 of the word without the white space: " 7" and "7" are one unit, the same in every file.

    >>> Words().texts([], "x = 4*7")
    ['x', ' =', ' 4', '*', '7']
    """

    size = None  # ids are made from text alone, and none may be given

    def __init__(self) -> None:
        regex = require("regex", extra="report")  # the standard library's knows no scripts and no graphemes
        self._word, self._spaceless = regex.compile(_WORD), regex.compile(_SPACELESS)
        self._said = False

    def encode(self, text: str) -> list[int]:
        if not self._said and not text.isascii() and self._spaceless.search(text):
            self._said = True
            print(_CUT, file=sys.stderr)
        return [_word_id(word.strip()) for word in self._word.findall(text)]

    def texts(self, token_ids: Sequence[int], text: str | None) -> list[str]:
        return self._word.findall(text or "")


class ModelTokenizer:
    """A tokenizer of transformers. Token ids that are given must lie below `size`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.size = len(tokenizer)
        self._alone: dict[int, str] = {}

    def encode(self, text: str) -> list[int]:
        """A text's token ids, no special tokens added."""
        return self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def texts(self, token_ids: Sequence[int], text: str | None) -> list[str]:
        """The text of each token where it stands, white space included; joined they are the text of all.

        Takes the ids of one rollout or of a part of it, and the text that they were encoded from, None if they were
        given.
        """
        for token_id in set(token_ids) - self._alone.keys():
            self._alone[token_id] = self._decode([token_id])
        # Nearly always a token reads the same wherever it stands. Not so: parts of a character, and the space that
        # some tokenizers drop at the start.
        pieces = [self._alone[token_id] for token_id in token_ids]
        return pieces if "".join(pieces) == self._decode(token_ids) else self._in_context(token_ids)

    def _in_context(self, token_ids: Sequence[int]) -> list[str]:
        """Token by token, each with the one before it: a character's text stands with the token that completes it."""
        pieces = []
        begin = shown = 0  # the texts of tokens before `shown` are known; those from `begin` on are the context
        for end in range(1, len(token_ids) + 1):
            before, after = self._decode(token_ids[begin:shown]), self._decode(token_ids[begin:end])
            if after.endswith(_BROKEN) and end < len(token_ids) and end - shown < 8:
                pieces.append("")
            else:
                pieces.append(after[len(before) :])
                begin, shown = shown, end
        return pieces

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


Tokenizer = Words | ModelTokenizer


@lru_cache(maxsize=1 << 16)
def _word_id(word: str) -> int:
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") >> 1
