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
_OPENING = re.compile(
    r"^(?:[\s*_\"'`:]|\\\")*(?:(?:simply|just|exactly|therefore|thus|clearly|equal to|given by|indeed)[\s:]+)*",
    re.IGNORECASE,
)
_MARKS = " *\"'`$,"
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


def extract_answer(text: str, places: Sequence[str] | None = None) -> str | None:
    r"""The final answer in a text.

    Args:
        text: a model's whole output.
        places: where to look, of those in docs/grading.md; all by default.

    Returns:
        The first answer that one of these places has; None when there is none, or when the only box is cut off: what it
        shows is the beginning of an answer.

    >>> extract_answer(r"So \boxed{\frac{1}{2}}, not 3."), extract_answer("She pays -$1,234.50.")
    ('\\frac{1}{2}', '-1234.50')
    """
    marks = deque(_REASONING.finditer(text), maxlen=1)
    if marks and not marks[0][1]:
        return None  # still thinking
    text = _NEGATED.sub("", repair(text[marks[0].end() :] if marks else text))
    for place in places or _PLACES:
        answer = _PLACES[place](text)
        if answer is not None:
            return answer or None
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
    answer = _box(text)
    if answer == "":
        answer = re.split(r"\\(?:boxed|fbox)\s*\{", text)[-1]
    if answer is None:
        answer = (_tag(text) or text.rpartition("####")[2]).strip()
        lead = _LEAD.match(answer)
        answer = answer[lead.end() :] if lead and not lead[0].startswith("\\") else answer
    if not answer.strip():
        raise ValueError(f"a reference must hold an answer, got {reference!r:.80}")
    return (answer.strip(),)


def _box(text: str) -> str | None:
    """What is boxed last; empty if all there is of a box is cut off, None without any."""
    text = _BARE_BOX.sub(r"\1{\2}", text)
    # Complete boxes that are in no other one: where each begins, its content's span, where it ends.
    boxes: list[tuple[int, tuple[int, int], int]] = []
    # Of each open brace: where its box and its content begin, None if it belongs to no box.
    stack: list[tuple[int, int] | None] = []
    for token in _BOX_OR_BRACE.finditer(text):
        if token["box"]:
            stack.append((token.start(), token.end()))
        elif token[0] == "{":
            stack.append(None)
        elif token[0] == "}" and stack and (opened := stack.pop()):
            content, inner = (opened[1], token.start()), []
            while boxes and boxes[-1][0] > opened[0]:
                inner.append(boxes.pop())
            # Of nested boxes the outer one is the answer, unless the inner one is all it holds.
            if len(inner) == 1 and not (text[content[0] : inner[0][0]] + text[inner[0][2] : content[1]]).strip():
                content = inner[0][1]
            boxes.append((opened[0], content, token.end()))
    answers: list[str] = []
    following = None  # where the box after this one begins
    for start, content, end in reversed(boxes):
        if following is not None and not _are_joint(text[end:following]):
            break
        answer = _without_lead(text[slice(*content)].strip())
        if not _PLACEHOLDER.fullmatch(answer):
            answers += [answer] if answer not in answers else []
            following = start
    return ", ".join(reversed(answers)) or ("" if any(stack) else None)


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
    announced = _OPENING.sub("", text[start : start + _MAX_PHRASE], count=1)
    found = formulas(announced, commas_enumerate=True)
    begun = found[0].end if found and not found[0].start else 0
    end = _SENTENCE.match(announced, begun).end()  # pyright: ignore[reportOptionalMemberAccess]
    sentence = _REASON.sub("", announced[begun:end]).strip(_MARKS + "\\" * bool(begun))
    if begun:
        return f"{found[0].content} {sentence}".strip()
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
    if found and not _NUMBER.search(text, found[-1].end):
        return found[-1].content
    last = deque(_NUMBER.finditer(_LATEX_COMMA.sub(",", text)), maxlen=1)
    return _written(last[0]) if last else (every[-1].content if every else None)


def _written(match: re.Match[str]) -> str:
    """A number with the words that change it."""
    number = match["number"].rstrip(",")
    if _THOUSANDS.fullmatch(number):
        number = re.sub("[, ]", "", number)
    hedge = _HEDGE.search(match.string, max(0, match.start() - _MAX_HEDGE), match.start())
    written = (hedge[0] if hedge else "") + ("-" if match["minus"] else "") + number
    written += re.sub(r"\s", "", match["rest"] or "") + ("%" if match["percent"] else "")
    return written + (f" {match['scale'].strip()}" if match["scale"] else "")


_PLACES = {
    "tag": _tag,
    "final": _final,
    "box": _box,
    "phrase": _phrase,
    "whole": _whole,
    "expression": _expression,
}
