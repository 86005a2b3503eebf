r"""Units, currencies and percent signs behind a value. What a unit is and how it converts, pint knows.

A unit that only one of two answers has does not matter. Words behind a prediction's value are read as a unit or as the
name of what is counted, or else the answer is not understood.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from ktae.extras import require
from ktae.grading.rules.numerals import parse_number
from ktae.grading.rules.words import SCALES, number_in_words

# Beside pint's own: money, and units in Chinese and Japanese.
_DEFINITIONS = (
    "dollar = [dollar] = USD",
    "cent = 0.01 dollar",
    "euro = [euro] = EUR",
    "sterling = [sterling] = GBP",
    "yen = [yen] = JPY",
    "yuan = [yuan] = RMB = CNY",
    "rupee = [rupee] = INR",
    "celsius = [celsius]",
    "fahrenheit = [fahrenheit]",
)
_SYMBOLS = {"$": "dollar", "\\$": "dollar", "€": "euro", "£": "sterling", "¥": "yen", "₹": "rupee", "¢": "cent"}
_CJK_UNITS = (
    "厘米 cm 毫米 mm 分米 dm 千米 km 公里 km 米 m 千克 kg 公斤 kg 克 g 吨 tonne 毫升 mL 升 L 秒 s 分钟 min 小时 hour "
    "時間 hour 天 day 周 week 年 year 元 yuan 円 yen 度 degree 平方 square 立方 cubic"
)
_CJK: dict[str, str] = dict(zip(_CJK_UNITS.split()[::2], _CJK_UNITS.split()[1::2], strict=True))
_CJK_WORD = re.compile("|".join(_CJK))
_CJK_COUNTER = re.compile("[个個种種人次只条张本名位块辆件]?(?:方法|[^\\W\\da-zA-Z]{0,3})")
_POWERS = {"square": 2, "cubic": 3, "sq": 2, "cu": 3}
_PERCENT = frozenset(("%", "percent", "percentage", "pct", "per cent"))
# A number of anything.
_NEUTRAL = re.compile(r"(?:(?:square|cubic|sq) )?units?(?: ?(?:\*\*[23]|squared|cubed))?")
# Words that change the value or its meaning; with one of them a text is no unit.
_NO_UNITS = re.compile(
    rf"\b(?:{'|'.join(SCALES)}|score|more|less|fewer|no|not|least|most|than|over|under|times|plus|minus|negative|if|when|"
    r"where|for|with|without|only|is|was|has|does|are|isn|doesn|or|and|but|maybe|perhaps|versus|double|triple|twice|extra|additional|yes|always|besides|"
    r"others|wrong|undefined|a\.?m|p\.?m|modulo|mod|base|squared|cubed|this|thus|guess|digits)(?:e?s)?\b",
    re.IGNORECASE,
)
_MAX_WORDS = 5
_COUNTED = re.compile(
    r"(?:(?:different|distinct|possible|total|ordered|whole|such|real|positive|integer) )*(?:[a-z]{3,} )?"
    r"(?:[a-z]{3,}(?<!s)(?<!u)s|people|men|women|children|mice|fish|sheep|geese)",
    re.IGNORECASE,
)
_TEXT = r"\\text\{(?:[^{}]|\{[^{}]*\})*\}"
_BARE = r"(?<![A-Za-z\\])[A-Za-zÅ]+\.?|[^\x00-\x7f]+"
_PIECE = rf"(?:{_TEXT}|{_BARE}|%|\^\{{\\circ\}}|\\\$|[€£¥₹¢]|\\mu\s?)(?:\s*\^\s*\{{\s*-?[0-9]\s*\}})?"
_TAIL = re.compile(rf"\s*(?:/\s*)?{_PIECE}(?:\s*(?:/|\\cdot|\*)?\s*{_PIECE})*\s*\Z|\s*\\pmod\s*\{{[^{{}}]*\}}\s*\Z")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|cis)(?![a-z])")
_CURRENCY = re.compile(
    r"([-+]?)\s*(?:\\text\{\s*)?(?:US)?\s*(\\\$|[€£¥₹]|USD|EUR|GBP|INR|Rs\.?)(?:\s*\})?\s*(?=[-0-9.\\])"
)
_VARIABLE = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]")
_TOKEN = re.compile(r"(/|\bper\b)|([^\s/*.()-]+)(?:\*\*\{?(-?[0-9])\}?)?")


@dataclass(frozen=True)
class Unit:
    """A unit: how many base units of its kind it is, and the kind. What is counted is a kind of its own."""

    factor: float
    kind: str


PERCENT = Unit(0.01, "%")
DEGREE = Unit(1, "degree")
RADIAN = Unit(1, "radian")


@cache
def _registry() -> Any:
    registry = require("pint", "train").UnitRegistry(on_redefinition="ignore")
    for definition in _DEFINITIONS:
        registry.define(definition)
    return registry


def split_unit(text: str, is_reference: bool = False, beside_unit: bool = False) -> tuple[str, Unit | None]:
    r"""Split a cleaned answer into its value and its unit; the unit is None without one.

    Args:
        text: a cleaned answer.
        is_reference: whether this is the accepted answer, where any few words behind the value are a label.
        beside_unit: whether the other answer has a unit, so that a bare letter is one as well.

    >>> split_unit(r"15\text{ cm}^{2}")
    ('15', Unit(factor=0.0001, kind='[length] ** 2'))
    >>> split_unit(r"\$5"), split_unit("6m"), split_unit(r"5\text{ or so}")
    (('5', Unit(factor=1.0, kind='[dollar]')), ('6m', None), ('5\\text{ or so}', None))
    """
    unit, value = "", text
    if text[:1].isalpha():
        words = text.split()
        for end in range(len(words) - 1, 0, -1):
            spelled, rest = " ".join(words[:end]), " ".join(words[end:])
            if number_in_words(spelled) is not None and (read := read_unit(_words(rest), is_reference)):
                return spelled, read
    if match := _CURRENCY.match(text):
        unit, value = _SYMBOLS.get(match[2], match[2].rstrip(".")), match[1] + text[match.end() :]
    if (match := _TAIL.search(value)) and (before := value[: match.start()].strip()):
        tail = match[0]
        is_argument = tail.lstrip().startswith("^") and _TRIGONOMETRY.search(value)  # of sin 30 degrees
        if is_argument or not (beside_unit or _may_be_bare(before, tail)):
            return (value, read_unit(unit, True)) if unit and parse_number(value) else (text, None)
        words = _words(tail)
        if unit and parse_number(value) is None and words not in ("dollar", "dollars", "USD", "euro", "euros"):
            return text, None
        if not unit or parse_number(value) is None:
            if _NEUTRAL.fullmatch(words) or words.startswith("mod"):
                return before, None
            while words.partition(" ")[0].lower().removesuffix("s") in SCALES and " " in words:
                before, words = f"{before} {words.partition(' ')[0]}", words.partition(" ")[2]
            read = read_unit(words, is_reference)
            return (before, read) if read else (text, None)
    return (value, read_unit(unit, True)) if unit else (text, None)


def _may_be_bare(value: str, tail: str) -> bool:
    """Whether letters outside of a text may be a unit: they follow a number, and are no product of variables."""
    bare = re.findall(_BARE, re.sub(_TEXT, " ", tail))
    if not bare:
        return True
    is_word = (
        not bare[0].isascii()
        or (len(bare[0]) > 1 and (tail[0] == " " or "/" in tail))
        or len(bare[0]) > 2
        or tail[0] == "^"
    )
    return is_word and not _VARIABLE.search(value)


def _words(tail: str) -> str:
    """The words of a unit, with `**` for exponents, `*` and `/`."""
    tail = re.sub(r"\\text\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 ", tail).replace(r"\cdot", " ").replace(r"\mu", "µ")
    tail = _CJK_WORD.sub(lambda match: f" {_CJK[match[0]]} ", tail.replace(r"^{\circ}", " degree "))
    tail = re.sub(r"\s*\^\s*\{?\s*(-?[0-9])\s*\}?", r"**\1", tail)
    tail = re.sub(r"\bdegrees?\s*(C|F)(?:elsius|ahrenheit)?\b", lambda match: _TEMPERATURE[match[1]], tail)
    tail = re.sub(r"\\pmod\s*", "mod ", tail)
    return re.sub(r"\s+", " ", re.sub(r"µ\s+", "µ", tail)).strip(" ,")


_TEMPERATURE = {"C": "celsius", "F": "fahrenheit"}


@cache
def read_unit(words: str, is_reference: bool = False) -> Unit | None:
    """The unit that words name, None if they name none."""
    if words.lower() in _PERCENT:
        return PERCENT
    if words.rstrip("s") in ("degree", "radian", "deg", "rad"):
        return DEGREE if words.startswith("deg") else RADIAN
    if (known := _convertible(words)) is not None:
        return known
    is_label = not _NO_UNITS.search(words) and words.count(" ") < _MAX_WORDS if is_reference else False
    if is_label or (_COUNTED.fullmatch(words) and not _NO_UNITS.search(words)) or _is_counter(words):
        return Unit(1, words.lower().removesuffix("s"))
    return None


def _is_counter(words: str) -> bool:
    return not words.isascii() and bool(_CJK_COUNTER.fullmatch(words)) and not any(sign in SCALES for sign in words)


def _convertible(words: str) -> Unit | None:
    registry = _registry()
    words = re.sub(r"\b(\w+) (?:squared|cubed)\b", lambda m: f"{m[1]}**{2 if m[0].endswith('squared') else 3}", words)
    product, sign, power, position = registry.Quantity(1), 1, 1, 0
    for token in _TOKEN.finditer(words):
        if words[position : token.start()].strip(" .*()"):
            return None
        position = token.end()
        word = token[2]
        if token[1]:
            sign = -1
        elif word.rstrip(".") in _POWERS:
            power = _POWERS[word.rstrip(".")]
        else:
            name = _SYMBOLS.get(word, word)
            for spelled in dict.fromkeys((name, name.lower() if len(name) > 3 else name)):
                try:
                    unit = registry.Quantity(1, registry.parse_units(spelled)).to_base_units()
                except Exception:  # pint's parser raises errors of many kinds on what it does not know
                    continue
                break
            else:
                return None
            product, power = product * unit ** (sign * power * int(token[3] or 1)), 1
    if words[position:].strip(" .*()") or power != 1 or not product.dimensionality:
        return None
    return Unit(float(product.magnitude), str(product.dimensionality))
