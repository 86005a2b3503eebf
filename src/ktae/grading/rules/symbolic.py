"""Whether two formulas are equal, by math-verify's parser and sympy. This can hang or exhaust the memory.

Formulas with variables are compared where they are evaluated, at random points and to 25 digits. That also settles
what simplification leaves open, and refutes a wrong formula fast.
"""

import random
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy

from ktae.extras import require
from ktae.grading.rules.numerals import Number, parse_number, same_number

# Digits to which two formulas must agree, counted from the point for values above 1, and how many more are computed.
_DIGITS = 25
_GUARD_DIGITS = 15
_MAX_DIGITS = 4000  # of the integer part of a value; larger ones are not compared
_POINTS = 3
_WIDE = 60  # points for what has steps or kinks
_INTEGERS = 30
_INTEGER_NAMES = frozenset("klmnKMN")
# What the parser would misread, two numbers side by side among it.
_UNREADABLE = re.compile(
    r"\\(?:text|coth|csch|sech|[lcv]?dots|lim|begin\s*\{cases)(?![a-z])|\\[bp]?mod|['?]|\.\.|(?<![\w\\{,.])[0-9.]+\s+[0-9]|[0-9]\s*_"
)
# Products that it would read as mixed numbers: 2(3) is 6.
_PRODUCT = re.compile(
    r"((?:[0-9]|\)|\\frac\{[^{}]*\}\{[^{}]*\}(?=\s*[0-9(])))\s*(?=\()|(\)|\\frac\{[^{}]*\}\{[^{}]*\})\s*(?=[0-9])"
)
# To it e and E are Euler's number, which has no index.
_INDEXED_E = re.compile(r"\\[a-zA-Z]+|([eE])(?=\s*_\{)")
_CIS = re.compile(r"\\cis\s*(\([^()]*\)|[0-9.]*(?:\^\{\\circ\}|\s*\\?[a-z]+)?|\\frac\{[^{}]*\}\{[^{}]*\})")
_ANGLE = re.compile(r"([0-9.]+)\s*\^\{\\circ\}")


@lru_cache(maxsize=64)
def parse(latex: str) -> Any:
    """The sympy object that a cleaned formula stands for, None if it cannot be read."""
    if _UNREADABLE.search(latex):
        return None
    parser = require("latex2sympy2_extended.latex2sympy2", "train")
    latex = _INDEXED_E.sub(lambda match: rf"\mathcal{{{match[1]}}}" if match[1] else match[0], latex)
    latex = _CIS.sub(r"\\exp(i(\1))", latex)
    latex = _PRODUCT.sub(r"\1\2 \\cdot ", _ANGLE.sub(r"(\1 \\cdot \\pi / 180)", latex))
    try:
        # By default R and r would be the same.
        config = parser.ConversionConfig(lowercase_symbols=False)
        return parser.latex2sympy(latex, normalization_config=None, conversion_config=config)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # the parser raises Exception itself on a text that it does not understand
        return None


def same_formula(prediction: str, answer: str, relative_tolerance: float | None = None) -> bool:
    """Whether two cleaned formulas are equal: numbers, expressions, matrices, or sets.

    Roots and logarithms are taken for positive variables, and `i` also for the imaginary unit. Decimals are exact, but
    for the tolerance and for one that alone is compared with a constant, see `same_number`.
    """
    predicted, expected = parse(prediction), parse(answer)
    if predicted is None or expected is None:
        return False
    if isinstance(predicted, sympy.Expr) and isinstance(expected, sympy.Expr):
        written = parse_number(prediction), parse_number(answer)
        return _same_expression(predicted, expected, written, relative_tolerance)
    sides: list[Any] = [side.doit() if isinstance(side, sympy.MatrixExpr) else side for side in (predicted, expected)]
    if all(isinstance(side, sympy.MatrixBase) for side in sides):
        return sides[0].shape == sides[1].shape and all(
            _same_expression(one, other, (None, None), relative_tolerance) for one, other in zip(*sides, strict=True)
        )
    if isinstance(predicted, sympy.Set) and isinstance(expected, sympy.Set):
        return bool(_exact(predicted).doit() == _exact(expected).doit())
    return False


