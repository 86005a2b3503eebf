"""Values with units and percent signs, times of day, numbers in another base, and ratios.

What a unit is and how it converts, pint knows. A unit that only one of two answers has does not matter. Words behind a
prediction's value are read as a unit or as the name of what is counted, or else the answer is not understood.
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from ktae.extras import require
from ktae.grading.rules.numerals import Number, parse_number, same_number
from ktae.grading.rules.structure import split
from ktae.grading.rules.symbolic import same_formula
from ktae.grading.rules.words import SCALES, number_in_words, plain

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
_BASE = re.compile(r"\(?([0-9A-Za-z]+)\)?\s*_\{\s*\(?([0-9]+|[a-z]+)\)?\s*\}|([0-9A-Za-z]+) \(?(?:in )?base (\w+)\)?")
_TIME = re.compile(r"([0-9]{1,2})(?::([0-5][0-9]))?(?::00)? ?([ap]\.?m\.?)?", re.IGNORECASE)
_PART = re.compile(
    r"([0-9]+(?:\.[0-9]+)?(?: [0-9]+/[0-9]+)?)\s*([^\W\d][^0-9;,{}()^\\=+]*?)\s*(?:[;,]\s*)?(?=[0-9]|\Z)"
)
_CONVERSION = 1e-9  # what conversion factors may be off by, as a share

# Whether two cleaned answers are the same.
Compare = Callable[[str, str], bool]


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
    shortest = 2 if tail[0] == " " or "/" in tail else 3
    is_word = not bare[0].isascii() or len(bare[0]) >= shortest or tail[0] == "^"
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


def same_quantity(prediction: str, answer: str, compare: Compare, relative_tolerance: float | None) -> bool | None:
    """Compare two cleaned answers of which at least one has a unit or a percent sign; None if neither has.

    `compare` is for values without units, `relative_tolerance` for values in different ones.
    """
    expected, expected_unit = split_unit(answer, is_reference=True)
    value, unit = split_unit(prediction, beside_unit=expected_unit is not None)
    if (value, expected) == (prediction, answer):
        return None
    if PERCENT in (unit, expected_unit):
        if unit == expected_unit:
            return compare(value, expected)
        if expected_unit == PERCENT:  # then the sign may be left out
            return unit is None and (compare(value, expected) or _is_share(expected, value, compare))
        if expected_unit is not None:
            return False
        # A number above 1 is no share: it is a percentage whose sign the answer leaves out.
        number = parse_number(expected)
        if number and abs(number.value) > 1 and compare(value, expected):
            return True
        return _is_share(value, expected, compare)
    if {unit, expected_unit} <= {DEGREE, RADIAN, None}:
        if unit != expected_unit and DEGREE in (unit, expected_unit):
            degrees, other = (value, expected) if unit == DEGREE else (expected, value)
            if r"\pi" in other:
                return same_formula(rf"\frac{{\pi}}{{180}} \cdot ({degrees})", other)
            if RADIAN in (unit, expected_unit):
                return False
        return compare(value, expected)
    if unit is None or expected_unit is None:
        return compare(value, expected)
    if unit.kind != expected_unit.kind:
        pounds = {unit.kind, expected_unit.kind} == {"[mass]", "[sterling]"} and re.search("pound", prediction + answer)
        return bool(pounds) and compare(value, expected)
    if unit.factor == expected_unit.factor:
        return compare(value, expected)
    number, expected_number = parse_number(value), parse_number(expected)
    if number is None or expected_number is None:
        return False
    factor = Fraction(unit.factor / expected_unit.factor).limit_denominator(10**12)
    return same_number(_scaled(number, factor), expected_number, relative_tolerance or _CONVERSION)


def same_compound(prediction: str, answer: str, relative_tolerance: float | None) -> bool | None:
    r"""Compare quantities of which at least one is a sum in falling units, as 1 hour 30 minutes; None without any."""
    compounds = _sum_of_parts(prediction), _sum_of_parts(answer)
    if compounds == (None, None):
        return None
    totals = []
    for text, total in zip((prediction, answer), compounds, strict=True):
        if total is None:
            value, unit = split_unit(text, is_reference=text == answer, beside_unit=True)
            number = parse_number(value)
            if number is None or unit is None:
                return None
            total = Number(number.value * Fraction(unit.factor), Fraction(1, 10**9)), unit.kind
        totals.append(total)
    (number, kind), (expected, expected_kind) = totals
    return kind == expected_kind and same_number(number, expected, relative_tolerance or _CONVERSION)


def _sum_of_parts(text: str) -> tuple[Number, str] | None:
    parts = list(_PART.finditer(readable := plain(text.replace(r"^{\circ}", r"\text{degree}"))))
    if len(parts) < 2 or sum(len(part[0]) for part in parts) != len(readable):
        return None
    units = [_unit_of_part(part[2]) for part in parts]
    numbers = [parse_number(part[1]) for part in parts]
    if None in units or None in numbers or len({unit.kind for unit in units if unit}) != 1:
        return None
    factors = [unit.factor for unit in units if unit]
    if any(one <= other for one, other in itertools.pairwise(factors)):
        return None
    values = (number.value * Fraction(factor) for number, factor in zip(numbers, factors, strict=True) if number)
    total = sum(values, Fraction(0))
    return Number(total, Fraction(1, 10**9)), units[0].kind  # pyright: ignore[reportOptionalMemberAccess]


def _unit_of_part(words: str) -> Unit | None:
    angles = {"arcmin": 60, "arcsec": 3600}
    return Unit(1 / angles[words], DEGREE.kind) if words in angles else read_unit(words)


def same_time(prediction: str, answer: str) -> bool | None:
    """Compare times of day, in 12 or 24 hours; None if the answer is none.

    >>> same_time("15:00", "3:00 pm"), same_time("3:00 am", "3:00 pm"), same_time("2:30", "2:03"), same_time("3", "3")
    (True, False, None, None)
    """
    given, expected = (_TIME.fullmatch(plain(text)) for text in (prediction, answer))
    if expected is None or not (expected[2] or expected[3]):
        return None
    if not expected[3] and not (given and given[3]) and int(expected[1]) < 13:
        return None if given is None or given.groups() != expected.groups() else True  # or a ratio
    if given is None or not (given[2] or given[3]):
        return False
    minutes = [_minutes(match) for match in (given, expected)]
    return minutes[0] == minutes[1] or (not given[3] and int(given[1]) < 13 and minutes[0] == minutes[1] % 720)


def _minutes(time: re.Match[str]) -> int:
    hours = int(time[1]) % 12 + 12 * (time[3][0].lower() == "p") if time[3] else int(time[1])
    return 60 * hours + int(time[2] or 0)


def same_ratio(prediction: str, answer: str) -> bool | None:
    """Compare ratios such as 2:3 and 4:6; None if neither is one.

    >>> same_ratio("2:3", "4:6"), same_ratio("12:30", "6:15"), same_ratio("2:3", "3:2"), same_ratio("1:2", "0.5")
    (True, False, False, True)
    """
    given = re.sub(r" to ", ":", plain(prediction)) if ":" in answer else prediction
    parts = [[parse_number(part) for part in split(text, (":",))[0]] for text in (given, answer)]
    if max(map(len, parts)) == 1:
        return None
    if any(re.fullmatch("[0-9]{1,2}:[0-5][0-9]", text) for text in (prediction, answer)):
        return False
    numbers = [[number.value for number in side if number is not None] for side in parts]
    if min(map(len, numbers)) == 1:
        numbers = [side if len(side) > 1 else [side[0], Fraction(1)] for side in numbers]
    one, other = numbers
    if len(one) != len(other) or any(None in side for side in parts) or 0 in (one[-1], other[-1]):
        return False
    return [value / one[-1] for value in one] == [value / other[-1] for value in other]


def same_digits(prediction: str, answer: str) -> bool | None:
    """Compare numbers of which at least one states its base; the accepted one's base may be left out."""
    given, expected = (_based(text) for text in (prediction, answer))
    if given is None and expected is None:
        return None
    if given and expected:
        return given == expected
    if expected:
        return plain(prediction).upper() == expected[0]
    return given is not None and given == (answer.upper(), 10)


def _based(text: str) -> tuple[str, int] | None:
    match = _BASE.fullmatch(plain(text))
    if match is None:
        return None
    base = match[2] or match[4]
    if not re.search("[0-9]", match[1] or match[3]) and base != "16":
        return None
    number = int(base) if base.isdigit() else number_in_words({"binary": "two"}.get(base, base))
    return ((match[1] or match[3]).upper(), int(number)) if number else None


def _is_share(percentage: str, share: str, compare: Compare) -> bool:
    number = parse_number(percentage)
    if number is None:
        return compare(rf"\frac{{{percentage}}}{{100}}", share)
    other = parse_number(share)
    scaled = _scaled(number, Fraction(1, 100))
    if other is not None:
        return same_number(scaled, other)
    return compare(rf"\frac{{{scaled.value.numerator}}}{{{scaled.value.denominator}}}", share)


def _scaled(number: Number, factor: Fraction) -> Number:
    return Number(number.value * factor, number.place * factor, number.digits, number.scientific)
