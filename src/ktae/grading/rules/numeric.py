"""Formulas where they are evaluated: at random points, and so far that no neighbour passes for the value."""

import random
from typing import Any

from ktae.extras import require

# Digits to which two formulas must agree, counted from the point for values above 1, and how many more are computed.
_DIGITS = 25
_GUARD_DIGITS = 15
_MAX_DIGITS = 4000  # of the integer part of a value; larger ones are not compared
_POINTS = 3
WIDE = 60  # points for what has steps or kinks
_INTEGERS = 30


def value_at(expression: Any, point: dict[Any, Any], digits: int = _DIGITS + _GUARD_DIGITS) -> Any:
    """The finite number that a sympy expression has at a point, None without one."""
    sympy = require("sympy", "train")
    # Exact fractions in exponents would be exact roots.
    floats = {name: value if value.is_Integer else sympy.Float(value, digits + 20) for name, value in point.items()}
    try:
        value = sympy.N(expression.xreplace(floats), digits)
    except (ArithmeticError, AttributeError, TypeError, ValueError, NotImplementedError):  # sympy has its limits
        return None
    return value if value.is_number and value.is_finite and not value.has(sympy.Function, sympy.Integral) else None


def agree(one: Any, other: Any, points: list[dict[Any, Any]], slack: float | None = None) -> bool:
    """Whether two sympy expressions have the same value at each point, to 25 digits or to a share `slack`."""
    return all(_agree_at(one, other, point, slack) for point in points)


def ratio(above: Any, below: Any, points: list[dict[Any, Any]]) -> Any:
    """The quotient of two sympy expressions if it is the same number at each point, otherwise None."""
    sympy = require("sympy", "train")
    found = []
    for point in points:
        values = value_at(above, point), value_at(below, point)
        if None in values or values[1] == 0:
            return None
        found.append(sympy.N(values[0] / values[1], _DIGITS + _GUARD_DIGITS))
    return found[0] if all(_size(one - found[0]) <= 10.0**-_DIGITS * _size(one) for one in found) else None


def points(symbols: set[Any], number: int = _POINTS, signed: bool = False) -> list[dict[Any, Any]]:
    """Random points, the same every time; the more there are, the further out they go."""
    sympy = require("sympy", "train")
    generator = random.Random(0)
    signs = (1, -1) if signed else (1,)
    return [
        {
            symbol: sympy.Rational(
                generator.randint(300, 3000) * (1 + index // _POINTS) * generator.choice(signs), 1009
            )
            for symbol in sorted(symbols, key=str)
        }
        for index in range(number)
    ]


def integer_points(symbols: set[Any]) -> list[dict[Any, Any]]:
    """All small integers for one variable, random ones for several."""
    sympy = require("sympy", "train")
    if len(symbols) == 1:
        return [{symbol: sympy.Integer(n) for symbol in symbols} for n in range(1, _INTEGERS)]
    generator = random.Random(0)
    return [
        {symbol: sympy.Integer(generator.randrange(1, _INTEGERS)) for symbol in sorted(symbols, key=str)}
        for _ in range(5 * _INTEGERS)
    ]


def _agree_at(one: Any, other: Any, point: dict[Any, Any], slack: float | None) -> bool:
    sympy = require("sympy", "train")
    values = value_at(one, point), value_at(other, point)
    if None in values:
        return False
    size = max(map(_size, values))
    if slack is None and size > 1:
        # To 25 digits 2^1009 is its own neighbour.
        digits = int(sympy.log(size, 10)) + 1
        if digits > _MAX_DIGITS:
            return False
        values = tuple(value_at(side, point, _DIGITS + _GUARD_DIGITS + digits) for side in (one, other))
        size = sympy.Integer(1)
    if 0 in values:  # what is left of a sum that cancels
        return bool(size < sympy.Float(10) ** -(_DIGITS + 10))
    return None not in values and bool(_size(values[0] - values[1]) <= size * (slack or sympy.Float(10) ** -_DIGITS))


def _size(value: Any) -> Any:
    sympy = require("sympy", "train")
    return sympy.N(sympy.Abs(value), 15)
