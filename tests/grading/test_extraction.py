"""Where the final answer of an output is found."""

import contextlib
import time

import pytest

from ktae.grading.equivalence import compare_plainly
from ktae.grading.extraction import extract_answer, reference_answers
from ktae.grading.options import GradingOptions


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{18}.", "18"),
        (r"\boxed{1}, no, \boxed{\frac{a}{b^{2}}}$ and 7 more", r"\frac{a}{b^{2}}"),
        (r"\fbox{7}", "7"),
        (r"\boxed {x}", "x"),
        (r"\boxed 12 and \boxed5", "12, 5"),
        (r"\boxed{ \boxed{5} }", "5"),
        (r"\boxed{\fbox{3}, 4}", r"\fbox{3}, 4"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{1\right.}", r"\left\{1\right."),
        (r"\boxed{a\\{b}}", r"a\\{b}"),
        (r"Put it into \boxed{}. It is 4.", "4"),
        (r"\boxed{5} and then \boxed{\boxed{ }}", "5"),
        (r"\boxed{3}, or rather \boxed{12", "3"),
        (r"an open { brace } } and \boxed{2}", "2"),
        (r"\boxed{\text{a} and never closed, 12", None),
        (r"\boxed{−3}", "-3"),  # noqa: RUF001 (a minus sign, not a hyphen)
        # Boxes of one answer, and those of several attempts.
        (r"$\boxed{1}$, $\boxed{2}$ and $\boxed{3}$", "1, 2, 3"),
        (r"$\boxed{(3, 3)} \text{ for part (a) and } \boxed{(1, 1)}$", "(3, 3), (1, 1)"),
        (r"$y_1 = \boxed{a}$ and $y_2 = \boxed{b}$", "a, b"),
        (r"\boxed{5} and \boxed{5}", "5"),
        ("\\boxed{5}\n\n\\boxed{6}", "6"),
        (r"First \boxed{5}. Then \boxed{6}", "6"),
        # The final answer is announced behind the box.
        (r"\boxed{200} of it. Final Answer: The final answer is $10,455$. I hope it is correct.", "10,455"),
        (r"\boxed{5}. The final answer is in meters.", "5"),
        (r"The final answer is $\boxed{5}$.", "5"),
    ],
)
def test_the_last_complete_box_is_the_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>3</think> <answer>5</answer> 6", "5"),
        ("<answer>2</answer><Answer> The answer is $x = 7$. </ANSWER>", "x = 7"),
        ("<answer>several words of text</answer>", "several words of text"),
        ("<answer></answer> 4", "4"),
        ("<answer>5", "5"),
        (r"<answer>\boxed{3}</answer>", "3"),
        ("The answer is **5**, as 2+3 says.", "5"),
        ("**Answer:** 42", "42"),
        ("**Final Answer**\n\n$5$\nof 7", "5"),
        ("answer = 5", "5"),
        ("The answers are $3$, $4$.", "3, 4"),
        ("So the answer is 5 + 3 = 8.\nCheck: 1", "5 + 3 = 8"),
        ("The answer is 12 boys, not 13.", "12 boys"),
        ("The answer as a percentage: 2 people / 8 people * 100% = 50%", "50%"),
        ("The answer is (C).", "(C)"),
        ("the answer is Evelyn.", "Evelyn"),
        ("The answer is not 5, it is 6.", "6"),
        ("The answer is in the text above, so it is 6.", "6"),
        (r"The final answer is \"$12 $ and $13 $\".", "12, 13"),
        ("#### -1,234", "-1,234"),
    ],
)
def test_tags_and_phrases(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # A text that is nothing but an answer.
        (r"$x \approx 11$", r"x \approx 11"),
        ("W(x)=1orW(x)=-1", "W(x)=1orW(x)=-1"),
        (r"10\text{ units}", r"10\text{ units}"),
        ("10, 4, -2", "10, 4, -2"),
        ("Evelyn", "Evelyn"),
        (r"\alpha", r"\alpha"),
        ("p - q", "p - q"),
        # The last formula.
        (r"We find that $x \lt 3$.", r"x \lt 3"),
        (r"So $7 = 7$, and \[ x = \frac{3}{4} \]", r"x = \frac{3}{4}"),
        (r"We get \( x = 3 \), so 4 apples", "4"),
        (r"The value of $x$ is 5, and $y$ is not known.", "5"),
        (r"Thus $x=2$ and $y=3$.", "x=2, y=3"),
        (r"If $x=2$, $y=3$.", "y=3"),
        ("It is $28$ percent.", "28%"),
        ("She earns $5 + $6 = $11.", "11"),
        ("They cost $3 and $4.", "4"),
    ],
)
def test_formulas(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She has 5, then 18.", "18"),
        ("#### 42", "42"),
        ("**72**", "72"),
        ("It costs $1,234,567.89.", "1234567.89"),
        (r"It costs \$1,000.", "1000"),
        ("1{,}234 and then 14{,}916", "14916"),
        ("It is 1 234 567 or 2 300,5", "2 300,5"),
        ("Soucis : 2,74 $ a..", "2,74"),
        ("They are 1,2,3", "1,2,3"),
        ("They are 1, 2, 30, ", "30"),
        ("It costs €5", "5"),
        ("It is -$5", "-5"),
        ("It is −5", "-5"),  # noqa: RUF001
        ("It is 10-3", "3"),
        ("the 16-18 year olds", "18"),
        ("- 5 apples", "5"),
        ("It is .5", ".5"),
        ("well...5", "5"),
        ("It is 3.", "3"),
        ("some 18cm", "18"),
        ("It is 3 / 4", "3/4"),
        ("It is 1 1/2", "1 1/2"),
        (r"It is -\dfrac{3}{4}", r"-\dfrac{3}{4}"),
        (r"It is 2\frac{1}{2}", r"2\frac{1}{2}"),
        (r"It is \frac12", r"\frac12"),
        ("It is 8 (8%)", "8%"),
        (r"It is 50\%.", "50%"),
        ("50 percent of them", "50%"),
        ("It is 6.43e16", "6.43e16"),
        (r"It is 6.43 \times 10^{-16} J", r"6.43\times10^{-16}"),
        ("It is 2^10", "2^10"),
        # Numbers that are part of something else.
        (r"It is 2^{10^3}", None),
        ("It is x^2 + x_1 + x^{3} + x^-4", None),
        ("Soucis AZYUK2A", None),
        ("It is 1.2.3", None),
        ("no number", None),
        ("None.", None),
        ("", None),
    ],
)
def test_without_anything_else_the_last_number_is_the_answer(text, answer):
    assert extract_answer(text) == answer


