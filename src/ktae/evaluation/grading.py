"""Grading of free-text answers: find the final answer in a text, compare it with the accepted answers.

    with Grader() as grader:
        verdicts = grader.grade([r"Hence \\boxed{1/2}.", "It costs $1,234."], [r"\\frac12", ["1233", "1235"]])

The symbolic comparison runs in worker processes, each item with its own deadline, for two reasons. A model's
answer can hang it or exhaust the memory (power towers, factorials), and only a process can be stopped from
outside. And math-verify's own timeouts rest on signals, which work in a main thread only. What cannot hang, the
extraction and the comparison of strings and plain numbers, is decided without a worker.
"""

import logging
import math
import multiprocessing.context
import os
import pickle
import queue
import re
import signal
import sys
import types
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Literal, Self

from ktae.extras import require

# Bytes of address space a worker may add to what it has at its start.
WORKER_MEMORY = 1 << 30
# Seconds without any result, beyond the deadline of an item, after which a pool counts as broken. Generous, since
# it covers the start of a worker on a busy machine.
_GRACE = 60.0


@dataclass(frozen=True)
class Verdict:
    """The outcome for one prediction.

    Attributes:
        status: "no_answer" when the text holds nothing to grade; "timeout" and "error" when the grader could not
            decide, which says nothing about the prediction.
        extracted: the final answer found in the text, None without one.
        reason: one line for people.
    """

    status: Literal["correct", "incorrect", "no_answer", "timeout", "error"]
    extracted: str | None
    reason: str


# Extraction. Every pattern takes time linear in the text, because it runs in the caller's process.

_BOX_OR_BRACE = re.compile(r"\\(?:(?P<box>boxed|fbox)\s*\{|.)|[{}]", re.DOTALL)
_LATEX_COMMA = re.compile(r"\{,\}|,\\!\s*")  # 1{,}234 and 1,\! 234
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
    (?!\^)                                         # of a power that does not end here, the base is no answer
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
    last = deque(_NUMBER.finditer(_LATEX_COMMA.sub(",", text)), maxlen=1)
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


# Comparison

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
    quick = _compare_plainly(prediction, answer)
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


def _compare_plainly(prediction: str, answer: str) -> bool | None:
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
    answer = _LATEX_COMMA.sub(",", answer).replace("$", "").strip().removesuffix(".")
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


# Worker processes


class _WorkerProcess(multiprocessing.context.SpawnProcess):
    """A spawned process that does not import the script that was started.

    By default it would, to find functions defined there. A training script imports torch, and without an
    ``if __name__ == "__main__"`` guard it would start to train in every worker. Forking instead is no way out:
    the threads torch keeps in the parent can hold locks.
    """

    # multiprocessing has no option for it, but looks the script up in `sys.modules`. For the milliseconds of a
    # start other threads see the empty module too; nothing but pickling a function of the script looks there.

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            return multiprocessing.context.SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = main


class _WorkerContext(multiprocessing.context.SpawnContext):
    Process = _WorkerProcess


def _start_worker(memory: int) -> None:
    # The pool's own handler is Python code, which does not run while sympy multiplies huge integers.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        import resource

        # Address space is what Linux lets a process limit. The cap is relative to the present size because
        # imported libraries count too; past it the allocation fails, as a MemoryError or by ending the worker.
        with open("/proc/self/statm") as statm:
            size = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
    # Now, so that the import is not charged to the deadline of the first item.
    require("math_verify", "train")


def _judge(equivalent: Callable[[str, str], bool], prediction: str, answers: list[str]) -> bool | str:
    """Whether the prediction is equivalent to one of the answers, or why that could not be decided."""
    try:
        return any(equivalent(prediction, answer) for answer in answers)
    except BaseException as error:  # not passed on: some of sympy's cannot be pickled, which would end the worker
        return f"{type(error).__name__}: {error}"[:200]


# An extracted answer and its accepted answers.
_Job = tuple[str, tuple[str, ...]]


