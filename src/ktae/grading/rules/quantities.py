"""Values with units and percent signs, times of day, numbers in another base, and ratios."""

import itertools
import re
from collections.abc import Callable
from fractions import Fraction

from ktae.grading.rules.numerals import Number, parse_number, same_number
from ktae.grading.rules.structure import split
from ktae.grading.rules.symbolic import same_formula
from ktae.grading.rules.units import DEGREE, PERCENT, RADIAN, Unit, read_unit, split_unit
from ktae.grading.rules.words import number_in_words, plain

_BASE = re.compile(r"\(?([0-9A-Za-z]+)\)?\s*_\{\s*\(?([0-9]+|[a-z]+)\)?\s*\}|([0-9A-Za-z]+) \(?(?:in )?base (\w+)\)?")
_TIME = re.compile(r"([0-9]{1,2})(?::([0-5][0-9]))?(?::00)? ?([ap]\.?m\.?)?", re.IGNORECASE)
_PART = re.compile(
    r"([0-9]+(?:\.[0-9]+)?(?: [0-9]+/[0-9]+)?)\s*([^\W\d][^0-9;,{}()^\\=+]*?)\s*(?:[;,]\s*)?(?=[0-9]|\Z)"
)
_CONVERSION = 1e-9  # what conversion factors may be off by, as a share

# Whether two cleaned answers are the same.
Compare = Callable[[str, str], bool]


def same_quantity(prediction: str, answer: str, compare: Compare, relative_tolerance: float | None) -> bool | None:
    r"""Compare two cleaned answers of which at least one has a unit or a percent sign.

    Args:
        prediction: a cleaned answer.
        answer: the accepted one.
        compare: whether two values without units are the same.
        relative_tolerance: for values in different units.

    Returns:
        None if neither has any.
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
