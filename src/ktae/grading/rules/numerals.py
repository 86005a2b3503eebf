r"""Numbers that an answer writes out: exactly, with the place of the last digit that it states.

Nothing here can hang: numbers of more than a few hundred digits are left to others.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from ktae.grading.rules.words import SCALES, number_in_words, plain

# Limits of what is worth an exact fraction.
_MAX_LENGTH = 400
_MAX_EXPONENT = 400
# A decimal stands for a number that has none, such as 1/3 or pi, from this many significant digits on.
ROUNDED_DIGITS = 6
# What makes a number a rounded one, if it is written in scientific notation. One digit, as in 1e-5, is too coarse.
_STATED_DIGITS = 2

_DIGITS = r"(?:[0-9]{1,3}(?:[, ][0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_DECIMAL = re.compile(
    rf"([-+]?)\s*(?:(?P<digits>{_DIGITS})\s*(?:[eE]\s*(?P<e>[-+]?[0-9]+)|(?:\\times|\\cdot|\*)\s*10\s*\^\s*"
    r"(?:\{\s*(?P<power>[-+]?[0-9]+)\s*\}|\(\s*(?P<round>[-+]?[0-9]+)\s*\)))?"
    r"|10\s*\^\s*\{\s*(?P<alone>[-+]?[0-9]+)\s*\})"
)
_FRACTION = re.compile(
    r"([-+]?)\s*(?P<whole>[0-9]+(?![0-9]))?\s*(?:\\frac\s*\{\s*(?P<minus>-?)\s*(?P<a>[0-9]+)\s*\}\s*\{\s*(?P<b>[0-9]+)\s*\}"
    r"|(?P<c>[0-9]+)\s*/\s*(?P<d>[0-9]+))"
)
# 0.1(6), 0.1\overline{6}, 0.1\dot{6}, 0.1666...
_REPEATING = re.compile(
    r"([-+]?)([0-9]*)\.([0-9]*?)(?:\\(?:overline|bar|dot)\s*\{?([0-9]+)\}?|\(([0-9]+)\)"
    r"|\\dot\s*\{?([0-9])\}?([0-9]*)\\dot\s*\{?([0-9])\}?|([0-9]+?)\9+\s*\\dots)"
)
_SCALED = re.compile(rf"(.*[0-9.)}}])\s*({'|'.join(SCALES)})s?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Number:
    """A number as written."""

    value: Fraction  # what it stands for if all its digits are exact
    place: Fraction = Fraction(0)  # the value of a one in its last digit; 0 for an integer or a fraction: exact
    digits: int = 0  # the significant digits stated
    scientific: bool = False  # it has a power of ten, which means that its digits are the significant ones

    def times(self, factor: Fraction) -> "Number":
        """The number in another unit, of which the factor makes it."""
        return Number(self.value * factor, self.place * factor, self.digits, self.scientific)


def parse_number(text: str) -> Number | None:
    """Read a cleaned answer as a number, None if it is anything else or too long.

    >>> [str(parse_number(text).value) for text in ("1 1/2", "1,234", "0.1(6)", "-5 million", "half")]
    ['3/2', '1234', '1/6', '-5000000', '1/2']
    """
    if len(text) > _MAX_LENGTH:
        return None
    text = plain(text)
    if match := _SCALED.fullmatch(text):
        number, scale = parse_number(match[1]), SCALES[match[2].lower()]
        return number and Number(number.value * scale, number.place * scale, number.digits)
    if text[:1].isalpha() and (value := number_in_words(text.replace(" ; ", " and "))) is not None:
        return Number(value)
    text = re.sub(r"^(?:minus|negative) (?=[0-9.])", "-", text)
    if match := _DECIMAL.fullmatch(text):
        exponent = int(match["e"] or match["power"] or match["round"] or match["alone"] or 0)
        if abs(exponent) > _MAX_EXPONENT:
            return None
        if match["alone"]:
            return Number(Fraction(f"{match[1]}1e{exponent}"))
        digits = re.sub("[, ]", "", match["digits"])
        whole, point, decimals = digits.partition(".")
        scientific = bool(match["e"] or match["power"] or match["round"])
        place = Fraction(10) ** (exponent - len(decimals)) if decimals or scientific else Fraction(0)
        significant = (whole + decimals).lstrip("0") if point or scientific else whole.strip("0")
        return Number(Fraction(f"{match[1]}{digits}e{exponent}"), place, len(significant), scientific)
    if match := _REPEATING.fullmatch(text):
        whole, start = match[2] or "0", match[3]
        period = match[4] or match[5] or match[9] or match[6] + match[7] + match[8]
        repeated = Fraction(int(period), 10 ** len(period) - 1) / 10 ** len(start)
        value = Fraction(int(whole + start), 10 ** len(start)) + repeated
        return Number(-value if match[1] == "-" else value)
    if match := _FRACTION.fullmatch(text):
        above, below = int(match["a"] or match["c"]), int(match["b"] or match["d"])
        if below == 0 or (match["whole"] and match["minus"]):
            return None
        value = int(match["whole"] or 0) + Fraction(above, below)
        return Number(-value if (match[1] == "-") != (match["minus"] == "-") else value)
    return None


def same_number(prediction: Number, answer: Number, relative_tolerance: float | None = None) -> bool:
    """Whether two numbers written out are the same.

    They are exact, with two exceptions. A decimal of at least 6 significant digits may be the rounding of a fraction:
    0.333333 is 1/3, and 0.33 is not. And an answer in scientific notation states its significant digits (at least 2):
    4.57e-24 is 4.6e-24, which was rounded, and 4.5e-24 or 5e-24 is not. An integer is no rounding of anything.

    With a relative tolerance, and unless both are exact, the prediction may be off by this share of the answer, or
    round to the digits of an answer that states two or more.
    """
    difference = abs(prediction.value - answer.value)
    if not difference:
        return True
    if not prediction.place and not answer.place:
        return False
    if relative_tolerance is not None and difference <= Fraction(relative_tolerance) * abs(answer.value):
        return True
    if not prediction.place or not answer.place:
        decimal, exact = (prediction, answer) if prediction.place else (answer, prediction)
        cut_off = difference < decimal.place and abs(decimal.value) < abs(exact.value)
        rounded = cut_off or difference <= decimal.place / 2
        if decimal.digits >= ROUNDED_DIGITS and rounded and exact.value.denominator != 1:
            return True
    states_digits = answer.digits >= _STATED_DIGITS and (answer.scientific or relative_tolerance is not None)
    return states_digits and prediction.place <= answer.place and difference <= answer.place / 2