class Grader:
    """Grades predictions in a pool of worker processes, which starts when it is first needed.

    Args:
        workers: the number of processes, at least 1.
        timeout: seconds a comparison may take once a worker has begun with it, above 0.
        equivalent: decides on (prediction, answer) where their strings and plain numbers do not; a function of an
            importable module other than `__main__`.

    Raises:
        ImportError: math-verify or pebble is not installed.
        ValueError: workers or timeout is out of range.
        TypeError: workers could not import `equivalent`.
    """

    def __init__(
        self,
        workers: int = 2,
        timeout: float = 5.0,
        equivalent: Callable[[str, str], bool] = is_equivalent,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, got {timeout}")
        try:
            pickle.dumps(equivalent)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(f"equivalent must be a function of a module, got {equivalent!r}") from error
        if equivalent.__module__ == "__main__":
            raise TypeError(f"equivalent must be importable, got {equivalent!r} of the script that runs")
        require("math_verify", "train")
        self._pebble = require("pebble", "train")
        self.workers, self.timeout, self.equivalent = workers, timeout, equivalent
        self._pool: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers. A later `grade` would start new ones."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def grade(self, predictions: Sequence[str], answers: Sequence[str | Sequence[str]]) -> list[Verdict]:
        """Grade each prediction against its accepted answers.

        Args:
            predictions: the models' whole outputs.
            answers: for each prediction the accepted answer, or several of which any will do.

        Returns:
            The verdicts, in the order of the predictions. An item that hangs, exhausts its worker's memory or
            kills the worker gets "timeout" or "error", and leaves the others as they are.

        Raises:
            ValueError: the lengths differ, or a prediction has no accepted answer.
            TypeError: a prediction or an answer is not a string.
        """
        if len(predictions) != len(answers):
            raise ValueError(f"got {len(predictions)} predictions but {len(answers)} answers")
        items = [_decide_plainly(*item) for item in zip(range(len(answers)), predictions, answers, strict=True)]
        # The rollouts of a group often share an answer: each job is done once.
        judged = self._judge_in_workers({item for item in items if not isinstance(item, Verdict)})
        return [item if isinstance(item, Verdict) else judged[item] for item in items]

    def _judge_in_workers(self, jobs: set[_Job]) -> dict[_Job, Verdict]:
        verdicts: dict[_Job, Verdict] = {}
        # The pool copes with workers that hang or die at work. It breaks down when one dies in between; then
        # what has no verdict yet gets one more chance, in a new pool.
        for _ in range(2):
            waiting = jobs - verdicts.keys()
            if not waiting:
                break
            finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
            job_of = {}
            try:
                pool = self._running_pool()
                for job in waiting:
                    future = pool.schedule(_judge, args=(self.equivalent, *job), timeout=self.timeout)
                    job_of[future] = job
                    future.add_done_callback(finished.put)
                for _ in waiting:
                    future = finished.get(timeout=self.timeout + _GRACE)
                    verdict = self._verdict(job_of[future][0], future)
                    if verdict is not None:
                        verdicts[job_of[future]] = verdict
            except (queue.Empty, RuntimeError):  # nothing comes any more, or the pool takes no more jobs
                self.close()
        for job in jobs - verdicts.keys():
            verdicts[job] = Verdict("error", job[0], "the worker processes broke down twice")
        return verdicts

    def _running_pool(self) -> Any:
        if self._pool is not None and not self._pool.active:
            self.close()
        if self._pool is None:
            self._pool = self._pebble.ProcessPool(
                max_workers=self.workers,
                context=_WorkerContext(),
                initializer=_start_worker,
                initargs=(WORKER_MEMORY,),
            )
        return self._pool

    def _verdict(self, extracted: str, future: Any) -> Verdict | None:
        """The verdict of a finished job, None if it was not its own fault that it failed."""
        # Not result(), which would raise whatever ended the job.
        error = future.exception()
        if error is None:
            outcome = future.result()
            if isinstance(outcome, str):
                return Verdict("error", extracted, outcome)
            return _decided(outcome, extracted)
        if isinstance(error, BrokenProcessPool):
            return None
        if isinstance(error, TimeoutError):
            return Verdict("timeout", extracted, f"no decision within {self.timeout:g} s")
        # The worker died (an exit code of -9 means it was killed), or the pool could not pass the job on.
        code = getattr(error, "exitcode", None)
        reason = f"{type(error).__name__}: {error}" if code is None else f"the worker died, exit code {code}"
        return Verdict("error", extracted, reason)


def _decide_plainly(index: int, prediction: str, answer: str | Sequence[str]) -> Verdict | _Job:
    """The verdict where it needs no worker, otherwise the job for one."""
    accepted = (answer,) if isinstance(answer, str) else tuple(answer)
    for name, values in (("predictions", (prediction,)), ("answers", accepted)):
        for value in values:
            if not isinstance(value, str):
                raise TypeError(f"{name} must be strings, got {value!r} at index {index}")
    if not accepted:
        raise ValueError(f"answers must hold an accepted answer for each prediction, got none at index {index}")
    extracted = extract_answer(prediction)
    if extracted is None:
        return Verdict("no_answer", None, "neither a complete box nor a number in the text")
    matches = {_compare_plainly(extracted, candidate) for candidate in accepted}
    if True in matches:
        return _decided(True, extracted)
    return (extracted, accepted) if None in matches else _decided(False, extracted)


def _decided(correct: bool, extracted: str) -> Verdict:
    if correct:
        return Verdict("correct", extracted, "equivalent to an accepted answer")
    return Verdict("incorrect", extracted, "equivalent to no accepted answer")
