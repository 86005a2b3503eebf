r"""Making two answers call the same things alike, where mathematics and physics have several notations for one thing.

Each rule rewrites only what cannot mean something else within the two answers: a name is changed to one that the other
answer uses, and only if its own author does not use that name for anything.
"""

import re

from ktae.grading.rules.names import letters, rename

_FUNCTIONS = r"sin|cos|tan|arc[a-z]+|sinh|cosh|tanh|exp|ln|log|sqrt|frac"
_VARIABLE = rf"(?:\\(?!(?:{_FUNCTIONS})(?![a-z]))[a-zA-Z]+|[a-zA-Z])(?:_\{{[^{{}}]*\}})?"
_LEIBNIZ = re.compile(
    r"\\frac\s*\{\s*(?:d|\\partial)\s*(?:\^\{(?P<order>[0-9])\})?\s*"
    rf"(?P<function>{_VARIABLE})(?:\s*\(\s*[a-z]\s*\))?\s*\}}\s*"
    rf"\{{\s*(?:d|\\partial)\s*(?P<variable>{_VARIABLE})\s*(?(order)\^\{{(?P=order)\}})\s*\}}"
)
# An accent with an index, as in \dot{x}_{0}, is an initial value.
_NEWTON = re.compile(
    rf"\\(?P<dots>d?dot)\s*\{{\s*(?P<function>{_VARIABLE})\s*\}}(?!\s*_|\s*\(\s*0)(?:\s*\(\s*[a-z]\s*\))?"
)
_LAGRANGE = re.compile(rf"(?P<function>{_VARIABLE})(?P<primes>'+|\s*\^\{{\s*(?:\\prime\s*)+\}})(?:\s*\(\s*[a-z]\s*\))?")
_OF_TIME = re.compile(rf"({_VARIABLE})\s*\(\s*[tx]\s*\)")
_WORDY_INDEX = re.compile(r"(?P<base>\\[a-zA-Z]+|[a-zA-Z])_\{(?P<index>[a-zA-Z]{2,})\}")
_INDEXED_CONSTANT = re.compile(r"(?<![A-Za-z\\])([cCK])_\{[0-9]\}")
_INITIAL = re.compile(r"(?P<name>\\d?dot\{\s*[a-z]\s*\}|[a-zA-Z])\s*\(\s*0\s*\)")


def align(prediction: str, answer: str) -> tuple[str, str]:
    r"""Rewrite two cleaned answers so that they write derivatives, indices, initial values and constants alike.

    >>> align(r"\frac{d x}{d t} = I_{0} x", r"x' = I(0) x")
    ('D_{1x} = I_{0} x', 'D_{1x} = I_{0} x')
    """
    prediction, answer = _with_derivatives(prediction, answer)
    for one, other in ((0, 1), (1, 0)):
        pair = [prediction, answer]
        pair[one] = _without_wordy_index(pair[one], pair[other])
        pair[one] = _with_initial_value(pair[one], pair[other])
        prediction, answer = pair
    return _with_constant_of(prediction, answer), answer


def derivatives(text: str) -> set[str]:
    """The functions that an aligned equation has derivatives of, and the variables taken for in them."""
    return {match[1] for match in re.finditer(r"D_\{[0-9]([a-zA-Z]+)\}", text)}


def _with_derivatives(prediction: str, answer: str) -> tuple[str, str]:
    r"""Derivatives as variables D_{1x}; the parser would take dx/dt as a fraction, or as 0.

    The name has the variable only if both answers state one everywhere.
    """
    states_variables = not any(
        pattern.search(text) for pattern in (_NEWTON, _LAGRANGE) for text in (prediction, answer)
    )
    aligned = []
    for text in (prediction, answer):

        def symbol(match: re.Match[str]) -> str:
            found = match.groupdict()
            order = int(found.get("order") or 1)
            if "dots" in found:
                order = len(found["dots"]) - 2
            if "primes" in found:
                order = found["primes"].count("'") + found["primes"].count("prime")
            variable = re.sub(r"\W", "", found.get("variable") or "") if states_variables else ""
            name = re.sub(r"[\W_]", "", found["function"]) + variable
            return f"D_{{{order}{name}}}"

        for pattern in (_LEIBNIZ, _NEWTON, _LAGRANGE):
            text = pattern.sub(symbol, text)
        # In a differential equation x is x(t).
        aligned.append(_OF_TIME.sub(r"\1", text) if "D_{" in text and "=" in text else text)
    return aligned[0], aligned[1]


def _without_wordy_index(text: str, model: str) -> str:
    r"""M_{core} as M, if the other answer has an M and this one has no M besides it."""
    for match in set(_WORDY_INDEX.findall(text)):
        base, full = match[0], f"{match[0]}_{{{match[1]}}}"
        plain = rf"(?<![a-zA-Z\\]){re.escape(base)}(?![a-zA-Z]|_)"
        own = re.search(plain, re.sub(r"_\{[^{}]*\}", "_", text))
        if full not in model and not own and re.search(plain, model) and base != "D":
            text = text.replace(full, base)
            text = re.sub(r"D_\{([0-9])" + base + match[1], lambda found, b=base: f"D_{{{found[1]}{b}", text)
    return text


def _with_initial_value(text: str, model: str) -> str:
    """I(0) as I_{0}, if the other answer has that."""

    def index(match: re.Match[str]) -> str:
        indexed = f"{re.sub(' ', '', match['name'])}_{{0}}"
        return indexed if indexed in model.replace(" ", "") and indexed not in text else match[0]

    return _INITIAL.sub(index, text)


def _with_constant_of(text: str, model: str) -> str:
    """The constant of integration, once added or the factor of what is added, as the other answer calls it."""
    indexed = _INDEXED_CONSTANT.findall(text)
    if len(indexed) == 1 and not _INDEXED_CONSTANT.search(model):
        text = _INDEXED_CONSTANT.sub(r"\1", text)
    present, expected = letters(text), letters(model)
    own, other = {*present} - {*expected}, {*expected} - {*present}
    if not len(own) == len(other) == 1 or not own | other <= set("cCK"):
        return text
    name, called = own.pop(), other.pop()
    if present.count(name) != 1 or expected.count(called) != 1:
        return text
    is_added = all(re.search(rf"(?:^|[-+(=])\s*{one}", side) for one, side in ((name, text), (called, model)))
    return rename(text, {name: called}) if is_added else text
