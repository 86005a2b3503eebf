"""The grader: its verdicts, and that nothing an answer does can harm the rest."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("math_verify")
pytest.importorskip("pebble")

from ktae.grading import grader as grading
from ktae.grading.equivalence import is_equivalent
from ktae.grading.grader import Grader, Verdict


@pytest.fixture(scope="module")
def grader():
    with Grader(timeout=20) as grader:
        yield grader


def test_verdicts_keep_the_order_and_any_accepted_answer_will_do(grader):
    predictions = [r"\boxed{x+1}", "It is 3.", "None.", r"\boxed{2x}", r"\boxed{x+1}", "It is 4.", r"\boxed{y}"]
    answers = ["1+x", "4", "4", ["x", "x+x"], "1+x", ["3", "x", "4.0"], ("1", "2")]
    verdicts = grader.grade(predictions, answers)
    statuses = [verdict.status for verdict in verdicts]
    assert statuses == ["correct", "incorrect", "no_answer", "correct", "correct", "correct", "incorrect"]
    assert [verdict.extracted for verdict in verdicts] == ["x+1", "3", None, "2x", "x+1", "4", "y"]
    assert [verdict.reason for verdict in verdicts][2:4] == ["no complete answer in the text", "equivalent to 'x+x'"]
    assert grader.grade([r"\boxed{2x}", "So $x$."], [["x", "3x", "4x"], "y" * 100]) == [
        Verdict("incorrect", "2x", "not equivalent to 'x' or '3x' or '4x'"),
        Verdict("incorrect", "x", f"not equivalent to '{'y' * 79}"),
    ]
    assert grader.grade([], []) == []


def test_strings_and_plain_numbers_need_no_worker():
    with Grader() as idle:
        predictions = [r"\boxed{9^{9^{9}}}", "1,234.50", "7", "No idea."]
        verdicts = idle.grade(predictions, ["9^{9^{9}}", "1234.5", ["8", "9"], "1"])
        assert [verdict.status for verdict in verdicts] == ["correct", "correct", "incorrect", "no_answer"]
        assert idle._pool is None


def test_options_reach_the_workers():
    predictions, answers = [r"\boxed{6.61}", r"\boxed{1.57}", r"\boxed{1.34}", r"\boxed{101}"], [6.62, 1.6, 1.39, 100]
    verdicts = {}
    for tolerance in (None, 0.01):
        with Grader(relative_tolerance=tolerance) as grader:
            verdicts[tolerance] = [verdict.status == "correct" for verdict in grader.grade(predictions, answers)]
    # 1.57 is 1.6 to the digits of the answer; integers stay exact.
    assert verdicts == {None: [False] * 4, 0.01: [True, True, False, False]}
    with pytest.raises(ValueError, match="relative_tolerance must be at least 0 and below 1, got 1"):
        Grader(relative_tolerance=1)


def test_grades_off_the_main_thread(grader):
    with ThreadPoolExecutor() as threads:
        (verdict,) = threads.submit(grader.grade, [r"\boxed{2x}"], ["x+x"]).result()
    assert verdict.status == "correct"


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"workers must be at least 1, got 0"):
        Grader(workers=0)
    with pytest.raises(ValueError, match=r"timeout must be above 0 seconds, got -1"):
        Grader(timeout=-1)
    grader = Grader()
    with pytest.raises(ValueError, match=r"got 1 predictions but 2 answers"):
        grader.grade(["1"], ["1", "2"])
    with pytest.raises(TypeError, match=r"answers: a reference must be a text or a number, got True at index 1"):
        grader.grade(["1", "142"], ["1", True])
    with pytest.raises(TypeError, match=r"predictions must be strings, got None at index 0"):
        grader.grade([None], ["1"])
    with pytest.raises(ValueError, match=r"answers: a reference must hold an answer, got \[\] at index 0"):
        grader.grade(["1"], [[]])


@pytest.mark.parametrize("module", ["math_verify", "pint", "pebble"])
def test_a_missing_dependency_says_how_to_install_it(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(ImportError, match=rf'{module} is not installed.*pip install "ktae\[train\]"'):
        Grader()


# Hostile answers


class _NoPickle(Exception):
    """Like some of sympy's exceptions, it cannot leave the worker."""

    def __reduce__(self):
        raise TypeError("cannot pickle")


def hostile(prediction, answer, tolerance):
    """Runs in a worker."""
    if prediction == "die(1)":
        os.kill(os.getpid(), signal.SIGKILL)
    elif prediction == "exit(1)":
        sys.exit(1)
    elif prediction == "hang(1)":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        while True:
            time.sleep(1)
    elif prediction == "eat(1)":
        return len(bytearray(2 * grading.WORKER_MEMORY)) == 0
    elif prediction == "raise(1)":
        raise _NoPickle("as sympy does")
    return is_equivalent(prediction, answer, tolerance)


