"""Where the final answer of an output is found. The cases are in `extractions.jsonl`."""

import contextlib
import json
import time
from pathlib import Path

import pytest

from ktae.grading.equivalence import compare_plainly
from ktae.grading.extraction import extract_answer, reference_answers

CASES = [json.loads(line) for line in Path(__file__).with_name("extractions.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["kind"])
def test_the_final_answer_is_found(case):
    assert extract_answer(case["text"]) == case["answer"]


def test_each_place():
    text = r"The answer is 1. \boxed{2} <answer>3</answer> $x < 4$ and 5"
    places = {"phrase": "1", "box": "2", "tag": "3", "expression": "5", "whole": None, "final": None}
    assert {place: extract_answer(text, (place,)) for place in places} == places
    assert extract_answer(text, ("whole", "tag", "box")) == "3"


@pytest.mark.parametrize(
    ("reference", "answers"),
    [
        (" 5\n", ("5",)),
        (r"Hence $x = \boxed{20}$ percent.", ("20",)),
        (r"\boxed{ W(n) = 1", ("W(n) = 1",)),
        (r"$\boxed{2}, \boxed{3}$", ("2, 3",)),
        (r"\\boxed{\\frac{1}{2}}", (r"\frac{1}{2}",)),
        ("$\text{Evelyn}$", (r"$\text{Evelyn}$",)),  # a tab
        ("6 * 12 = 72\n#### 72", ("72",)),
        ('["72", "73"]', ("72", "73")),
        ("Answer: 72", ("72",)),
        ("<answer>72</answer>", ("72",)),
        ("[1, 2]", ("[1, 2]",)),  # an interval
        ([7, [0.5, "x"]], ("7", "0.5", "x")),
    ],
)
def test_the_answers_of_a_reference(reference, answers):
    assert reference_answers(reference) == answers


@pytest.mark.parametrize("nothing", [None, "", " \n", [], [None], [""], "#### ", float("nan"), True])
def test_a_reference_without_an_answer_is_an_error(nothing):
    with pytest.raises((TypeError, ValueError), match="a reference must"):
        reference_answers(nothing)


@pytest.mark.parametrize(
    "text",
    [
        "7" * 200_000,
        "1," * 100_000,
        "1,1" * 60_000 + "^x",
        "1,111" * 40_000,
        "111 " * 50_000 + "111^x",
        "1 " * 100_000,
        "1" + " " * 200_000,
        "1 1 / " * 40_000,
        "1/" * 100_000,
        "1^{1" * 50_000,
        "{" * 200_000,
        "-" * 200_000,
        "$" * 200_000,
        "$1" * 100_000,
        "$1$" + " " * 200_000 + "$2$",
        r"\[" * 100_000,
        r"\text{" * 40_000,
        r"\frac{" * 40_000,
        r"\begin{cases}" * 20_000,
        r"\boxed{" * 30_000,
        r"\boxed{" * 30_000 + "}" * 30_000,
        r"\boxed{1" * 20_000 + "}" * 20_000,
        r"\boxed{1} and " * 20_000,
        rf"\boxed{{{'7' * 200_000}}}",
        "the answer is " * 20_000,
        "<answer>" * 30_000,
        "and " * 50_000,
    ],
    ids=lambda text: text[:12],
)
def test_what_runs_without_a_deadline_takes_linear_time(text):
    start = time.perf_counter()
    extracted = extract_answer(text)
    with contextlib.suppress(ValueError):
        reference_answers(text)
    compare_plainly(extracted or text, "1/3")
    compare_plainly("1/3", extracted or text)
    assert time.perf_counter() - start < 60, "hangs"  # quadratic time would be minutes
