r"""What authors call things: the name in an answer such as `x = 5`, derivatives, indices, constants.

Each rule rewrites only what cannot mean something else within the two answers: a name is changed to one that the other
answer uses, and only if its own author does not use that name for anything.
"""

import re

_ACCENT = r"\\(?:vec|overline|bar|hat|dot|ddot|overrightarrow|widehat|mathbf|mathcal|mathbb)\s*\{[^{}]*\}"
_NOT_NAMES = r"frac|sqrt|sum|prod|int|log|ln|exp|pm|mp|cdot|times|begin|end|pi|infty|lfloor|lceil|binom|text|in|cup|cap"
_MARKS = r"(?:\s*_\{[^{}]*\}|\s*\^\{(?:\\prime\s*)+\}|\s*\^\{\*\}|')*"
_SIMPLE = r"\(\s*[\w\\,\s]*\)"  # an argument: a name, a number, several of them
_ATOM = (
    rf"(?:(?:[fghFGHPN]{_MARKS}\s*\([^()=]*\)"
    rf"|(?:{_ACCENT}|\\(?!(?:{_NOT_NAMES})(?![a-zA-Z]))[a-zA-Z]+|[A-Z](?:\s*[A-Z]|_\{{[^{{}}]*\}})*|[a-z]){_MARKS}(?:\s*{_SIMPLE})?))"
)
_TEXT = r"(?:\\text\{[^{}]*\}|[A-Za-z]{3,}(?:\s+[A-Za-z]+)*)"
_PREFIXED = rf"m?\s*\\(?:angle|triangle|sin|cos|tan|cot)\s*{_ATOM}"
_LENGTH = rf"\|\s*(?:[A-Z]{{2,}}|{_ACCENT})\s*\|"
_ONE = rf"(?:{_PREFIXED}|{_TEXT}\s*{_ATOM}?|{_ATOM}|{_LENGTH})"
# A ratio, a derivative, a tuple of names.
_NAME = re.compile(
    rf"{_ONE}(?:\s*[:/]\s*{_ONE})?|\\frac\{{\s*{_ONE}\s*\}}\{{\s*{_ONE}\s*\}}"
    rf"|\\frac\{{\s*d[^{{}}+\-]*(?:\^\{{2\}}\s*)?[^{{}}+\-]*\}}\{{\s*d[^{{}}+\-]*(?:\^\{{2\}})?\}}"
    rf"|\(\s*{_ONE}(?:\s*,\s*{_ONE})*\s*\)"
)
# A function of a variable; in P(A) the argument says what is meant.
_APPLIED = re.compile(r"^(.*?)\s*\(\s*([a-z]|\\[a-z]+)\s*\)$")
_INDEX = re.compile(r"_\{\s*[0-9]+\s*\}")
_LETTER = re.compile(r"\\text\{[^{}]*\}|_\{[a-z]{2,}\}|\\[a-zA-Z]+|[A-Za-z]")
_MAX_LENGTH = 100
_FUNCTIONS = r"sin|cos|tan|arc[a-z]+|sinh|cosh|tanh|exp|ln|log|sqrt|frac"
_VARIABLE = rf"(?:\\(?!(?:{_FUNCTIONS})(?![a-z]))[a-zA-Z]+|[a-zA-Z])(?:_\{{[^{{}}]*\}})?"
_DERIVATIVES = (
    re.compile(  # Leibniz
        r"\\frac\s*\{\s*(?:d|\\partial)\s*(?:\^\{(?P<order>[0-9])\})?\s*"
        rf"(?P<function>{_VARIABLE})(?:\s*\(\s*[a-z]\s*\))?\s*\}}\s*"
        rf"\{{\s*(?:d|\\partial)\s*(?P<variable>{_VARIABLE})\s*(?(order)\^\{{(?P=order)\}})\s*\}}"
    ),
    re.compile(  # Newton; an accent with an index, as in \dot{x}_{0}, is an initial value
        rf"\\(?P<marks>d?dot)\s*\{{\s*(?P<function>{_VARIABLE})\s*\}}(?!\s*_|\s*\(\s*0)(?:\s*\(\s*[a-z]\s*\))?"
    ),
    re.compile(  # Lagrange
        rf"(?P<function>{_VARIABLE})(?P<marks>'+|\s*\^\{{\s*(?:\\prime\s*)+\}})(?:\s*\(\s*[a-z]\s*\))?"
    ),
)
_OF_TIME = re.compile(rf"({_VARIABLE})\s*\(\s*[tx]\s*\)")
_WORDY_INDEX = re.compile(r"(?P<base>\\[a-zA-Z]+|[a-zA-Z])_\{(?P<index>[a-zA-Z]{2,})\}")
_INITIAL = re.compile(r"(?P<name>\\d?dot\{\s*[a-z]\s*\}|[a-zA-Z])\s*\(\s*0\s*\)")


def is_name(text: str) -> bool:
    r"""Whether this names one quantity, as `x`, `f(x)`, `\angle ABC`, `|AB|` and `A:B` do; `2x`, `x+y`, `x^2` do not.

    >>> [is_name(text) for text in ("x_{1}", "f(x)", "AB", "(p,q)", "2x", "xy", "x+y", "x^{2}", "|x|", "x(x+1)")]
    [True, True, True, True, False, False, False, False, False, False]
    """
    return len(text) <= _MAX_LENGTH and bool(_NAME.fullmatch(text.strip()))


