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
from ktae.grading.rules.words import SCALES, TEXT, number_in_words, plain

# Beside pint's own: money, and temperatures, which it would convert to kelvin.
_DEFINITIONS = (
    *("dollar = [dollar] = USD", "cent = 0.01 dollar", "euro = [euro] = EUR", "sterling = [sterling] = GBP"),
    *("yen = [yen] = JPY", "yuan = [yuan] = RMB = CNY", "rupee = [rupee] = INR"),
    *("celsius = [celsius]", "fahrenheit = [fahrenheit]"),
)
# What units are called elsewhere, each sign before its word.
_PAIRS = (
    r"$ dollar \$ dollar € euro £ sterling ¥ yen ₹ rupee ¢ cent \cdot * \mu µ ^{\circ} degree "
    "厘米 cm 毫米 mm 分米 dm 千米 km 公里 km 米 m 千克 kg 公斤 kg 克 g 吨 tonne 毫升 mL 升 L 秒 s 分钟 min 小时 hour "
    "時間 hour 天 day 周 week 年 year 元 yuan 円 yen 度 degree 平方 square 立方 cubic"
)
_CALLED: dict[str, str] = dict(zip(_PAIRS.split()[::2], _PAIRS.split()[1::2], strict=True))
_SIGN = re.compile("|".join(map(re.escape, sorted(_CALLED, key=len, reverse=True))))
_CJK_COUNTER = re.compile("[个個种種人次只条张本名位块辆件]?(?:方法|[^\\W\\da-zA-Z]{0,3})")
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
_BARE = r"(?<![A-Za-z\\])[A-Za-zÅ]+\.?|[^\x00-\x7f]+"
_PIECE = rf"(?:{TEXT}|{_BARE}|%|\^\{{\\circ\}}|\\\$|[€£¥₹¢]|\\mu\s?)(?:\s*\^\s*\{{\s*-?[0-9]\s*\}})?"
_TAIL = re.compile(rf"\s*(?:/\s*)?{_PIECE}(?:\s*(?:/|\\cdot|\*)?\s*{_PIECE})*\s*\Z|\s*\\pmod\s*\{{[^{{}}]*\}}\s*\Z")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|cis)(?![a-z])")
_CURRENCY = re.compile(
    r"([-+]?)\s*(?:\\text\{\s*)?(?:US)?\s*(\\\$|[€£¥₹]|USD|EUR|GBP|INR|Rs\.?)(?:\s*\})?\s*(?=[-0-9.\\])"
)
_MONEY = re.compile("dollars?|USD|euros?")
_VARIABLE = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]")
_BASE = re.compile(r"\(?([0-9A-Za-z]+)\)?(?:\s*_\{\s*\(?([0-9]+|[a-z]+)\)?\s*\}| \(?(?:in )?base (\w+)\)?)")
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
RADIAN = Unit(1, "radian")
DEGREE = Unit(1, "degree")
_ANGLES = {"radian": RADIAN, "rad": RADIAN, "degree": DEGREE, "deg": DEGREE}
_ANGLES |= {"arcmin": Unit(1 / 60, "degree"), "arcsec": Unit(1 / 3600, "degree")}


@cache
def _registry() -> Any:
    registry = require("pint", "train").UnitRegistry(on_redefinition="ignore")
    for definition in _DEFINITIONS:
        registry.define(definition)
    return registry


def split_unit(text: str, is_reference: bool = False, beside_unit: bool = False) -> tuple[str, Unit | None]:
    r"""Split a cleaned answer into its value and its unit; the unit is None without one.

    `is_reference`: this is the accepted answer, where any few words behind the value are a label. `beside_unit`: the
    other answer has a unit, so that a bare letter is one as well.

    >>> split_unit(r"15\text{ cm}^{2}"), split_unit("6m")
    (('15', Unit(factor=0.0001, kind='[length] ** 2')), ('6m', None))
    """
    if text[:1].isalpha():
        words = text.split()
        for end in range(len(words) - 1, 0, -1):
            spelled, rest = " ".join(words[:end]), " ".join(words[end:])
            if number_in_words(spelled) is not None and (read := read_unit(_words(rest), is_reference)):
                return spelled, read
    value, currency = text, None
    if match := _CURRENCY.match(text):
        currency, value = read_unit(_words(match[2].rstrip(".")), True), match[1] + text[match.end() :]
        if parse_number(value):
            return value, currency
    match = _TAIL.search(value)
    before = value[: match.start()].strip() if match else ""
    if not match or not before:
        return value, currency
    words = _words(match[0])
    is_argument = match[0].lstrip().startswith("^") and _TRIGONOMETRY.search(value)  # of sin 30 degrees
    is_bare = not beside_unit and not _may_be_bare(before, match[0])
    if is_argument or is_bare or (currency and not _MONEY.fullmatch(words)):
        return text, None
    if _NEUTRAL.fullmatch(words) or words.startswith("mod"):
        return before, None
    while words.partition(" ")[0].lower().removesuffix("s") in SCALES and " " in words:
        before, words = f"{before} {words.partition(' ')[0]}", words.partition(" ")[2]
    read = read_unit(words, is_reference)
    return (before, read) if read else (text, None)


