"""Finding formulas in prose, and telling the two apart."""

import re
from dataclasses import dataclass

_DELIMITER = re.compile(r"\\.|\$\$?|\n", re.DOTALL)
_CLOSING = {r"\[": r"\]", r"\(": r"\)", "$$": "$$", "$": "$"}
_TEXT = re.compile(
    r"\\(?:text[a-z]*|mbox|mathrm|operatorname)\*?\s*\{[^{}]*\}|\\(?:begin|end)\s*\{[a-z]*\*?\}(?:\s*\{[lcr|]*\})?"
)
_COMMAND = re.compile(r"\\[a-zA-Z]+")
# A word between spaces, or a longer one anywhere. Shorter ones may be products, as in e^{at}.
_PROSE = re.compile(r"(?<!\S)[A-Za-z]{2,}(?=[,.;:!?]?(?!\S))|[A-Za-z]{4,}")
_CONNECTIVE = re.compile(r"(?<![A-Za-z])(?:and|or)(?![a-z])")
_FORMULA_WORD = re.compile(
    "sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|max|min|gcd|lcm|mod|det|inf|infty|infinity|percent|percentage|pct|units?|"
    "degrees?|mph"
)
_SHORT_WORD = re.compile("[Ii]s|[Ii]t|[Ii]n|[Ii]f|[Nn]o|[Ss]o|[Ww]e|of|to|an|as|at|be|by|do|go|he|me|my|on|or|up|us|am")
# One variable, or several with signs between.
_LETTERS = re.compile(r"[^A-Za-z]*[A-Za-z]?[^A-Za-z]*|[(-]*[A-Za-z](?:\s*[-+*/()]+\s*[A-Za-z])+\)*")
# But for 1 1/2 and 1 234.
_SEPARATE_NUMBERS = re.compile(r"[0-9]\s+[0-9](?![0-9]*\s*/\s*[0-9]|[0-9]{2}(?![0-9]))")
_CONTENT = re.compile(r"[0-9=<>]|\\(?:pi|infty|sqrt|frac|le|ge|ne|lt|gt|in|approx|text|emptyset|varnothing)(?![a-z])")
_JOINT = re.compile(r"\s*,?\s*(?:and|or)\s*|\s*,\s*")
_MAX_JOINT = 20
_PERCENT = re.compile(r"\s*(?:\\?%|percent\b|pct\b)")
_MAX_LENGTH = 1000


@dataclass(frozen=True)
class Formula:
    """A formula in a text: its span with the delimiters, and its content."""

    start: int
    end: int
    content: str
    says_something: bool = True  # it is more than a name or a term of names, which prose is full of


def is_formula(text: str) -> bool:
    r"""Whether a text is a formula without prose.

    >>> [is_formula(text) for text in (r"x \approx 11", "W(x)=1orW(x)=-1", "ce^{at}", "5 apples", "even", "AB = 2")]
    [True, True, True, False, False, True]
    """
    if not text or len(text) > _MAX_LENGTH:
        return False
    plain = _COMMAND.sub(" ", _TEXT.sub(" ", text))
    is_math = plain != text or _CONTENT.search(text) or "^" in text or "_" in text or _LETTERS.fullmatch(text)
    if not is_math or "?" in text or _SEPARATE_NUMBERS.search(text):
        return False
    if any(sign.isalpha() and not sign.isascii() for sign in plain):
        return False
    words = _PROSE.findall(_CONNECTIVE.sub(" ", plain))
    return not any(_is_prose(word) for word in words)


def _is_prose(word: str) -> bool:
    if len(word) == 2:
        return _SHORT_WORD.fullmatch(word) is not None
    # A product such as LCs has capitals.
    return word[1:].islower() and not _FORMULA_WORD.fullmatch(word.lower())


def formulas(text: str, commas_enumerate: bool = False) -> list[Formula]:
    """The formulas between delimiters, in order; an enumeration of several counts as one.

    In prose commas alone enumerate nothing, unless told otherwise. A dollar may be a currency: it delimits a formula
    only together with another one on its line that no digit follows and without prose between.
    """
    found: list[Formula] = []
    opened: re.Match[str] | None = None
    for token in _DELIMITER.finditer(text):
        before_digit = text[token.end() : token.end() + 1].isdigit()
        if opened and token[0] == _CLOSING[opened[0]] and not (token[0] == "$" and before_digit):
            content, end = text[opened.end() : token.start()].strip(), token.end()
            if is_formula(content):
                if percent := _PERCENT.match(text, end):
                    content, end = content + "%", percent.end()
                found.append(Formula(opened.start(), end, content, bool(_CONTENT.search(content))))
                opened = None
            else:
                opened = token if token[0] == "$" else None
        elif token[0] in _CLOSING and (opened is None or opened[0] in ("$", token[0])):
            opened = token
        elif token[0] == "\n" and opened and opened[0] in ("$", r"\("):
            opened = None
    return _enumerations(text, found, commas_enumerate)


def _enumerations(text: str, found: list[Formula], commas_enumerate: bool) -> list[Formula]:
    """Join formulas such as $1$, $2$ and $3$."""
    runs: list[list[Formula]] = []
    joined: list[Formula] = []
    for formula in found:
        before = text[runs[-1][-1].end : formula.start] if runs else ""
        is_display = text.startswith((r"\[", "$$"), formula.start)
        if runs and len(before) <= _MAX_JOINT and _JOINT.fullmatch(before) and not is_display:
            runs[-1].append(formula)
        else:
            runs.append([formula])
    for run in runs:
        between = text[run[-2].end : run[-1].start] if len(run) > 1 else ""
        if len(run) > 1 and (commas_enumerate or re.search("and|or", between)):
            joined.append(Formula(run[0].start, run[-1].end, ", ".join(one.content for one in run)))
        else:
            joined += run
    return joined
