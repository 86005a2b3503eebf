r"""What stands left of the equals sign in an answer such as `x = 5`, and what different authors call the same thing."""

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
_APPLIED = re.compile(r"(.*?)\s*\(\s*([a-z]|\\[a-z]+)\s*\)")
_INDEX = re.compile(r"_\{\s*[0-9]+\s*\}")
_LETTER = re.compile(r"\\text\{[^{}]*\}|_\{[a-z]{2,}\}|\\[a-zA-Z]+|[A-Za-z]")
_MAX_LENGTH = 100
_PARAMETERS = frozenset("klmn")


def is_name(text: str) -> bool:
    r"""Whether this names one quantity, as `x`, `f(x)`, `\angle ABC`, `|AB|` and `A:B` do; `2x`, `x+y`, `x^2` do not.

    >>> [is_name(text) for text in ("x_{1}", "f(x)", "AB", "(p,q)", "2x", "xy", "x+y", "x^{2}", "|x|", "x(x+1)")]
    [True, True, True, True, False, False, False, False, False, False]
    """
    return len(text) <= _MAX_LENGTH and bool(_NAME.fullmatch(text.strip()))


def same_name(first: str, second: str) -> bool:
    r"""Whether two names can mean one quantity: the argument may be left out or called otherwise, and a number added.

    And y may stand for f(x).

    >>> same_name("x_{1}", "x"), same_name("f(m)", "f(n)"), same_name("x(t)", "x"), same_name("x", "y")
    (True, True, True, False)
    """
    first, second = (re.sub(r"\s+", "", name) for name in (first, second))
    if first == second:
        return True
    applied = [_APPLIED.fullmatch(name) for name in (first, second)]
    if len({match[1] if match else name for match, name in zip(applied, (first, second), strict=True)}) == 1:
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
    return None if other[2] in letters(value) else rename(value, {match[2]: other[2]})


def rename(text: str, names: dict[str, str]) -> str:
    """Replace variables of one letter, unless one of the new names is already in use."""
    present = letters(text)
    if any(new in present for new in names.values()):
        return text
    return _LETTER.sub(lambda match: names.get(match[0], match[0]), text)


def letters(text: str) -> list[str]:
    """The variables of one letter in a formula, Greek ones included, as often as they occur."""
    return [match[0] for match in _LETTER.finditer(text) if not match[0].startswith(("_", r"\text"))]


def with_parameter_of(text: str, model: str) -> str:
    r"""Call the integer of a family of angles, as in `\pi/6 + \pi n`, as another answer does."""
    if r"\pi" not in text or r"\pi" not in model:
        return text
    present, expected = set(letters(text)), set(letters(model))
    own, other = present - expected, expected - present
    if len(own) == len(other) == 1 and own <= _PARAMETERS and other <= _PARAMETERS:
        return rename(text, {own.pop(): other.pop()})
    return text
