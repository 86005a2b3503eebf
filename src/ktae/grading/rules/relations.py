"""Equations and inequalities: what they assign, which sets they describe, and whether two are the same."""

import re
from collections.abc import Callable

from ktae.grading.rules.names import (
    align,
    derivatives,
    is_name,
    letters,
    same_name,
    with_argument_of,
    with_parameter_of,
)
from ktae.grading.rules.structure import FLIPPED, items, relation
from ktae.grading.rules.symbolic import constant, same_scaled_equation, same_up_to_factor

_ASSIGNS = {"=", r"\in", r"\approx", r"\equiv"}
# |x - 3|, as in inequalities.
_DISTANCE = re.compile(r"\|\s*([a-z])\s*([+-][^|a-z]*)?\|")
_LESS = {"<": "()", r"\le": "[]"}  # the brackets of an interval
# What an exact value and its approximation may differ by, as a share.
_APPROXIMATION = 0.02
_EXACT = 1e-30


def assignment(text: str) -> tuple[str | None, str]:
    r"""The name and the value of what a cleaned answer assigns; it has no name if it is a value already.

    Of a chain the last member is the value, but the last exact one if others approximate it.

    >>> assignment("x = 2+3 = 5"), assignment(r"\theta \approx 0.5"), assignment("2x = 6")
    (('x', '5'), ('\\theta', '0.5'), (None, '2x = 6'))
    """
    sides, signs = relation(text)
    if signs == ["="] and is_name(sides[1]) and not is_name(sides[0]):
        sides = sides[::-1]
    if not signs or not _ASSIGNS.issuperset(signs) or not is_name(sides[0]) or not all(sides):
        return None, text
    exact = signs.index(r"\approx") if r"\approx" in signs else len(signs)
    return sides[0], sides[exact or -1]


def is_consistent(text: str) -> bool:
    """Whether the constants in a chain of equations are equal, near each other where one is rounded.

    >>> is_consistent("x = 2 = 3"), is_consistent("6*7 = 42"), is_consistent(r"5 \\approx 7"), is_consistent("x = y")
    (False, True, False, True)
    """
    sides, signs = relation(text)
    for sign, one, other in zip(signs, sides, sides[1:], strict=False):
        values = constant(one), constant(other)
        if sign not in ("=", r"\approx") or values[0] is None or values[1] is None:
            continue
        is_rounded = sign != "=" or "." in one + other
        if abs(values[0] - values[1]) > (_APPROXIMATION if is_rounded else _EXACT) * abs(values[0]):
            return False
    return True


def as_set(text: str) -> str | None:
    r"""The set that inequalities about one variable describe, None for other statements.

    Any of them may hold. But a lower bound and an upper one above it are an interval, unless "or" is between.

    >>> as_set(r"x < 1, 2 \le x \le 3"), as_set(r"x \ne 0"), as_set("x > 0 ; x < 1"), as_set("x + y < 1")
    ('(-\\infty,1)\\cup[2,3]', '(-\\infty,0)\\cup(0,\\infty)', '(0,1)', None)
    """
    ranges = [_range(statement) for statement in items(text)]
    sets = [found[1] for found in ranges if found]
    if len(sets) < len(ranges) or len({found[0] for found in ranges if found}) != 1:
        return None
    if len(sets) == 2 and r"\lor" not in text:
        upper, lower = sorted(sets, key=lambda one: not one.startswith(r"(-\infty,"))
        low, high = lower.removesuffix(r",\infty)"), upper.removeprefix(r"(-\infty,")
        first, last = constant(low[1:]), constant(high[:-1])
        if low != lower and high != upper and first is not None and last is not None and first < last:
            return f"{low},{high}"
    return r"\cup".join(sets)


def _range(statement: str) -> tuple[str, str] | None:
    """Of an inequality the name, and the interval that it confines it to."""
    sides, signs = relation(statement)
    distance = _DISTANCE.fullmatch(sides[0])
    if signs and signs[0] in (">", r"\ge") and not distance:
        sides, signs = sides[::-1], [FLIPPED.get(sign, sign) for sign in signs[::-1]]
    if len(signs) == 1 and distance:
        low, high = (f"{sign}({sides[1]})-({distance[2] or 0})" for sign in "-+")
        if signs[0] in _LESS:
            return distance[1], f"{low},{high}".join(_LESS[signs[0]])
        if FLIPPED.get(signs[0]) in _LESS:
            opening, closing = _LESS[FLIPPED[signs[0]]]
            return distance[1], rf"(-\infty,{low}{closing}\cup{opening}{high},\infty)"
    if signs == [r"\ne"] and is_name(sides[0]):
        return sides[0], rf"(-\infty,{sides[1]})\cup({sides[1]},\infty)"
    if not signs or not _LESS.keys() >= {*signs}:
        return None
    if len(sides) == 2 and is_name(sides[0]):
        sides, signs = [r"-\infty", *sides], ["<", *signs]
    elif len(sides) == 2:
        sides, signs = [*sides, r"\infty"], [*signs, "<"]
    if len(sides) != 3 or not is_name(sides[1]):
        return None
    return sides[1], f"{_LESS[signs[0]][0]}{sides[0]},{sides[2]}{_LESS[signs[1]][1]}"


def same_relation(prediction: str, answer: str, compare: Callable[[str, str], bool]) -> bool:
    """Whether two cleaned statements, each with an equals sign or the like, are the same.

    `compare` says whether two answers that are no statements are.
    """
    name, value = assignment(prediction)
    expected_name, expected_value = assignment(answer)
    if name is not None and expected_name is not None and same_name(name, expected_name):
        called_alike = with_argument_of(name, value, expected_name)
        if called_alike is not None and compare(with_parameter_of(called_alike, expected_value), expected_value):
            return True
    if expected_name is not None and not letters(expected_value) and name is None:
        return False  # 2x = 6 is still to be solved
    prediction, answer = align(prediction, answer)
    (sides, signs), (expected, expected_signs) = relation(prediction), relation(answer)
    if signs != expected_signs:
        sides, signs = sides[::-1], [FLIPPED.get(sign, sign) for sign in signs[::-1]]
    if signs != expected_signs:
        return False
    if all(compare(one, other) for one, other in zip(sides, expected, strict=True)):
        return True
    if len(sides) > 2 or signs[0] not in FLIPPED:
        return False
    if same_up_to_factor(sides, expected, positive=signs[0] not in ("=", r"\ne")):
        return True
    unknowns = derivatives(prediction)
    is_differential = signs == ["="] and unknowns and unknowns == derivatives(answer)
    return bool(is_differential) and same_scaled_equation(sides, expected, unknowns)