def same_name(first: str, second: str) -> bool:
    """Whether two names can mean one quantity: the argument may be left out or called otherwise, and a number added.

    And y may stand for f(x).
    """
    first, second = (re.sub(r"\s+", "", name) for name in (first, second))
    if first == second or _APPLIED.sub(r"\1", first) == _APPLIED.sub(r"\1", second):
        return True
    if "y" in (first, second) and any(re.fullmatch(r"[fgh]\(x\)", name) for name in (first, second)):
        return True
    return _INDEX.sub("", first) == second or first == _INDEX.sub("", second)


def base_name(name: str) -> str:
    """A name without its numbers: x_{1} and x_{2} are roots of the same equation, x and y are not."""
    return re.sub(r"\s+", "", _INDEX.sub("", name))


def with_argument_of(name: str, value: str, model: str) -> str | None:
    """Call the argument of a function as another definition calls it: f(m) = 2m becomes 2n for f(n).

    None if the value has a variable of that name already.
    """
    match, other = _APPLIED.fullmatch(name.strip()), _APPLIED.fullmatch(model.strip())
    if match is None or other is None or match[2] == other[2]:
        return value
    return None if other[2] in letters(value) else rename(value, match[2], other[2])


def rename(text: str, name: str, new: str) -> str:
    """Replace a variable of one letter, unless the new name is already in use."""
    return text if new in letters(text) else _LETTER.sub(lambda match: new if match[0] == name else match[0], text)


def letters(text: str) -> list[str]:
    """The variables of one letter in a formula, Greek ones included, as often as they occur."""
    return [match[0] for match in _LETTER.finditer(text) if not match[0].startswith(("_", r"\text"))]


def with_parameter_of(text: str, model: str) -> str:
    r"""Call the integer of a family of angles, as in `\pi/6 + \pi n`, as another answer does."""
    names = _only_difference(text, model, "klmn") if r"\pi" in text and r"\pi" in model else None
    return rename(text, *names) if names else text


def _only_difference(text: str, model: str, allowed: str) -> tuple[str, str] | None:
    """The only letter that a text has and its model has not, and the reverse, if they are of the allowed ones."""
    present, expected = set(letters(text)), set(letters(model))
    own, other = present - expected, expected - present
    return (own.pop(), other.pop()) if len(own) == len(other) == 1 and own | other <= {*allowed} else None


def align(prediction: str, answer: str) -> tuple[str, str]:
    r"""Rewrite two cleaned answers so that they write derivatives, indices, initial values and constants alike.

    Derivatives become variables D_{1x}, since the parser would take dx/dt as a fraction, or as 0. Their names have the
    variable only if both answers state one everywhere.

    >>> align(r"\frac{d x}{d t} = I_{0} x", r"x' = I(0) x")
    ('D_{1x} = I_{0} x', 'D_{1x} = I_{0} x')
    """
    for rule in (_without_wordy_index, _with_initial_value):
        prediction = rule(prediction, answer)
        answer = rule(answer, prediction)
    states_variables = not any(pattern.search(text) for pattern in _DERIVATIVES[1:] for text in (prediction, answer))
    prediction, answer = (_with_derivatives(text, states_variables) for text in (prediction, answer))
    return _with_constant_of(prediction, answer), answer


def derivatives(text: str) -> set[str]:
    """The functions that an aligned equation has derivatives of, and the variables taken for in them."""
    return {match[1] for match in re.finditer(r"D_\{[0-9]([a-zA-Z]+)\}", text)}


def _with_derivatives(text: str, states_variables: bool) -> str:
    def symbol(match: re.Match[str]) -> str:
        found = match.groupdict("")
        marks = found.get("marks", "")
        order = found.get("order") or sum(marks.count(mark) for mark in ("d", "'", "prime")) or 1
        variable = found.get("variable", "") if states_variables else ""
        return f"D_{{{order}{re.sub(r'[^a-zA-Z0-9]', '', found['function'] + variable)}}}"

    for pattern in _DERIVATIVES:
        text = pattern.sub(symbol, text)
    # In a differential equation x is x(t).
    return _OF_TIME.sub(r"\1", text) if "D_{" in text and "=" in text else text


def _without_wordy_index(text: str, model: str) -> str:
    r"""M_{core} as M, if the other answer has an M and this one has no M besides it."""
    for base, index in set(_WORDY_INDEX.findall(text)):
        full, plain = f"{base}_{{{index}}}", rf"(?<![a-zA-Z\\])d?{re.escape(base)}(?![a-zA-Z]|_)"
        own = re.search(plain, re.sub(r"_\{[^{}]*\}", "_", text))
        if full not in model and not own and re.search(plain, model):
            text = text.replace(full, base)
    return text


def _with_initial_value(text: str, model: str) -> str:
    """I(0) as I_{0}, if the other answer has that."""

    def index(match: re.Match[str]) -> str:
        indexed = f"{re.sub(' ', '', match['name'])}_{{0}}"
        return indexed if indexed in model.replace(" ", "") and indexed not in text else match[0]

    return _INITIAL.sub(index, text)


def _with_constant_of(text: str, model: str) -> str:
    """The constant of integration, once added or the factor of what is added, as the other answer calls it."""
    names = _only_difference(text, model, "cCK")
    sides = list(zip(names, (text, model), strict=True)) if names else []
    is_added = all(
        letters(side).count(name) == 1 and re.search(rf"(?:^|[-+(=])\s*{name}", side) for name, side in sides
    )
    return rename(text, *names) if names and is_added else text