class _Hostile(Grader):
    _equivalent = staticmethod(hostile)


def test_an_answer_that_harms_its_worker_costs_itself_only():
    kinds = {"die(1)": "error"} | dict.fromkeys(["exit(1)", "hang(1)", "eat(1)", "raise(1)"], "timeout")
    neighbours = {f"{n}{sign}x": status for n in range(3) for sign, status in (("+", "correct"), ("-", "incorrect"))}
    expected = [row for kind in kinds.items() for row in (*neighbours.items(), kind)]
    with _Hostile(timeout=3) as grader:
        predictions = [rf"\boxed{{{answer}}}" for answer, _ in expected]
        verdicts = grader.grade(predictions, [f"x+{answer[0]}" for answer, _ in expected])
        assert [(verdict.extracted, verdict.status) for verdict in verdicts] == expected
        reasons = {verdict.extracted: verdict.reason for verdict in verdicts}
        assert reasons["die(1)"] == "the worker died, exit code -9"
        assert reasons["hang(1)"] == "no decision within 3 s"
        assert reasons["exit(1)"] == "SystemExit: 1"
        if sys.platform == "linux":
            assert reasons["eat(1)"].startswith("MemoryError")
        assert reasons["raise(1)"] == "_NoPickle: as sympy does"
        pool = grader._pool
        assert grader.grade([r"\boxed{2x}"] * 2, ["x+x", "x"])[0].status == "correct"
        assert grader._pool is pool


def test_survives_the_death_of_all_idle_workers():
    with Grader(workers=1) as grader:
        assert grader.grade([r"\boxed{2x}"], ["x+x"])[0].status == "correct"
        for worker in grader._pool._pool_manager.worker_manager.workers:
            os.kill(worker, signal.SIGKILL)
        assert grader.grade([r"\boxed{3x}"], ["x+x+x"])[0].status == "correct"
        time.sleep(0.5)  # the pool notices a death within 0.1 s
        assert grader.grade([r"\boxed{4x}"], ["2x+2x"])[0].status == "correct"


def test_close_leaves_no_process_and_a_later_call_starts_new_ones():
    before = set(multiprocessing.active_children())
    grader = Grader(workers=1)
    for _ in range(2):
        assert grader.grade([r"\boxed{2x}"], ["x+x"])[0].status == "correct"
        assert set(multiprocessing.active_children()) > before
        grader.close()
        assert set(multiprocessing.active_children()) <= before


def test_workers_do_not_run_a_script_without_a_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from ktae.grading.grader import Grader\n"
        "print('started')\n"
        "grader = Grader(workers=1)\n"
        "print(grader.grade([r'\\boxed{2x}'], ['x+x'])[0].status)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["started", "correct"], "")


# Real data. The placeholders of `hang_inputs`, spelled out here to keep that file short.
_MATRIX = r"\begin{{pmatrix}}{}\end{{pmatrix}}"
_PLACEHOLDERS = {
    "MATRIX2": _MATRIX.format(r"\\".join("&".join(f"x_{{{i},{j}}}" for i in range(12)) for j in range(12))),
    "MATRIX": _MATRIX.format(r"\\".join("&".join(f"x_{{{i},{j}}}" for j in range(12)) for i in range(12))),
    "DIGITS": "7" * 100_000,
    "BRACES": "{" * 5_000 + "1" + "}" * 5_000,
    "MANYBOXED": r"\boxed{1} " * 20_000,
    "MANYDOLLARS": "$1$ " * 50_000,
    "LONGTEXT": "lorem ipsum 1 " * 15_000,
}
# Equal to their answer by spelling, or in truth.
_EQUAL = {"100000! vs same", "nested radicals", "many boxed", "many dollars", "200k chars of text"}


def _spelled_out(text):
    for placeholder, value in _PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    return text


def test_inputs_that_hang_end_with_their_deadline(shared):
    text = (shared / "data/graders/hang_inputs_visible.jsonl").read_text()
    inputs = [json.loads(line) for line in text.splitlines()]
    assert len(inputs) == 24
    with Grader(timeout=1) as grader:
        for number, row in enumerate(inputs):
            assert grader.grade([rf"\boxed{{{number}+x}}"], [f"x+{number}"])[0].status == "correct"
            (verdict,) = grader.grade([_spelled_out(row["pred"])], [_spelled_out(row["gold"])])
            print(f"{verdict.status:9}  {row['name']}")
            # An "error" would mean that the deadline did not stop it, and a whole minute had to pass.
            assert verdict.status in {"incorrect", "no_answer", "timeout"} or row["name"] in _EQUAL, row["name"]
            assert verdict.status != "error", row["name"]
        assert grader.grade([r"\boxed{2x}"], ["x+x"])[0].status == "correct"
