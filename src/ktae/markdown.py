"""Tables in Markdown."""

from collections.abc import Sequence


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table aligned for a terminal; the first column is text, the others are numbers.

    >>> print(table(["", "top"], [["ktae", "0.163"]]))
    |      |   top |
    | ---- | ----: |
    | ktae | 0.163 |
    """
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    text = []
    for first, *others in (header, rule, *lines):
        text.append(" | ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]))
    return "\n".join(f"| {line} |" for line in text)
