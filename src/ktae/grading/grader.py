"""Grading of free-text answers: find the final answer in a text, compare it with the accepted answers.

The symbolic comparison runs in worker processes, each item with its own deadline: a model's answer can hang it or
exhaust the memory (power towers, factorials), and only a process can be stopped from outside. What cannot hang is
decided without a worker.
"""

import multiprocessing.context
import os
import queue
import signal
import sys
import types
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Literal, Self

from ktae.extras import require
from ktae.grading.equivalence import compare_plainly, is_equivalent
from ktae.grading.extraction import Reference, extract_answer, reference_answers

# Bytes of address space a worker may add to what it has at its start.
WORKER_MEMORY = 1 << 30
# Seconds without any result, beyond the deadline of an item, after which a pool counts as broken. Generous, since
# it covers the start of a worker on a busy machine.
_GRACE = 60.0


@dataclass(frozen=True)
class Verdict:
    """The outcome for one prediction.

    Attributes:
        status: "no_answer" when the text holds nothing to grade; "timeout" when the answer could not be judged in time
            or in memory, or the comparison failed on it; "error" when a worker process died or would not start, which
            says nothing about the answer.
        extracted: the final answer found in the text, None without one.
        reason: one line for people.
    """

    status: Literal["correct", "incorrect", "no_answer", "timeout", "error"]
    extracted: str | None
    reason: str


class _WorkerProcess(multiprocessing.context.SpawnProcess):
    """A spawned process that does not import the script that was started.

    By default it would, and a training script without a guard would start to train in every worker. Forking is no way
    out: the threads torch keeps in the parent can hold locks. multiprocessing looks the script up in `sys.modules`.
    """

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

        # Linux limits address space, in which imported libraries count too. Past the cap allocations fail.
        with open("/proc/self/statm") as statm:
            size = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
    # Now, so that imports and tables are not charged to the deadline of the first item.
    require("math_verify", "train")
    is_equivalent(r"2x\text{ cm}", "x + x")


# An extracted answer and its accepted answers.
_Job = tuple[str, tuple[str, ...]]


class Grader:
    """Grades predictions in a pool of worker processes, which starts when it is first needed.

    Args:
        workers: the number of processes, at least 1.
        timeout: seconds a comparison may take once a worker has begun with it, above 0.
        relative_tolerance: how far a number may be off if it or the answer is a decimal, as a share of the answer, for
            tasks whose answers are measured or rounded; then it may also be rounded to the two or more digits that the
            answer states. At least 0 and below 1; None for exact answers.

    Raises:
        ImportError: math-verify, pint or pebble is not installed.
        ValueError: an argument is out of range.
    """

    # Decides on (prediction, answer, relative tolerance) in a worker.
    _equivalent = staticmethod(is_equivalent)

    def __init__(self, workers: int = 2, timeout: float = 5.0, relative_tolerance: float | None = None) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, got {timeout}")
        if relative_tolerance is not None and not 0 <= relative_tolerance < 1:
            raise ValueError(f"relative_tolerance must be at least 0 and below 1, got {relative_tolerance}")
        for module in ("math_verify", "pint"):
            require(module, "train")
        self._pebble = require("pebble", "train")
        self.workers, self.timeout, self.relative_tolerance = workers, timeout, relative_tolerance
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

    def grade(self, predictions: Sequence[str], answers: Sequence[Reference]) -> list[Verdict]:
        """Grade each prediction against its accepted answers.

        Args:
            predictions: the models' whole outputs.
            answers: for each prediction the accepted answer, or several of which any will do, as `reference_answers`
                takes them.

        Returns:
            The verdicts, in the order of the predictions. An item that hangs, exhausts its worker's memory or
            kills the worker gets "timeout" or "error", and leaves the others as they are.

        Raises:
            ValueError: the lengths differ, or a prediction has no accepted answer.
            TypeError: a prediction is not a string, or an answer neither a string nor a number.
        """
        if len(predictions) != len(answers):
            raise ValueError(f"got {len(predictions)} predictions but {len(answers)} answers")
        items: list[Verdict | _Job] = []
        for index, (prediction, reference) in enumerate(zip(predictions, answers, strict=True)):
            if not isinstance(prediction, str):
                raise TypeError(f"predictions must be strings, got {prediction!r} at index {index}")
            try:
                accepted = reference_answers(reference)
            except (TypeError, ValueError) as error:
                raise type(error)(f"answers: {error} at index {index}") from None
            items.append(_decide_plainly(extract_answer(prediction), accepted))
        # The rollouts of a group often share an answer: each job is done once.
        judged = self._judge_in_workers({item for item in items if not isinstance(item, Verdict)})
        return [item if isinstance(item, Verdict) else judged[item] for item in items]

    def _judge_in_workers(self, jobs: set[_Job]) -> dict[_Job, Verdict]:
        verdicts: dict[_Job, Verdict] = {}
        # The pool breaks down when a worker dies between jobs; what has no verdict yet then gets a new pool, once.
        for _ in range(2):
            waiting = jobs - verdicts.keys()
            if not waiting:
                break
            finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
            job_of = {}
            try:
                pool = self._running_pool()
                for job in waiting:
                    asked = (self._equivalent, *job, self.relative_tolerance)
                    future = pool.schedule(_judge, args=asked, timeout=self.timeout)
                    job_of[future] = job
                    future.add_done_callback(finished.put)
                for _ in waiting:
                    future = finished.get(timeout=self.timeout + _GRACE)
                    # Not result(), which would raise whatever ended the job.
                    error = future.exception()
                    if not isinstance(error, BrokenProcessPool):
                        job = job_of[future]
                        verdicts[job] = self._failed(job, error) if error else _decided(future.result(), job)
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

    def _failed(self, job: _Job, error: BaseException) -> Verdict:
        if isinstance(error, TimeoutError):
            return Verdict("timeout", job[0], f"no decision within {self.timeout:g} s")
        # The worker died (an exit code of -9 means it was killed), or the pool could not pass the job on.
        code = getattr(error, "exitcode", None)
        reason = f"{type(error).__name__}: {error}" if code is None else f"the worker died, exit code {code}"
        return Verdict("error", job[0], reason)


def _judge(equivalent: Any, prediction: str, answers: tuple[str, ...], tolerance: float | None) -> int | str:
    """Which of the answers the prediction is equivalent to, -1 for none, or why that could not be decided."""
    try:
        return next((index for index, answer in enumerate(answers) if equivalent(prediction, answer, tolerance)), -1)
    except BaseException as error:  # not passed on: some of sympy's cannot be pickled, which would end the worker
        return f"{type(error).__name__}: {error}"[:200]


def _decide_plainly(extracted: str | None, accepted: tuple[str, ...]) -> Verdict | _Job:
    """The verdict where it needs no worker, otherwise the job for one."""
    if extracted is None:
        return Verdict("no_answer", None, "no complete answer in the text")
    job = (extracted, accepted)
    matches = [compare_plainly(extracted, candidate) for candidate in accepted]
    if True in matches:
        return _decided(matches.index(True), job)
    return job if None in matches else _decided(-1, job)


def _decided(outcome: int | str, job: _Job) -> Verdict:
    """The verdict that `_judge` comes to."""
    extracted, accepted = job
    if isinstance(outcome, str):
        return Verdict("timeout", extracted, outcome)
    if outcome >= 0:
        return Verdict("correct", extracted, f"equivalent to {accepted[outcome]!r:.80}")
    return Verdict("incorrect", extracted, f"not equivalent to {' or '.join(map(repr, accepted)):.80}")