def _may_be_bare(value: str, tail: str) -> bool:
    """Whether letters outside of a text may be a unit: they follow a number, and are no product of variables."""
    bare = re.findall(_BARE, re.sub(TEXT, " ", tail))
    if not bare:
        return True
    shortest = 2 if tail[0] == " " or "/" in tail else 3
    is_word = not bare[0].isascii() or len(bare[0]) >= shortest or tail[0] == "^"
    return is_word and not _VARIABLE.search(value)


def _words(tail: str) -> str:
    """The words of a unit, as pint writes it."""
    tail = _SIGN.sub(lambda match: f" {_CALLED[match[0]]} ", plain(tail))
    tail = re.sub(r"\s*\^\s*\{?\s*(-?[0-9])\s*\}?", r"**\1", tail)
    tail = re.sub(r"\bdegrees?\s*C(?:elsius)?\b", "celsius", tail)
    tail = re.sub(r"\bdegrees?\s*F(?:ahrenheit)?\b", "fahrenheit", tail)
    return re.sub(r"\s+", " ", re.sub(r"µ\s+", "µ", tail.replace(r"\pmod", "mod "))).strip(" ,")


@cache
def read_unit(words: str, is_reference: bool = False) -> Unit | None:
    """The unit that words name, None if they name none."""
    if words.lower() in _PERCENT:
        return PERCENT
    if known := _ANGLES.get(words.rstrip("s")) or _convertible(words):
        return known
    is_label = is_reference and words.count(" ") < _MAX_WORDS
    is_counter = not words.isascii() and _CJK_COUNTER.fullmatch(words) and not any(sign in SCALES for sign in words)
    if is_counter or ((is_label or _COUNTED.fullmatch(words)) and not _NO_UNITS.search(words)):
        return Unit(1, words.lower().removesuffix("s"))
    return None


def _convertible(words: str) -> Unit | None:
    words = re.sub(r"^(?:/|per\b)", "1 / ", words.replace(".", " ").strip())
    for spelled in (words, re.sub("[A-Za-z]{4,}", lambda word: word[0].lower(), words)):
        try:
            unit = _registry().Quantity(1, _registry().parse_units(spelled)).to_base_units()
        except Exception:  # pint's parser raises errors of many kinds on what it does not know
            continue
        return Unit(float(unit.magnitude), str(unit.dimensionality)) if unit.dimensionality else None
    return None


def same_quantity(prediction: str, answer: str, compare: Compare, relative_tolerance: float | None) -> bool | None:
    """Compare two cleaned answers of which at least one has a unit or a percent sign; None if neither has.

    `compare` is for values without units, `relative_tolerance` for values in different ones.
    """
    expected, expected_unit = split_unit(answer, is_reference=True)
    value, unit = split_unit(prediction, beside_unit=expected_unit is not None)
    units = {unit, expected_unit}
    if (value, expected) == (prediction, answer):
        return None
    if PERCENT in units and unit != expected_unit:
        if expected_unit == PERCENT:  # then the sign may be left out
            return unit is None and (compare(value, expected) or _is_share(expected, value, compare))
        # A number above 1 is no share: it is a percentage whose sign the answer leaves out.
        number = parse_number(expected)
        is_percentage = number is not None and abs(number.value) > 1 and compare(value, expected)
        return expected_unit is None and (is_percentage or _is_share(value, expected, compare))
    if DEGREE in units and units <= {DEGREE, RADIAN, None} and unit != expected_unit:
        degrees, other = (value, expected) if unit == DEGREE else (expected, value)
        if r"\pi" in other:
            return same_formula(rf"\frac{{\pi}}{{180}} \cdot ({degrees})", other)
        return RADIAN not in units and compare(value, expected)
    if unit is None or expected_unit is None or unit == expected_unit:
        return compare(value, expected)
    if unit.kind != expected_unit.kind:
        is_pound = {unit.kind, expected_unit.kind} == {"[mass]", "[sterling]"} and "pound" in prediction + answer
        return is_pound and compare(value, expected)
    number, expected_number = parse_number(value), parse_number(expected)
    if number is None or expected_number is None:
        return False
    factor = Fraction(unit.factor / expected_unit.factor).limit_denominator(10**12)
    return same_number(number.times(factor), expected_number, relative_tolerance or _CONVERSION)


