r"""How an answer is put together: lists, tuples, sets, intervals and relations, found by its brackets and signs."""

import re
from dataclasses import dataclass

_TOKEN = re.compile(r"\\begin\s*\{[a-z]*\*?\}|\\end\s*\{[a-z]*\*?\}|\\[a-zA-Z]+|\\.|[^\\]|\\", re.DOTALL)
_OPENING = {"(", "[", "{", r"\{", r"\lfloor", r"\lceil", r"\langle", r"\lbrack"}
_CLOSING = {")", "]", "}", r"\}", r"\rfloor", r"\rceil", r"\rangle", r"\rbrack"}
_RELATIONS = ("=", "<", ">", r"\le", r"\ge", r"\ne", r"\approx", r"\in", r"\equiv", r"\to", r"\subset", r"\subseteq")
_THOUSANDS = re.compile(r"[-+]?(?:\\\$)?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_BRACKETS = re.compile(r"(\\\{|[(\[])(.*?)(\\\}|[)\]])", re.DOTALL)
FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", "=": "=", r"\ne": r"\ne"}


@dataclass(frozen=True)
class Bracketed:
    """What stands in one pair of brackets, such as `(`, `)` and the items between."""

    opening: str
    closing: str
    items: tuple[str, ...]


def split(text: str, separators: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Split at the separators that are in no brackets: the parts, and the separators between them."""
    parts, found, depth, start = [], [], 0, 0
    for token in _TOKEN.finditer(text):
        depth += _step(token[0])
        if depth == 0 and token[0] in separators:
            parts.append(text[start : token.start()].strip())
            found.append(token[0])
            start = token.end()
    parts.append(text[start:].strip())
    return parts, found


def relation(text: str) -> tuple[list[str], list[str]]:
    r"""The sides of a chain of equations or inequalities, and the signs between.

    >>> relation(r"1 < x \le 2")
    (['1', 'x', '2'], ['<', '\\le'])
    """
    return split(text, _RELATIONS)


def without_braces(text: str) -> str:
    """Take off the braces around the whole text, which TeX does not print: {1,2} is 1,2."""
    while text.startswith("{") and _closes_at_end(text):
        text = text[1:-1].strip()
    return text


def items(text: str) -> list[str]:
    """The items of an enumeration: what commas, semicolons, "and" and "or" separate. Groups of equations are tuples.

    >>> items("1, 2 ; 3"), items("p=5,q=2 ; p=7,q=2"), items("1,234")
    (['1', '2', '3'], ['(p=5,q=2)', '(p=7,q=2)'], ['1,234'])
    """
    outer = [part for part in split(text, (";", r"\lor"))[0] if part]
    inner = [_at_commas(part) for part in outer]
    sizes = {len(parts) for parts in inner}
    are_equations = all(len(relation(item)[1]) == 1 for parts in inner for item in parts)
    if len(outer) > 1 and len(sizes) == 1 and sizes != {1} and are_equations:
        return [f"({','.join(parts)})" for parts in inner]
    return [item for parts in inner for item in parts]


def bracketed(text: str) -> Bracketed | None:
    """The content of a text that is one pair of brackets, None for any other text."""
    if re.fullmatch(r"\][^()\[\]]*[\[\]]|[\[\]][^()\[\]]*\[", text):  # ]0,1[ for (0,1)
        text = ("(" if text[0] == "]" else "[") + text[1:-1] + (")" if text[-1] == "[" else "]")
    text = re.sub(r"\\[lr]angle(?![a-z])", lambda mark: "()"[mark[0] == r"\rangle"], text)
    match = _BRACKETS.fullmatch(text)
    if match is None or not _closes_at_end(text):
        return None
    opening, inside, closing = match[1], match[2].strip(), match[3]
    return Bracketed(opening, closing, tuple(items(inside)))


def _closes_at_end(text: str) -> bool:
    """Whether the bracket that a text begins with is closed by its last token only."""
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += _step(token[0])
        if depth == 0 and _step(token[0]):
            return token.end() == len(text)
    return False


def _step(token: str) -> int:
    """How many levels of brackets a token opens or closes."""
    opens = token in _OPENING or token.startswith(r"\begin")
    return opens - (token in _CLOSING or token.startswith(r"\end"))


def _at_commas(text: str) -> list[str]:
    if _THOUSANDS.fullmatch(text):
        return [text]
    return [part for part in split(text, (",",))[0] if part]
