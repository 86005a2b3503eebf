"""Finding the final answer in a model's output: its last box, otherwise its last number.

Every pattern takes time linear in the text, because this runs in the caller's process.
"""

import re
from collections import deque

_BOX_OR_BRACE = re.compile(r"\\(?:(?P<box>boxed|fbox)\s*\{|.)|[{}]", re.DOTALL)
LATEX_COMMA = re.compile(r"\{,\}|,\\!\s*")  # 1{,}234 and 1,\! 234
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_NUMBER = re.compile(
    r"""
    (?P<minus>(?<![\w)\]}^])-(?:\\?[$€£¥])?)?       # after a digit, a letter or a bracket it would subtract
    (?<![\w^])(?<![0-9]\.)(?<![_^]\{)(?<!\^-)(?<!\^\{-)  # not inside x2, 1.2.3, an index or an exponent
    (?P<number>(?>
        (?:[0-9]+\s*)?\\[dtc]?frac\s*(?:\{\s*-?[0-9]+\s*\}|[0-9])\s*(?:\{\s*[0-9]+\s*\}|[0-9])
        |[0-9]+\s+[0-9]+\s*/\s*[0-9]+               # 1 1/2
        |[0-9][0-9,]*(?:\.[0-9]+)?
        |(?<!\.)\.[0-9]+
    ))
    (?P<rest>
        \s*/\s*[0-9]+
        |e[-+]?[0-9]+(?!\w)
        |\s*(?:\\times|\\cdot|[\N{MULTIPLICATION SIGN}·*])\s*10\s*\^\s*(?:\{-?[0-9]+\}|-?[0-9]+)
        |\^(?:\{-?[0-9]+\}|-?[0-9]+)
    )?+
    (?!\^|\.[0-9])                                 # of a power that does not end here, the base is no answer
    (?P<percent>\s*(?:\\?%|percent\b))?
    """,
    re.VERBOSE | re.IGNORECASE,
)


def extract_answer(text: str) -> str | None:
    r"""The final answer in a text: its last box, otherwise its last number.

    Args:
        text: a model's whole output.

    Returns:
        The content of the last complete, non-empty ``\boxed{...}`` or ``\fbox{...}``. In a text without a box, the
        last number with its sign, fraction, exponent and percent sign, but without currency and thousands
        separators. None when there is neither, or when the only box is cut off: what it shows is the beginning
        of an answer.

    >>> extract_answer(r"So \boxed{\frac{1}{2}}, not 3.")
    '\\frac{1}{2}'
    >>> extract_answer("She pays -$1,234.50.")
    '-1234.50'
    """
    text = text.replace("\N{MINUS SIGN}", "-")
    boxes, cut_off = _boxes(text)
    while boxes:
        _, (start, end) = boxes.popitem()  # the last to close
        # Of nested boxes the outer one is the answer, unless the inner one is all it holds.
        while True:
            while start < end and text[start].isspace():
                start += 1
            while end > start and text[end - 1].isspace():
                end -= 1
            if start not in boxes or boxes[start][1] + 1 != end:
                break
            start, end = boxes.pop(start)
        if start < end:
            return text[start:end]
    return None if cut_off else _last_number(text)


def _boxes(text: str) -> tuple[dict[int, tuple[int, int]], bool]:
    """Of each complete box, in the order they close: where it begins -> its content's span. And: is one cut off?"""
    boxes = {}
    # Of each open brace: where its box and its content begin, None if it belongs to no box.
    stack: list[tuple[int, int] | None] = []
    for token in _BOX_OR_BRACE.finditer(text):
        if token["box"]:
            stack.append((token.start(), token.end()))
        elif token[0] == "{":
            stack.append(None)
        elif token[0] == "}" and stack and (box := stack.pop()):
            boxes[box[0]] = (box[1], token.start())
    return boxes, any(stack)


def _last_number(text: str) -> str | None:
    last = deque(_NUMBER.finditer(LATEX_COMMA.sub(",", text)), maxlen=1)
    if not last:
        return None
    match = last[0]
    minus, number = "-" if match["minus"] else "", match["number"].rstrip(",")
    if _THOUSANDS.fullmatch(number):
        number = number.replace(",", "")
    elif "," in number:  # a list without spaces: 1,2,3
        minus, number = "", number.rpartition(",")[2]
    rest = re.sub(r"\s", "", match["rest"] or "")
    return minus + number + rest + ("%" if match["percent"] else "")
