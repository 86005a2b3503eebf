"""Whether two answers mean the same; `docs/grading.md` lists the rules with examples.

Texts, numbers, units, lists, brackets and relations are taken apart here. What is left are formulas, for math-verify's
parser and sympy.
"""

import re
from collections.abc import Callable, Sequence

from ktae.grading.rules.names import align, base_name, letters, rename, same_name, with_parameter_of
from ktae.grading.rules.notation import clean, spelling
from ktae.grading.rules.numerals import parse_number, same_number
from ktae.grading.rules.quantities import same_compound, same_digits, same_quantity, same_ratio, same_time
from ktae.grading.rules.relations import as_set, assignment, is_consistent, same_relation
from ktae.grading.rules.structure import Bracketed, bracketed, items, relation, split, without_braces
from ktae.grading.rules.symbolic import constant, same_formula
from ktae.grading.rules.words import same_choice, same_text, unwrapped

# Longer answers are equal to their own spelling only.
_MAX_LENGTH = 10_000
_DECIMAL_COMMA = re.compile(r"([-+]?[0-9]{1,3}(?:[. ][0-9]{3})+|[-+]?[0-9]+),([0-9]{1,2}|[0-9]{4,})")
_COLUMN = re.compile(r"\\begin\{pmatrix\}([^&]*)\\end\{pmatrix\}")
_SIGNS = re.compile(r"\\pm(?![a-z])")
_BOTH_SIGNS = re.compile(r"\\[pm][pm](?![a-z])")
_SET_BUILDER = re.compile(
    r"^\\\{\s*([a-z])\s*(?:\\in\s*\\mathbb\{R\}|\\in R)?\s*[|:]\s*([^|]*(?:\|[^|]*\|[^|]*)?)\\\}$"
)
_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|ne)(?![a-z])")
_INTEGER = re.compile(
    r"[,;]?\s*(?:\\text\{[a-z ,]*\}\s*)?([klmn])\s*(?:\\in\s*\\mathbb\{Z\}|\\text\{ ?(?:is )?an integer\})$"
)
_BRACKETS = (("(", ")"), (r"\{", r"\}"))


def is_equivalent(prediction: str, answer: str, relative_tolerance: float | None = None) -> bool:
    r"""Whether two answers mean the same.

    This can hang or exhaust the memory on hostile answers; `Grader` runs it where that does no harm.

    Args:
        prediction: an extracted answer, in LaTeX or plain text.
        answer: the accepted answer. Surrounding white space and dollar signs of either do not matter.
        relative_tolerance: as for `Grader`.

    Returns:
        True only if equivalence was established: what cannot be parsed is equivalent to its own spelling alone.

    Raises:
        ImportError: math-verify is not installed.
        MemoryError, RecursionError: an answer is too large to be compared.

    >>> is_equivalent("0.5", r"\frac12"), is_equivalent("8.2e-19", "8.5e-19"), is_equivalent("(2,1)", "(1,2)")
    (True, False, False)
    """
    quick = compare_plainly(prediction, answer)
    return _Comparison(relative_tolerance).same(clean(prediction), clean(answer)) if quick is None else quick


def compare_plainly(prediction: str, answer: str) -> bool | None:
    """Compare as strings and as numbers written out; None if that does not decide. Cannot hang."""
    if prediction.strip() == answer.strip():
        return bool(prediction.strip())
    prediction, answer = clean(prediction), clean(answer)
    if not prediction or not answer:
        return False
    if spelling(prediction) == spelling(answer):
        return True
    predicted, expected = parse_number(prediction), parse_number(answer)
    if predicted is None or expected is None:
        return False if max(len(prediction), len(answer)) > _MAX_LENGTH else None
    if predicted.value == expected.value:
        return True
    # Exact numbers differ; decimals may be a rounding of each other.
    return None if predicted.place or expected.place else False