def constant(latex: str) -> Fraction | None:
    """The approximate value of a formula that is a real constant, None for any other."""
    expression = parse(latex)
    if not isinstance(expression, sympy.Expr) or expression.free_symbols:
        return None
    number = _as_number(expression)
    return number.value if number else None


def same_up_to_factor(prediction: Sequence[str], answer: Sequence[str], positive: bool) -> bool:
    """Whether the differences of two statements' two sides have a constant ratio, for inequalities a positive one."""
    sides = [parse(side) for side in (*prediction, *answer)]
    if not all(isinstance(side, sympy.Expr) for side in sides):
        return False
    above, below = (_exact(sides[k]) - _exact(sides[k + 1]) for k in (0, 2))
    symbols = above.free_symbols
    if not symbols or symbols != below.free_symbols:
        return False
    factors = []
    for point in _points(symbols):
        values = _value_at(above, point), _value_at(below, point)
        if None in values or values[1] == 0:
            return False
        factors.append(sympy.N(values[0] / values[1], _DIGITS + _GUARD_DIGITS))
    first = factors[0]
    is_constant = all(_size(one - first) <= 10.0**-_DIGITS * _size(one) for one in factors)
    return is_constant and bool(first.is_real and first > 0 if positive else first != 0)


def same_scaled_equation(prediction: Sequence[str], answer: Sequence[str], unknowns: set[str]) -> bool:
    """Whether two differential equations differ by a factor that is a product of other variables than these."""
    sides = [parse(side) for side in (*prediction, *answer)]
    if not all(isinstance(side, sympy.Expr) for side in sides):
        return False
    factor = sympy.cancel((_exact(sides[0]) - _exact(sides[1])) / (_exact(sides[2]) - _exact(sides[3])))
    if factor == 0 or not all(base.is_Symbol or base.is_Number for base in factor.as_powers_dict()):
        return False
    names = {re.sub(r"[\W_]", "", symbol.name) for symbol in factor.free_symbols}
    return not any(unknown.startswith(name) or unknown.endswith(name) for name in names for unknown in unknowns)


def _same_expression(
    predicted: Any, expected: Any, written: tuple[Number | None, Number | None], relative_tolerance: float | None
) -> bool:
    has_decimals = bool(predicted.atoms(sympy.Float) | expected.atoms(sympy.Float))
    slack = relative_tolerance if has_decimals else None
    predicted, expected = _exact(predicted), _exact(expected)
    if predicted == expected:
        return True
    symbols = predicted.free_symbols | expected.free_symbols
    if not symbols:
        return _same_constant(predicted, expected, written, slack)
    if any(side.has(sympy.floor, sympy.ceiling, sympy.Mod) or _alternates(side) for side in (predicted, expected)):
        # For integers more is equal, as n - floor(n/2) and ceiling(n/2) are.
        are_integers = {symbol.name for symbol in symbols} <= _INTEGER_NAMES
        where = _integer_points(symbols) + ([] if are_integers else _points(symbols, _WIDE))
    elif any(side.has(sympy.Abs, sympy.sign, sympy.Max, sympy.Min) for side in (predicted, expected)):
        where = _points(symbols, _WIDE, signed=True)
    else:
        where = _points(symbols)
    if all(_agree(predicted, expected, point, slack) for point in where):
        return True
    imaginary = {symbol: sympy.I for symbol in symbols if symbol.name == "i"}
    return bool(imaginary) and _same_expression(
        predicted.xreplace(imaginary), expected.xreplace(imaginary), written, slack
    )


