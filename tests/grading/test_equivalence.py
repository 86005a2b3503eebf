"""Which answers are equal. In `equivalences.txt` every rule has its wrong answers beside the right ones."""

from pathlib import Path

import pytest

pytest.importorskip("math_verify")

from ktae.grading.equivalence import is_equivalent

LINES = Path(__file__).with_name("equivalences.txt").read_text("utf-8").splitlines()
PAIRS = [line.split("\t") for line in LINES if not line.startswith("# ")]
UNTRIMMED = [
    ["$18", "=", " $18$ \n"],
    ["\\frac{\\cos(2t)}{15}", "=", "\\frac{1}{15} \\cos(2t)\n"],
    ["", "/", "1"],
    ["", "/", ""],
]


@pytest.mark.parametrize(("prediction", "sign", "answer"), PAIRS + UNTRIMMED)
def test_equivalence(prediction, sign, answer):
    assert is_equivalent(prediction, answer) is (sign == "=")