class _Comparison:
    """The rules in the order in which they are tried, on cleaned answers."""

    def __init__(self, tolerance: float | None) -> None:
        self.tolerance = tolerance

    def same(self, prediction: str, answer: str) -> bool:
        prediction, answer = (_SET_BUILDER.sub(r"\2", unwrapped(without_braces(text))) for text in (prediction, answer))
        if declared := _INTEGER.search(prediction):
            prediction, answer = prediction[: declared.start()], _INTEGER.sub("", answer)
            others = set(letters(answer)) - set(letters(prediction))
            if len(others) == 1 and others <= set("klmn"):
                prediction = rename(prediction, declared[1], others.pop())
        if not prediction or not answer:
            return False
        if spelling(prediction) == spelling(answer):
            return True
        decisions = (rule(self, prediction, answer) for rule in KINDS.values())
        return next((decided for decided in decisions if decided is not None), False)

    def _numbers(self, prediction: str, answer: str) -> bool | None:
        predicted, expected = parse_number(prediction), parse_number(answer)
        if predicted and expected:
            return same_number(predicted, expected, self.tolerance)
        if expected and expected.place and (match := _DECIMAL_COMMA.fullmatch(prediction)):
            return self.same(f"{re.sub('[. ]', '', match[1])}.{match[2]}", answer)
        # 12 (twelve)
        match = re.fullmatch(r"(.*\S) ?\(([a-z -]+)\)", prediction)
        if match is None or (number := parse_number(match[1])) is None:
            return None
        again = parse_number(match[2])
        return again is not None and again.value == number.value and self.same(match[1], answer)

    def _matrices(self, prediction: str, answer: str) -> bool | None:
        """Compare with a matrix what is written as rows in brackets, or as a column; None without a matrix."""
        if r"\begin{pmatrix" not in answer:
            return None
        if match := re.fullmatch(r"\\binom\{([^{}]*)\}\{([^{}]*)\}", prediction):
            prediction = rf"\begin{{pmatrix}}{match[1]}\\{match[2]}\end{{pmatrix}}"
        if match := re.fullmatch(r"\[\s*\[(.*)\]\s*\]", prediction):
            lines = re.sub(r"\]\s*,\s*\[", r"\\\\", match[1]).replace(",", "&")
            prediction = rf"\begin{{pmatrix}}{lines}\end{{pmatrix}}"
        return True if spelling(prediction) == spelling(answer) else self._groups(prediction, answer)

    def _lists(self, prediction: str, answer: str) -> bool | None:
        """Compare enumerations; None if neither has several items."""
        if len(_expanded(prediction)) == len(_expanded(answer)) == 1:
            return None
        if split(answer, (r"\cup",))[1] and not relation(prediction)[1]:
            return self._unions(prediction.replace(r"\lor", r"\cup"), answer)
        sets = as_set(prediction), as_set(answer)
        if any(sets) and self._unions(sets[0] or assignment(prediction)[1], sets[1] or assignment(answer)[1]):
            return True
        if (r"\lor" in prediction) != (r"\lor" in answer) and _INEQUALITY.search(prediction):
            return False
        listed, expected = _expanded(prediction), _expanded(answer)
        if len(listed) > 1 and len(expected) > 1:
            return self._items(listed, expected, ordered=False)
        # (1,2) or {1,2} or (x,y) = (1,2) for the list 1, 2
        group = _group(assignment(prediction if len(listed) == 1 else answer)[1])
        if group is None or (group.opening, group.closing) not in _BRACKETS:
            return False
        sides = (group.items, expected) if len(listed) == 1 else (listed, group.items)
        return self._items(*sides, ordered=group.opening == "(")

    def _items(self, listed: Sequence[str], expected: Sequence[str], ordered: bool) -> bool:
        """Compare items one by one, or in any order unless different names give them roles."""
        if not ordered and len(listed) > len(expected) > 1 and all(map(bracketed, expected)):
            listed = list({spelling(item): item for item in listed}.values())  # a solution given twice
        if len(listed) != len(expected):
            return False
        names = [[assignment(item)[0] for item in side] for side in (listed, expected)]
        has_roles = [None not in side and len({base_name(name) for name in side if name}) > 1 for side in names]
        if ordered or (any(has_roles) and not all(has_roles)):
            return all(self.same(one, other) for one, other in zip(listed, expected, strict=True))
        return _are_paired(listed, expected, self._item)

    def _item(self, item: str, other: str) -> bool:
        if item.startswith(r"\{") != other.startswith(r"\{"):
            return False  # {1} for 1, which is right only if it is the whole answer
        if self.same(item, other):
            return True
        (name, value), (expected_name, expected) = assignment(item), assignment(other)
        renamed = with_parameter_of(value, expected)
        may_be_same = name is None or expected_name is None or same_name(name, expected_name)
        return renamed != value and may_be_same and self.same(renamed, expected)

    def _statements(self, prediction: str, answer: str) -> bool | None:
        """Compare equations, inequalities and the like; None if neither is one."""
        if not relation(prediction)[1] and not relation(answer)[1]:
            return None
        sets = as_set(prediction), as_set(answer)
        if sets[0] and sets[1] and self._unions(sets[0], sets[1]):
            return True
        if not is_consistent(prediction):
            return False
        sides, signs = relation(prediction)
        is_rounded = r"\approx" in signs and constant(sides[signs.index(r"\approx")]) is not None
        if is_rounded and self.same(sides[-1], answer):
            return True
        name, value = assignment(prediction)
        expected_name, expected_value = assignment(answer)
        if relation(prediction)[1] and relation(answer)[1]:
            # 1 < x < 2 and x in (1,2)
            if sets.count(None) == 1 and (name or expected_name):
                return self._unions(sets[0] or value, sets[1] or expected_value)
            return same_relation(prediction, answer, self.same)
        if name is not None or expected_name is not None:
            return self.same(value, expected_value)
        if any(sets):
            return self._unions(sets[0] or prediction, sets[1] or answer)
        # A computation such as 6*7 = 42, or a value and its approximation; but no equation.
        if signs == [r"\approx"]:
            return self.same(sides[0], answer)
        return bool(signs) and set(signs) == {"="} and all(self.same(side, answer) for side in sides)

    def _groups(self, prediction: str, answer: str) -> bool | None:
        """Compare tuples, intervals, sets and their unions; None if neither is one."""
        if any(split(text, (r"\cup",))[1] or "mathbb{R}" in text for text in (prediction, answer)):
            return self._unions(prediction, answer)
        group, expected = _group(prediction), _group(answer)
        if group is None and expected is None:
            return None
        if group is None or expected is None:
            single = group or expected
            if single is None or len(single.items) != 1 or single.opening == "[":
                return None
            if single.items[0].startswith((r"\{", r"\emptyset")):
                return False
            return self.same(*((single.items[0], answer) if group else (prediction, single.items[0])))
        if group.opening == expected.opening == r"\{":
            sets = [list(dict.fromkeys(map(spelling, side.items))) for side in (group, expected)]
            return self._items(sets[0], sets[1], ordered=False)
        kinds = [(side.opening, side.closing) for side in (group, expected)]
        is_vector = len(expected.items) > 2 and {*kinds} == {("(", ")"), ("[", "]")}
        if kinds[0] != kinds[1] and not is_vector:
            return False
        return self._items(group.items, expected.items, ordered=True)

    def _unions(self, prediction: str, answer: str) -> bool:
        parts, expected = (
            split(text.replace(r"\mathbb{R}", r"(-\infty,\infty)"), (r"\cup",))[0] for text in (prediction, answer)
        )
        may_be_paired = len(parts) == len(expected) and "" not in (*parts, *expected)
        return (may_be_paired and _are_paired(parts, expected, self._groups)) or same_formula(prediction, answer)