def test_the_order_is_an_option():
    text = r"The answer is 1. \boxed{2} <answer>3</answer> $x < 4$ and 5"
    orders = {"phrase": "1", "box": "2", "tag": "3", "expression": "5", "number": "5", "whole": None, "final": None}
    assert {place: extract_answer(text, (place,)) for place in orders} == orders
    assert extract_answer(text, ("whole", "tag", "box")) == "3"
    assert extract_answer("$x < 4$.", ("number",)) == "4"
    with pytest.raises(ValueError, match=r"extraction must name tag, final, .*, number, got 'boxes'"):
        GradingOptions(extraction=("boxes",))
    with pytest.raises(ValueError, match="at least one place"):
        GradingOptions(extraction=())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>It is 3.</think>It is 4.", "4"),
        ("It is 3.</think> It is 4.", "4"),  # the tag that opens stood in the prompt
        (r"<think>It is \boxed{3}.", None),
        (r"\boxed{3} <answer>4</answer>", "4"),
        (r"<answer>4</answer> \boxed{3}", "3"),
        (r"In \boxed{...} comes \boxed{\text{your answer}}: \boxed{5}", "5"),
        (r"\boxed{\text{The answer is }5}", "5"),
        ("The answer is either 12 or 13.", "either 12 or 13"),
        ("The answer is C because 12 is even.", "C"),
        ("The answer isn't 12.", None),
        ("It costs twice 12", "twice 12"),
        ("It has 12 million", "12 million"),
        ("所以答案是5。", "5"),
        ("La respuesta es 5.", "5"),
    ],
)
def test_nothing_that_belongs_to_an_answer_is_left_out(text, answer):
    assert extract_answer(text) == answer


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
    assert time.perf_counter() - start < 5  # quadratic time would be minutes
