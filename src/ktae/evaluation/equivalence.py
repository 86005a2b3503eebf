"""Whether two answers mean the same: by string, as plain numbers, or for math-verify."""

import logging
import math
import re
from typing import Any

from ktae.evaluation.extraction import LATEX_COMMA
from ktae.extras import require

_PLAIN_NUMBER = re.compile(r"([-+]?)[$€£¥]?([0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.([0-9]*))?")
_WORD = re.compile(r"(?:\\(?:text|textbf|mathrm)\{)?([A-Za-z]{3,})\}?")
_REWRITES = (
    # math-verify reads "1 1/2" as 1, "6.4e16" as 6.4 times e times 16, and cannot read "12^{\text{th}}".
    (re.compile(r"([-+]?[0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)"), r"\1\\frac{\2}{\3}"),
    (re.compile(r"([0-9]+)\s*\^?\{?\\text\{\s*(?:st|nd|rd|th)\s*\}\}?"), r"\1"),
    (re.compile(r"([-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))[eE]\+?(-?[0-9]+)"), r"\1 \\times 10^{\2}"),
)


def is_equivalent(prediction: str, answer: str) -> bool:
    r"""Whether two answers mean the same, by string, as plain numbers, or for math-verify.

    This can hang or exhaust the memory on hostile answers; `Grader` runs it where that does no harm.

    Args:
        prediction: an extracted answer, in LaTeX or plain text.
        answer: the accepted answer. Surrounding white space and dollar signs of either do not matter.

    Returns:
        True only if equivalence was established: what cannot be parsed is equivalent to its own spelling alone.

    Raises:
        ImportError: math-verify is not installed.
        MemoryError, RecursionError: an answer is too large to be compared.

    >>> is_equivalent("0.5", r"\frac12"), is_equivalent("8.2e-19", "8.5e-19")
    (True, False)
    """
    quick = compare_plainly(prediction, answer)
    if quick is not None:
        return quick
    verify = require("math_verify", "train").verify
    golds, targets = _parse(_clean(answer)), _parse(_clean(prediction))
    for gold in golds:
        for target in targets:
            # math-verify takes numbers as equal that agree to a fixed number of decimals, by default even
            # 8.2e-19 and 8.5e-19. Count the decimals from the first significant one instead.
            zeros = max(_leading_zeros(gold), _leading_zeros(target))
            try:
                if verify(
                    gold,
                    target,
                    float_rounding=6 + zeros,
                    numeric_precision=max(15, 10 + zeros),
                    timeout_seconds=None,
                    raise_on_error=True,
                ):
                    return True
            except (MemoryError, RecursionError):
                raise
            except Exception:  # sympy refuses many comparisons, such as of a matrix and a number
                continue
    return False


def compare_plainly(prediction: str, answer: str) -> bool | None:
    """Compare as strings and as plain numbers; None if that does not decide. Cannot hang."""
    prediction, answer = _clean(prediction), _clean(answer)
    if not prediction or not answer:
        return False
    if prediction == answer:
        return True
    if (word := _WORD.fullmatch(prediction)) and (expected_word := _WORD.fullmatch(answer)):
        # To math-verify a word is a product of letters, and "east" the same as "seat".
        return word[1].casefold() == expected_word[1].casefold()
    predicted, expected = _plain_number(prediction), _plain_number(answer)
    if predicted is None or expected is None:
        return None
    if predicted == expected:
        return True
    # Different integers differ; decimals may be a rounding of each other.
    return None if "." in predicted + expected else False


def _clean(answer: str) -> str:
    answer = answer.replace("\N{MINUS SIGN}", "-").replace(r"\$", "$")
    # Dollars as a currency or around formulas: neither matters.
    answer = LATEX_COMMA.sub(",", answer).replace("$", "").strip().removesuffix(".")
    for pattern, replacement in _REWRITES:
        if match := pattern.fullmatch(answer):
            return match.expand(replacement)
    return answer


def _plain_number(text: str) -> str | None:
    """A spelling that equal plain numbers share ("1,234.50" -> "1234.5"), None for anything else.

    On strings: an int of a million digits would take minutes to parse.
    """
    match = _PLAIN_NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        return None
    whole, decimals = match[2].replace(",", "").lstrip("0") or "0", (match[3] or "").rstrip("0")
    number = f"{whole}.{decimals}" if decimals else whole
    return f"-{number}" if match[1] == "-" and number != "0" else number


def _parse(answer: str) -> list[Any]:
    """What math-verify makes of an answer: a sympy expression and a string, or a string only."""
    math_verify = require("math_verify", "train")
    # It warns that its timeouts are off, which is what we want.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    # The whole answer is one expression. The other modes would go on to search an answer that does not parse for
    # parts that do, and find the 5 in any gibberish that holds a 5.
    return math_verify.parse(
        rf"\boxed{{{answer}}}",
        extraction_config=[math_verify.LatexExtractionConfig(boxed_match_priority=0)],
        extraction_mode="first_match",
        parsing_timeout=None,
    )


def _leading_zeros(expression: Any) -> int:
    """How many zeros follow the decimal point of the smallest number in a sympy expression, 0 for 1 and above."""
    import sympy  # math-verify has imported it

    if not isinstance(expression, sympy.Basic):
        return 0
    if not expression.is_number:
        return max(map(_leading_zeros, expression.args), default=0)
    try:
        size = abs(sympy.N(expression, 5))
    except (ArithmeticError, AttributeError, TypeError, ValueError):  # sympy has its limits, as with floors
        return 0
    if not isinstance(size, sympy.Float) or not 0 < size < 1:
        return 0
    # The logarithm by sympy, since 1/2006! underflows a float.
    return int(-sympy.log(size) / math.log(10))