# A kind of answer, and how two answers are compared if they are of that kind. The first that decides counts: a rule
# returns None for what is of another kind.
KINDS: dict[str, Callable[[_Comparison, str, str], bool | None]] = {
    "choice": lambda _, prediction, answer: same_choice(prediction, answer),
    "number": _Comparison._numbers,
    "time of day": lambda _, prediction, answer: same_time(prediction, answer),
    "words": lambda _, prediction, answer: same_text(prediction, answer),
    "compound quantity": lambda self, prediction, answer: same_compound(prediction, answer, self.tolerance),
    "matrix": _Comparison._matrices,
    "list": _Comparison._lists,
    "statement": _Comparison._statements,
    "number in a base": lambda _, prediction, answer: same_digits(prediction, answer),
    "quantity": lambda self, prediction, answer: same_quantity(prediction, answer, self.same, self.tolerance),
    "ratio": lambda _, prediction, answer: same_ratio(prediction, answer),
    "tuple, interval or set": _Comparison._groups,
    "formula": lambda self, prediction, answer: same_formula(*align(prediction, answer), self.tolerance),
}


def _are_paired(listed: Sequence[str], expected: Sequence[str], same: Callable[[str, str], bool | None]) -> bool:
    """Whether each item of a list is the same as another one of the other list."""
    left = list(expected)
    for item in sorted(listed, key=lambda item: item not in expected):  # those spelled alike first
        found = next((other for other in sorted(left, key=lambda other: other != item) if same(item, other)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _expanded(text: str) -> list[str]:
    r"""The items of a list, `a \pm b` as two."""
    expanded = []
    for item in items(text):
        if len(_SIGNS.findall(item)) == 1 and not item.startswith(r"\{"):
            plus, minus = ({r"\pm": sign, r"\mp": "-+"[sign == "-"]} for sign in "+-")
            expanded += [_BOTH_SIGNS.sub(lambda found, signs=signs: signs[found[0]], item) for signs in (plus, minus)]
        else:
            expanded.append(item)
    return expanded


def _group(text: str) -> Bracketed | None:
    """What stands in brackets, a column vector as a tuple; an end at infinity is open."""
    if match := _COLUMN.fullmatch(text):
        return Bracketed("(", ")", tuple(part.strip() for part in match[1].split(r"\\") if part.strip()))
    group = bracketed(text)
    if group is None or not group.items:
        return None
    opening = "(" if group.opening == "[" and group.items[0] == r"-\infty" else group.opening
    closing = ")" if group.closing == "]" and group.items[-1] == r"\infty" else group.closing
    expanded = tuple(part for item in group.items for part in (_expanded(item) if opening == r"\{" else [item]))
    return Bracketed(opening, closing, expanded)
