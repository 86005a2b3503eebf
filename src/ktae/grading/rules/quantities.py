"""Values with units and percent signs, numbers in another base, and ratios."""

import re
from collections.abc import Callable
from fractions import Fraction

from ktae.grading.rules.numerals import Number, parse_number, same_number
from ktae.grading.rules.structure import split
from ktae.grading.rules.symbolic import same_formula
from ktae.grading.rules.units import DEGREE, PERCENT, split_unit

_BASE = re.compile(r"([0-9A-F]+)\s*_\{\s*(?:\\text\{)?\s*([0-9]+|[a-z]+)\s*\}?\s*\}")
_TIME = re.compile(r"[0-9]{1,2}:[0-5][0-9]")


def same_quantity(
    prediction: str, answer: str, compare: Callable[[str, str], bool], relative_tolerance: float | None
) -> bool | None:
    r"""Compare two cleaned answers of which at least one has a unit, a percent sign or a base.

    Args:
        prediction: a cleaned answer.
        answer: the accepted one.
        compare: whether two values without units are the same.
        relative_tolerance: for values in different units.

    Returns:
        None if neither has any.
    """
    (value, unit), (expected, expected_unit) = split_unit(prediction), split_unit(answer)
    if (value, expected) == (prediction, answer):
        return _same_digits(prediction, answer)
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
    if unit is None or expected_unit is None:
        if DEGREE in (unit, expected_unit):
            degrees, other = (value, expected) if unit else (expected, value)
            if r"\pi" in other:
                return same_formula(rf"\frac{{\pi}}{{180}} \cdot ({degrees})", other)
        return compare(value, expected)
    if unit.kind != expected_unit.kind:
        return False
    if unit.factor == expected_unit.factor:
        return compare(value, expected)
    number, expected_number = parse_number(value), parse_number(expected)
    if number is None or expected_number is None:
        return False
    return same_number(_scaled(number, unit.factor), _scaled(expected_number, expected_unit.factor), relative_tolerance)


def same_ratio(prediction: str, answer: str) -> bool | None:
    """Compare ratios such as 2:3 and 4:6; None if neither is one, or only their spelling can decide, as with times.

    >>> same_ratio("2:3", "4:6"), same_ratio("12:30", "6:15"), same_ratio("2:3", "3:2"), same_ratio("1:2", "0.5")
    (True, False, False, True)
    """
    parts = [[parse_number(part) for part in split(text, (":",))[0]] for text in (prediction, answer)]
    if max(map(len, parts)) == 1:
        return None
    if any(_TIME.fullmatch(text) for text in (prediction, answer)):
        return False
    numbers = [[number.value for number in side if number is not None] for side in parts]
    if min(map(len, numbers)) == 1:
        numbers = [side if len(side) > 1 else [side[0], Fraction(1)] for side in numbers]
    one, other = numbers
    if len(one) != len(other) or any(None in side for side in parts) or 0 in (one[-1], other[-1]):
        return False
    return [value / one[-1] for value in one] == [value / other[-1] for value in other]


def _same_digits(prediction: str, answer: str) -> bool | None:
    """Compare numbers of which at least one states its base; the accepted one's base may be left out."""
    given, expected = _BASE.fullmatch(prediction), _BASE.fullmatch(answer)
    if given is None and expected is None:
        return None
    if given and expected:
        return given.groups() == expected.groups()
    return prediction == expected[1] if expected else given is not None and given[2] == "10" and given[1] == answer


def _is_share(percentage: str, share: str, compare: Callable[[str, str], bool]) -> bool:
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
