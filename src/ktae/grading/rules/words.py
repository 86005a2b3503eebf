"""Answers in words: numbers, texts, and the letters of multiple choice."""

import calendar
import re
from fractions import Fraction

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL: dict[str, int] = {word: number for number, word in enumerate(_ONES.split())}
_SMALL |= {word: 10 * tens for tens, word in enumerate(_TENS.split(), 2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_PARTS = "half third quarter fifth sixth seventh eighth ninth tenth"
# What multiplies the number before it.
_OTHERS = {"lakh": 10**5, "crore": 10**7, "ten": 10, "万": 10**4, "萬": 10**4, "亿": 10**8}
SCALES = {word: Fraction(scale) for word, scale in (_SCALES | _OTHERS).items()}
_BELOW = {word: part for part, word in enumerate(_PARTS.split(), 2)}
_BELOW |= {"halve": 2, "fourth": 4, "hundredth": 100, "thousandth": 1000}
SCALES |= {word: Fraction(1, part) for word, part in _BELOW.items()}

TEXT = r"\\text\{(?:[^{}]|\{[^{}]*\})*\}"
_TEXT = re.compile(r"\\text\{((?:[^{}]|\{[^{}]*\})*)\}")
_WORD = re.compile(r"(?<![\\a-zA-Z])[A-Za-z]{4,}|[^\W\d_a-zA-Z]+")
_SHORT_WORDS = re.compile("yes|no|odd|on|off|all|any|tie|red|dne")
_NO_WORDS = re.compile(r"[0-9=<>+*^\\{|;,]|(?<![a-z])-")
# Names of functions that plain text has without a backslash.
_FUNCTIONS = frozenset(("sqrt", "pmatrix", "arcsin", "arccos", "arctan"))
_ARTICLES = re.compile(r"\b(?:an?|the)\b|[\"'!?.]")
_SYNONYMS = {"dne": "does not exist", "doesn t exist": "does not exist"}
_MONTHS = {month.casefold() for names in (calendar.month_name, calendar.month_abbr) for month in names if month}

_MARK = r"\(?\s*([A-Ja-j])\s*(?:\)|\.)?"
_CHOICE = re.compile(rf"(?:(?:option|choice|answer)\s+|选项?\s*)?{_MARK}", re.IGNORECASE)
_CHOICE_AND_CONTENT = re.compile(r"(?:\(([A-J])\)|([A-J])\s*[).:])\s*([^\s+*/=<>^].*)", re.DOTALL)
# In the content of a choice: another choice, or doubts.
_UNSURE = re.compile(
    r"\([A-J]\)|(?<![A-Za-z\\])[B-HJ](?![A-Za-z'])|\b(?:or|not|wrong|incorrect|false|maybe|perhaps|but|instead)\b|\\lor"
)
_BEGINS_LIKE_A_CHOICE = re.compile(r"(?:option|choice)\b|\([A-J]\)|[A-J]\s*(?:[).:;]|\\lor)", re.IGNORECASE)
_JOINTS = re.compile(r"\s*(?:[,;&]|\band\b)\s*")


def plain(text: str) -> str:
    r"""A cleaned answer with what stands in `\text{}` beside the rest."""
    return re.sub(r"\s+", " ", _TEXT.sub(r" \1 ", text)).strip()


def unwrapped(text: str) -> str:
    r"""The content of a text that is all in one \text{}, otherwise the text; a word stays a text."""
    match = _TEXT.fullmatch(text)
    return match[1].strip() if match and not re.fullmatch("[A-Za-z]{2,}", match[1].strip()) else text


def number_in_words(text: str) -> Fraction | None:
    """The number that English words spell, None for other text.

    >>> [str(number_in_words(text)) for text in ("twenty-one", "minus two thirds", "one and a half", "two one", "half")]
    ['21', '-2/3', '3/2', 'None', '1/2']
    """
    words = re.split(r"[\s-]+", text.strip().casefold())
    if words[0] in ("minus", "negative"):
        value = number_in_words(" ".join(words[1:]))
        return None if value is None else -value
    if words[-3:] == ["and", "a", "half"]:
        whole = _count(words[:-3])
        return None if whole is None else whole + Fraction(1, 2)
    if len(words) > 1 and words[0] in ("a", "an"):
        words[0] = "one"
    part = SCALES.get(words[-1].removesuffix("s") if words[-1] != "halves" else "half")
    if part is not None and part < 1:
        above = _count(words[:-1]) if words[:-1] else 1
        return None if above is None else above * part
    return _count(words)


def _count(words: list[str]) -> Fraction | None:
    """What words for a natural number say, each for less than the words before it leave room for."""
    total, current, room = 0, 0, 10**15
    for word in words:
        if word == "and" and current:
            continue
        small, scale = _SMALL.get(word), _SCALES.get(word.removesuffix("s"))
        if small is not None and small < room and (small or len(words) == 1):
            current, room = current + small, 10 if small > 19 else 1
        elif scale and current and scale < 1000:
            current, room = current * scale, scale
        elif scale and current:
            total, current, room = total + current * scale, 0, scale
        else:
            return None
    return Fraction(total + current) if words else None


def same_choice(prediction: str, answer: str) -> bool | None:
    """Compare the letters of choices; None if the answer is no choice or the prediction is none.

    The content of a choice may stand behind its letter, unless it names another choice or doubts this one.

    >>> same_choice("(C) 5", "C"), same_choice("(C) or (D)", "C"), same_choice("x", "C"), same_choice("A, C", "AC")
    (True, False, None, True)
    """
    given, accepted = plain(prediction), _choices(plain(answer))
    if not accepted:
        return None
    if chosen := _choices(given):
        # Two bare letters may be variables.
        return chosen == accepted if len(accepted) > 1 or len(prediction) > 1 or len(answer) > 1 else None
    return False if _BEGINS_LIKE_A_CHOICE.match(given) else None


def _choices(text: str) -> frozenset[str]:
    """The letters chosen, none if the text is anything else."""
    text = text.strip()
    if match := _CHOICE.fullmatch(text):
        return frozenset(match[1].upper())
    if match := _CHOICE_AND_CONTENT.fullmatch(text):
        return frozenset() if _UNSURE.search(match[3]) else frozenset(match[1] or match[2])
    if re.fullmatch("[A-J]{2,5}", text) and list(text) == sorted(set(text)):
        return frozenset(text)
    parts = _JOINTS.split(text)
    found = {match[1] for match in map(_CHOICE.fullmatch, parts) if match and match[1].isupper()}
    return frozenset(found) if len(found) == len(parts) else frozenset()


def same_text(prediction: str, answer: str) -> bool | None:
    """Compare two cleaned answers if the accepted one is in words; None if that is for others to decide.

    To a parser of formulas a word is a product of letters, and "east" the same as "seat".

    >>> same_text("Even.", "even"), same_text("east", "seat"), same_text("xy", "yx")
    (True, False, None)
    """
    return _said(prediction) == _said(answer) if _is_text(answer) else None


def _is_text(text: str) -> bool:
    """Whether words are what this answer is about: more than the unit of a number or an index."""
    words = {word.casefold() for word in _WORD.findall(plain(text))}
    words |= {word for word in plain(text).casefold().split() if _SHORT_WORDS.fullmatch(word)}
    outside = _TEXT.sub(" ", text).replace(r"\lor", "").replace(" ; ", " ").replace(",", "")
    if words & _MONTHS or _NO_WORDS.search(outside):
        return bool(words & _MONTHS)
    return bool(words - _FUNCTIONS) or bool(_TEXT.search(text))


def _said(text: str) -> tuple[str, ...]:
    """What a text says: without capitals, articles and quotes, an enumeration and a date in any order."""
    text = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", plain(text).replace(" ; ", " and ")).casefold()
    text = re.sub(r"\s+", " ", _ARTICLES.sub(" ", text)).strip(" ,")
    text = re.sub(r"(?<=[a-z]{3})s\b", "", _SYNONYMS.get(text, text))
    if match := re.fullmatch(r"(\w+) is (\w+)", text):
        return tuple(sorted(match.groups()))
    if set(words := text.replace(",", " ").split()) & _MONTHS or re.fullmatch(r"\w+ \w", text):
        return tuple(sorted(words))
    return tuple(sorted(part for part in _JOINTS.split(text) if part))