def _is_share(percentage: str, share: str, compare: Compare) -> bool:
    number, other = parse_number(percentage), parse_number(share)
    if number and other:
        return same_number(number.times(Fraction(1, 100)), other)
    value = number.value if number else percentage
    return compare(rf"\frac{{{value}}}{{100}}", share)


def same_compound(prediction: str, answer: str, relative_tolerance: float | None) -> bool | None:
    r"""Compare quantities of which at least one is a sum in falling units, as 1 hour 30 minutes; None without any."""
    totals = [_sum_of_parts(prediction), _sum_of_parts(answer)]
    if totals == [None, None]:
        return None
    for index, text in enumerate((prediction, answer)):
        if totals[index] is None:
            value, unit = split_unit(text, is_reference=text == answer, beside_unit=True)
            totals[index] = _total([(parse_number(value), unit)])
    if None in totals:
        return None
    (number, kind), (expected, expected_kind) = (total for total in totals if total)
    return kind == expected_kind and same_number(number, expected, relative_tolerance or _CONVERSION)


def _sum_of_parts(text: str) -> tuple[Number, str] | None:
    text = plain(text.replace(r"^{\circ}", r"\text{degree}"))
    parts = list(_PART.finditer(text))
    if len(parts) < 2 or sum(len(part[0]) for part in parts) != len(text):
        return None
    return _total([(parse_number(part[1]), read_unit(part[2])) for part in parts])


def _total(parts: list[tuple[Number | None, Unit | None]]) -> tuple[Number, str] | None:
    """The sum in base units and their kind, None unless the parts are quantities of one kind in falling units."""
    read = [(number, unit) for number, unit in parts if number and unit]
    factors = [unit.factor for _, unit in read]
    is_falling = all(one > other for one, other in itertools.pairwise(factors))
    if len(read) < len(parts) or not is_falling or len({unit.kind for _, unit in read}) > 1:
        return None
    total = sum((number.value * Fraction(unit.factor) for number, unit in read), Fraction(0))
    return Number(total, Fraction(1, 10**9)), read[0][1].kind


def same_time(prediction: str, answer: str) -> bool | None:
    """Compare times of day, in 12 or 24 hours; None if the answer is none, or may be a ratio.

    >>> same_time("15:00", "3:00 pm"), same_time("3:00 am", "3:00 pm"), same_time("2:30", "2:03"), same_time("3", "3")
    (True, False, None, None)
    """
    given, expected = (_TIME.fullmatch(plain(text)) for text in (prediction, answer))
    if expected is None or not (expected[2] or expected[3]):
        return None
    if not expected[3] and not (given and given[3]) and int(expected[1]) < 13:
        return None
    if given is None or not (given[2] or given[3]):
        return False
    one, other = _minutes(given), _minutes(expected)
    return one == other or (not given[3] and one < 13 * 60 and one == other % 720)


def _minutes(time: re.Match[str]) -> int:
    hours = int(time[1]) % 12 + 12 * (time[3][0].lower() == "p") if time[3] else int(time[1])
    return 60 * hours + int(time[2] or 0)


def same_ratio(prediction: str, answer: str) -> bool | None:
    """Compare ratios such as 2:3 and 4:6; None if neither is one.

    >>> same_ratio("2:3", "4:6"), same_ratio("12:30", "6:15"), same_ratio("2:3", "3:2"), same_ratio("1:2", "0.5")
    (True, False, False, True)
    """
    given = re.sub(r" to ", ":", plain(prediction)) if ":" in answer else prediction
    sides = [split(text, (":",))[0] for text in (given, answer)]
    if max(map(len, sides)) == 1:
        return None
    if any(re.fullmatch("[0-9]{1,2}:[0-5][0-9]", text) for text in (prediction, answer)):
        return False
    one, other = ([parse_number(part) for part in (side if len(side) > 1 else [*side, "1"])] for side in sides)
    values, expected = ([part.value for part in side if part] for side in (one, other))
    if len(values) != len(expected) or None in (*one, *other) or 0 in (values[-1], expected[-1]):
        return False
    return [value / values[-1] for value in values] == [value / expected[-1] for value in expected]


def same_digits(prediction: str, answer: str) -> bool | None:
    """Compare numbers of which at least one states its base; the accepted one's base may be left out."""
    given, expected = _based(prediction), _based(answer)
    if expected and not given:
        return plain(prediction).upper() == expected[0]
    return given == (expected or (answer.upper(), 10)) if given else None


def _based(text: str) -> tuple[str, int] | None:
    match = _BASE.fullmatch(plain(text))
    base = (match[2] or match[3]) if match else ""
    if not match or (not re.search("[0-9]", match[1]) and base != "16"):
        return None
    number = int(base) if base.isdigit() else number_in_words({"binary": "two"}.get(base, base))
    return (match[1].upper(), int(number)) if number else None