def _same_constant(
    predicted: Any, expected: Any, written: tuple[Number | None, Number | None], slack: float | None
) -> bool:
    done = predicted.doit(), expected.doit()
    exact = done[0] == done[1] if all(side.is_Rational for side in done) else _agree(predicted, expected, {}, None)
    if exact or written == (None, None):
        return exact
    # A decimal stands for the other, if that is not rational.
    number, expected_number = (given or _as_number(side) for given, side in zip(written, done, strict=True))
    return number is not None and expected_number is not None and same_number(number, expected_number, slack)


def _as_number(side: Any) -> Number | None:
    value = side if side.is_Rational else _value_at(side, {}, 60)
    if value is None or not value.is_real:
        return None
    return Number(Fraction(value.p, value.q) if value.is_Rational else Fraction(str(value)))


def _alternates(expression: Any) -> bool:
    return any(power.base == -1 for power in expression.atoms(sympy.Pow)) or expression.has(sympy.cos)


def _exact(expression: Any) -> Any:
    """With decimals as the fractions that they spell, and function values such as f(x) as variables."""
    undefined = sympy.core.function.AppliedUndef
    names = {value: sympy.Symbol(str(value)) for value in expression.atoms(undefined)}
    decimals = {value: sympy.Rational(str(value)) for value in expression.atoms(sympy.Float)}
    return expression.xreplace(names).xreplace(decimals)


def _value_at(expression: Any, point: dict[Any, Any], digits: int = _DIGITS + _GUARD_DIGITS) -> Any:
    """The finite number that a sympy expression has at a point, None without one."""
    # Exact fractions in exponents would be exact roots.
    floats = {name: value if value.is_Integer else sympy.Float(value, digits + 20) for name, value in point.items()}
    try:
        value = sympy.N(expression.xreplace(floats), digits)
    except (ArithmeticError, AttributeError, TypeError, ValueError, NotImplementedError):  # sympy has its limits
        return None
    return value if value.is_number and value.is_finite and not value.has(sympy.Function, sympy.Integral) else None


def _points(symbols: set[Any], number: int = _POINTS, signed: bool = False) -> list[dict[Any, Any]]:
    """Random points, the same every time; the more there are, the further out they go."""
    generator = random.Random(0)
    names, signs = sorted(symbols, key=str), (1, -1) if signed else (1,)
    reach = [1009 // (1 + index // _POINTS) for index in range(number)]
    return [
        {name: sympy.Rational(generator.randint(300, 3000) * generator.choice(signs), below) for name in names}
        for below in reach
    ]


def _integer_points(symbols: set[Any]) -> list[dict[Any, Any]]:
    """All small integers for one variable, random ones for several."""
    generator, names = random.Random(0), sorted(symbols, key=str)
    if len(names) == 1:
        return [{names[0]: sympy.Integer(value)} for value in range(1, _INTEGERS)]
    return [{name: sympy.Integer(generator.randrange(1, _INTEGERS)) for name in names} for _ in range(5 * _INTEGERS)]


def _agree(one: Any, other: Any, point: dict[Any, Any], slack: float | None) -> bool:
    """Whether two sympy expressions have the same value at a point, to 25 digits or to a share `slack`."""
    values = _value_at(one, point), _value_at(other, point)
    if None in values:
        return False
    size = max(map(_size, values))
    if slack is None and size > 1:
        # To 25 digits 2^1009 is its own neighbour.
        digits = int(sympy.log(size, 10)) + 1
        if digits > _MAX_DIGITS:
            return False
        values = tuple(_value_at(side, point, _DIGITS + _GUARD_DIGITS + digits) for side in (one, other))
        size = sympy.Integer(1)
    if 0 in values:  # what is left of a sum that cancels
        return bool(size < sympy.Float(10) ** -(_DIGITS + 10))
    return None not in values and bool(_size(values[0] - values[1]) <= size * (slack or sympy.Float(10) ** -_DIGITS))


def _size(value: Any) -> Any:
    return sympy.N(sympy.Abs(value), 15)
