"""Finding the final answer in a model's output.

Every pattern takes time linear in the text, because this runs in the caller's process.
"""

import contextlib
import json
import math
import re
from collections import deque
from collections.abc import Sequence

from ktae.grading.formulas import formulas, is_formula
from ktae.grading.options import EXTRACTION
from ktae.grading.rules.notation import repair

# What is given as the accepted answer, or as several.
Reference = str | float | Sequence["Reference"]

_JSON_LIST = re.compile(r"\s*\[\s*\".*\"\s*\]\s*", re.DOTALL)
_BOX_OR_BRACE = re.compile(r"\\(?:(?P<box>boxed|fbox)\s*\{|.)|[{}]", re.DOTALL)
# What may stand between the boxes of one answer, as in \boxed{1} and \boxed{2}.
_JOINT = re.compile(
    r"(?:[\s$,;:&~}]|\\[,;:!()\[\] ]|\\q?quad|\\text\s*\{|\b(?:and|or|for|part|case)\b|\([a-z]\)"
    r"|[a-zA-Z](?:_\{?\w\}?)?\s*=)*"
)
_MAX_JOINT = 80
_BARE_BOX = re.compile(r"(\\(?:boxed|fbox))\s*([0-9]+(?:\.[0-9]+)?|[A-Za-z](?![A-Za-z]))")
_ANSWER = (
    r"(?:\banswers?\b|\bcorrect (?:option|choice)\b|\brespuesta\b|\bréponse\b|\bantwort\b|\brisposta\b|\bresposta\b|"
    "ответ|答案|答え|解答|답)"
)
_IS = r"(?:\b(?:is|are|be|est|ist|es|é|è)\b|[:=]|是|为|為|は|은|는)"
_PHRASE = re.compile(
    rf"{_ANSWER}[^.\n:=$0-9\\]{{0,40}}?{_IS}(?!\s*not\b)|\bfinal\s+answer\b[*\s]*\n|####", re.IGNORECASE
)
_NEGATED = re.compile(
    rf"{_ANSWER}[^.\n:=$0-9\\]{{0,40}}?(?:\b(?:is|are|be)\s+(?:\w+\s+)?not\b|n't\b|\bcannot\b|\bnever\b|不是|不为)"
    r"(?:[^.,;\n]|[.,](?=[0-9]))*",
    re.IGNORECASE,
)
_LEAD = re.compile(rf"(?:\\text\s*\{{\s*)?(?:the\s+)?(?:final\s+|correct\s+)?{_ANSWER}\s*{_IS}\s*(\}}?)", re.IGNORECASE)
_FINAL = re.compile(r"\bfinal\s+answer\s+is\b:?", re.IGNORECASE)
_MARKUP = re.compile(r"(?:[\s*_\"'`:]|\\\")*")
_FILLER = re.compile(
    r"(?:(?:simply|just|exactly|therefore|thus|clearly|equal to|given by|indeed)[\s:]+)*", re.IGNORECASE
)
# What may follow an answer in its sentence: a reason, and what it is not.
_REASON = re.compile(
    r",?\s+(?:because|since|as)\b.*|,\s*(?:and )?not\b.*|\s+(?:in total|in all|altogether)$", re.DOTALL
)
_MAX_PHRASE = 1000
_MAX_WORDS = 3
_SENTENCE = re.compile(r"(?:[^.\n]|\.(?!\s|$|\"|<))*")
_REASONING = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
# What a box holds before an answer is put into it.
_PLACEHOLDER = re.compile(
    r"(?:[\s.?_$\-]|\\[lc]?dots|\\_|\\square)*|(?:\\text\s*\{)?[\s\[<]*(?:(?:your|the|final|correct)\s+)*answer"
    r"(?:\s+here)?[\s\]>.]*\}?|x{3,}",
    re.IGNORECASE,
)
_WHOLE = re.compile(r"[A-Za-z]+|\(?[A-Z]\)?[.)]?")
# What changes the number behind it, which then is not the answer.
_HEDGE = re.compile(
    r"\b(?:not|minus|negative|at least|at most|(?:less|more|fewer|greater|smaller|larger) than|twice|half of|double|"
    r"triple|between(?: [0-9.,]+ and)?|either|(?<![0-9 ])[0-9][0-9,.]* or)\s+\$?$",
    re.IGNORECASE,
)
_MAX_HEDGE = 40
_LATEX_COMMA = re.compile(r"\{,\}|,\\!\s*")  # 1{,}234 and 1,\! 234
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:[, ][0-9]{3})+(?:\.[0-9]+)?")
_NUMBER = re.compile(
    r"""
    (?P<minus>(?<![\w)\]}^])-(?:\\?[$€£¥])?)?       # after a digit, a letter or a bracket it would subtract
    (?<![A-Za-z0-9_^])(?<![0-9][.,])(?<![_^]\{)(?<!\^-)(?<!\^\{-)  # not inside x2, 1.2.3, 1,2, an index or an exponent
    (?P<number>(?>
        (?:[0-9]+\s*)?\\sqrt\s*(?:\{\s*[0-9]+\s*\}|\(\s*[0-9]+\s*\)|[0-9]+)
        |(?:[0-9]+\s*)?\\[dtc]?frac\s*(?:\{\s*-?[0-9]+\s*\}|[0-9])\s*(?:\{\s*[0-9]+\s*\}|[0-9])
        |[0-9]+\s+[0-9]+\s*/\s*[0-9]+               # 1 1/2
        |[1-9][0-9]{0,2}(?:[ ][0-9]{3}){1,4}(?![0-9])(?:[.,][0-9]+)?  # 1 234,5
        |[0-9][0-9,]*(?:\.[0-9]+)?
        |(?<!\.)\.[0-9]+
    ))
    (?P<rest>
        \s*/\s*[0-9]+
        |e[-+]?[0-9]+(?![A-Za-z0-9_])
        |\s*\\pi(?![a-z])
        |\s*(?:\\times|\\cdot|[*])\s*10\s*\^\s*(?:\{-?[0-9]+\}|-?[0-9]+)
        |\^(?:\{-?[0-9]+\}|-?[0-9]+)
    )?+
    (?!\^|\.[0-9])                                 # of a power that does not end here, the base is no answer
    (?P<percent>\s*(?:\\?%|percent\b))?
    (?P<scale>\s*(?:hundred|thousand|million|billion|trillion|dozen|lakh|crore|squared|cubed|[万萬亿])s?\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)


def extract_answer(text: str, order: Sequence[str] = EXTRACTION) -> str | None:
    r"""The final answer in a text.

    Args:
        text: a model's whole output.
        order: where to look, as `GradingOptions.extraction`.

    Returns:
        The first answer that one of these places has; None when there is none, or when the only box is cut off: what it
        shows is the beginning of an answer.

    >>> extract_answer(r"So \boxed{\frac{1}{2}}, not 3."), extract_answer(r"either \boxed{1} or \boxed{2}")
    ('\\frac{1}{2}', '1, 2')
    >>> extract_answer("She pays -$1,234.50."), extract_answer("Hence $x < 3$ in all 5 cases.", ["expression"])
    ('-1234.50', '5')
    """
    marks = deque(_REASONING.finditer(text), maxlen=1)
    if marks and not marks[0][1]:
        return None  # still thinking
    text = _NEGATED.sub("", repair(text[marks[0].end() :] if marks else text))
    for place in order:
        if place == "box":
            answer, cut_off = _box(text)
        else:
            answer, cut_off = _PLACES[place](text), False
        if answer is not None or cut_off:
            return answer
    return None


def reference_answers(reference: Reference) -> tuple[str, ...]:
    r"""The accepted answers that a reference states, of which any will do, whatever the form of its data set.

    Args:
        reference: a text, a number, or a list of them. A text may be the answer itself or a list of answers in JSON. Of
            a worked solution it is what stands behind `####`, in its box (if need be up to the end of the text), in its
            answer tag or behind "Answer:".

    Raises:
        ValueError: there is no reference: nothing at all, an empty text, or a number that is none.
        TypeError: a reference is neither a text nor a number.

    >>> reference_answers("6*12\n#### 72"), reference_answers('["72", "73"]'), reference_answers("Answer: 72")
    (('72',), ('72', '73'), ('72',))
    >>> reference_answers(r"$x = \boxed{20}$ percent."), reference_answers([" 5\n", 6])
    (('20',), ('5', '6'))
    """
    if isinstance(reference, list | tuple):
        answers = tuple(answer for part in reference for answer in reference_answers(part))
        if not answers:
            raise ValueError(f"a reference must hold an answer, got {reference!r}")
        return answers
    if isinstance(reference, bool) or not isinstance(reference, str | int | float):
        raise TypeError(f"a reference must be a text or a number, got {reference!r}")
    if not isinstance(reference, str):
        if not math.isfinite(reference):
            raise ValueError(f"a reference must be a finite number, got {reference!r}")
        return (str(reference),)
    if _JSON_LIST.fullmatch(reference):
        with contextlib.suppress(json.JSONDecodeError):
            return reference_answers(json.loads(reference))
    text = repair(reference)
    answer, cut_off = _box(text)
    if answer is None and cut_off:
        answer = re.split(r"\\(?:boxed|fbox)\s*\{", text)[-1]
    if answer is None:
        answer = _tag(text) or text.rpartition("####")[2]
        lead = _LEAD.match(answer.strip())
        answer = answer.strip()[lead.end() :] if lead and not lead[0].startswith("\\") else answer
    if not answer.strip():
        raise ValueError(f"a reference must hold an answer, got {reference!r:.80}")
    return (answer.strip(),)


def _box(text: str) -> tuple[str | None, bool]:
    """What is boxed last, and whether a box is cut off."""
    text = _BARE_BOX.sub(r"\1{\2}", text)
    boxes, cut_off = _boxes(text)
    answers: list[str] = []
    following = None  # where the box after this one begins
    while boxes:
        first, (start, end) = boxes.popitem()  # the last to close
        if following is not None and not _are_joint(text[end + 1 : following]):
            break
        # Of nested boxes the outer one is the answer, unless the inner one is all it holds.
        while True:
            while start < end and text[start].isspace():
                start += 1
            while end > start and text[end - 1].isspace():
                end -= 1
            if start not in boxes or boxes[start][1] + 1 != end:
                break
            start, end = boxes.pop(start)
        while boxes and next(reversed(boxes)) > first:
            boxes.popitem()
        answer = _without_lead(text[start:end])
        if not _PLACEHOLDER.fullmatch(answer):
            if answer not in answers:
                answers.append(answer)
            following = first
    return ", ".join(reversed(answers)) or None, cut_off


def _without_lead(answer: str) -> str:
    """An answer without a repeated "The answer is" in front."""
    match = _LEAD.match(answer)
    if match is None or not answer[match.end() :].strip():
        return answer
    rest = answer[match.end() :].strip()
    return rest if match[1] or not match[0].startswith("\\text") else rf"\text{{{rest}"


def _are_joint(between: str) -> bool:
    if len(between) > _MAX_JOINT or not _JOINT.fullmatch(between):
        return False
    return "\n" not in between or bool(re.search(r"[,;]|\band\b|\bor\b", between))


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


def _tag(text: str) -> str | None:
    end = text.lower().rfind("</answer>")
    start = text.lower().rfind("<answer>", 0, max(end, 0))
    content = text[start + len("<answer>") : end].strip()
    if start < 0 or not content or r"\boxed" in text[end:]:
        return None
    return extract_answer(content, ("box", "phrase", "whole")) or content


def _final(text: str) -> str | None:
    box = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
    last = deque(_FINAL.finditer(text, max(box, 0)), maxlen=1)
    if box < 0 or not last:
        return None
    announced = _announced(text, last[0].end())
    says_something = announced is not None and is_formula(announced) and re.search(r"[0-9\\]", announced)
    return announced if says_something else None


def _phrase(text: str) -> str | None:
    for match in reversed(deque(_PHRASE.finditer(text), maxlen=_MAX_WORDS)):
        if (answer := _announced(text, match.end())) is not None:
            return answer
    return None


def _announced(text: str, start: int) -> str | None:
    """What follows "the answer is" up to the end of its sentence, but for a reason."""
    announced = text[start : start + _MAX_PHRASE]
    announced = announced[_MARKUP.match(announced).end() :]  # pyright: ignore[reportOptionalMemberAccess]
    announced = announced[_FILLER.match(announced).end() :]  # pyright: ignore[reportOptionalMemberAccess]
    found = formulas(announced, commas_enumerate=True)
    if found and not found[0].start:
        rest = _SENTENCE.match(announced, found[0].end)[0]  # pyright: ignore[reportOptionalSubscript]
        rest = _REASON.sub("", rest).strip(" *\"'`$,\\")
        return f"{found[0].content} {rest}".strip()
    sentence = _SENTENCE.match(announced)[0]  # pyright: ignore[reportOptionalSubscript]
    sentence = _REASON.sub("", sentence).strip(" *\"'`$,")
    if is_formula(sentence):
        return sentence
    # Of a computation the result, of "the number of boys is 5" what it is.
    result = re.split(r"=|\b(?:is|are|equals)\b", _LATEX_COMMA.sub(",", sentence))[-1].strip()
    has_number = bool(_NUMBER.search(result)) or "$" in result
    return result if result and (has_number or len(result.split()) <= _MAX_WORDS) else None


def _whole(text: str) -> str | None:
    text = text.strip()
    inside = text.strip("$* ")
    if _WHOLE.fullmatch(text) or is_formula(inside):
        return text if "$" in inside else inside
    return None


def _expression(text: str) -> str | None:
    every = formulas(text)
    found = [formula for formula in every if formula.says_something]
    last = deque(_NUMBER.finditer(text, found[-1].end if found else 0), maxlen=1)
    if found and not last:
        return found[-1].content
    return _number(text) or (every[-1].content if every else None)


def _number(text: str) -> str | None:
    last = deque(_NUMBER.finditer(_LATEX_COMMA.sub(",", text)), maxlen=1)
    return _written(last[0]) if last else None


def _written(match: re.Match[str]) -> str:
    minus, number = "-" if match["minus"] else "", match["number"].rstrip(",")
    if _THOUSANDS.fullmatch(number):
        number = re.sub("[, ]", "", number)
    rest = re.sub(r"\s", "", match["rest"] or "")
    hedge = _HEDGE.search(match.string, max(0, match.start() - _MAX_HEDGE), match.start())
    written = (hedge[0] if hedge else "") + minus + number + rest + ("%" if match["percent"] else "")
    return written + (f" {match['scale'].strip()}" if match["scale"] else "")


_PLACES = {place.__name__[1:]: place for place in (_final, _tag, _phrase, _whole, _expression, _number)}
