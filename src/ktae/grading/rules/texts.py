r"""Answers in words, and the letters of multiple choice."""

import re

_TEXT = re.compile(r"\\text\{((?:[^{}]|\{[^{}]*\})*)\}")
_WORD = re.compile(r"(?<![\\a-zA-Z])[A-Za-z]{3,}")
# Names of functions that plain text has without a backslash.
_FUNCTIONS = frozenset(
    ("sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "max", "min", "gcd", "lcm", "pmatrix")
)
_CHOICE = re.compile(r"\(?\s*([A-Za-z])\s*\)?")
_CHOICE_AND_CONTENT = re.compile(r"\(?([A-J])\s*[).]\s*[^\s+*/=].*", re.DOTALL)


def same_text(prediction: str, answer: str) -> bool | None:
    r"""Compare two cleaned answers if one is in words or a choice; None if that is for others to decide.

    To a parser of formulas a word is a product of letters, and "east" the same as "seat".

    >>> same_text("Even", "even"), same_text("east", "seat"), same_text("(C) 5", "C"), same_text("x", "y")
    (True, False, True, None)
    """
    words, expected = _plain(prediction), _plain(answer)
    with_content = _CHOICE_AND_CONTENT.fullmatch(words)
    if (choice := _CHOICE.fullmatch(expected)) and (with_content or "(" in (prediction[0], answer[0])):
        given = with_content or _CHOICE.fullmatch(words)
        if given and given[1].upper() <= "J":
            return given[1].upper() == choice[1].upper()
    if not (_is_text(prediction) and _is_text(answer)):
        return None
    return words.casefold() == expected.casefold()


def unwrapped(text: str) -> str:
    r"""The content of a text that is all in one \text{}, otherwise the text."""
    match = _TEXT.fullmatch(text)
    return match[1].strip() if match else text


def _plain(text: str) -> str:
    return re.sub(r"\s+|(?<=[a-z])-(?=[a-z])", " ", _TEXT.sub(r" \1 ", text).replace('"', "")).strip(" .")


def _is_text(text: str) -> bool:
    """Whether words are what this answer is about: more than the unit of a number or an index."""
    plain = re.sub(r"_\{[^{}]*\}|\\(?:begin|end)\s*\{[^{}]*\}", "", _TEXT.sub(r" \1 ", text))
    words = [word for word in _WORD.findall(plain) if word.lower() not in _FUNCTIONS]
    return bool(words) and not re.search(r"[0-9=<>+*^\\{]|(?<![a-z])-", plain)
