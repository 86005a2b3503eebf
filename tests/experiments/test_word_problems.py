import itertools
import random
import re

import pytest
import word_problems
from hypothesis import given
from hypothesis import strategies as st
from word_problems import Result, Step, WordProblem, extract_answer, label_tokens

from ktae.chain.labels import Label

OTHER, RIGHT, SLIP, PROPAGATED = Label
seeds = st.integers(0, 2**32 - 1)
PROBLEM = WordProblem(
    "Mia has 12 apples. Mia buys 7 more. Tom has twice as many apples as Mia. How many do Tom and Mia have together?",
    "apples",
    (
        Step(12, "+", 7, "one", ("Mia",)),
        Step(Result(0), "*", 2, "one", ("Tom",), ("+", 2), in_words=True),
        Step(Result(1), "+", Result(0), "both", ("Tom", "Mia")),
    ),
)


@pytest.fixture(scope="module")
def tokenizer():
    return word_problems.build_tokenizer()


def labels(tokenizer, completion, problem=PROBLEM):
    """The labels of the tokens that carry a decision, one letter each: R, S or P."""
    return "".join(label.name[0] for label in label_tokens(problem, tokenizer.tokenize(completion)) if label)


def test_the_tokenizer_is_always_the_same_and_lossless(tokenizer):
    again = word_problems.build_tokenizer.__wrapped__()
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert 1000 <= len(tokenizer) <= 4000
    rng = random.Random(0)
    for _ in range(200):
        problem = word_problems.sample_problem(rng)
        for text in (problem.prompt, word_problems.teacher_trace(problem, rng)):
            ids = tokenizer(text)["input_ids"]
            assert ids[0] == tokenizer.bos_token_id
            assert tokenizer.decode(ids, skip_special_tokens=True) == text
            tokens = tokenizer.convert_ids_to_tokens(ids[1:])
            assert "".join(tokens).replace("Ġ", " ") == text
            assert all(len(token) == 1 for token in tokens if re.search(r"\d", token))


@given(seeds)
def test_results_are_the_prompts_arithmetic(seed):
    """By plain evaluation of the equations that a teacher without slips writes."""
    rng = random.Random(seed)
    problem = word_problems.sample_problem(rng)
    trace = word_problems.teacher_trace(problem, rng, slips=False)
    equations = re.findall(r"(check: )?(\d+)([-+*/])(\d+)=(\d+)", trace)
    assert all(eval(f"{a}{operation}{b}") == int(result) for _, a, operation, b, result in equations)
    results = [int(result) for check, *_, result in equations if not check]
    assert results == problem.results
    assert 2 <= len(results) <= 6
    assert 1 <= min(results) <= max(results) <= word_problems.LARGEST
    assert extract_answer(trace) == problem.answer == results[-1]
    said = {*re.findall(r"\d+", problem.prompt), "2", "3", "5", "7", "12"}
    assert {a for _, a, *_ in equations} <= said | {str(result) for result in results}


@given(seeds)
def test_labels_of_the_teacher_by_another_reading(tokenizer, seed):
    rng = random.Random(seed)
    problem = word_problems.sample_problem(rng)
    trace = word_problems.teacher_trace(problem, rng)
    judged = label_tokens(problem, tokenizer.tokenize(trace))
    correct = extract_answer(trace) == problem.answer
    ends = list(itertools.accumulate(map(len, tokenizer.tokenize(trace))))
    slips = {end for end, label in zip(ends, judged, strict=True) if label is SLIP}
    # Of a wrong sum one digit is the slip, or the token after it.
    for match in re.finditer(r"(\d+)([-+*/])(\d+)=(\d+)(\W*\w*)", trace):
        right = max(eval(f"{match[1]}{match[2].replace('/', '//')}{match[3]}"), 0)
        assert (int(match[4]) != right) == any(match.start(4) < end <= match.end(5) for end in slips)
    read = re.finditer(r"(?<!check: )\b\d+([-+*/])\d+=", trace)
    for match, step in zip(read, problem.steps, strict=True):
        assert (match.end(1) in slips) == (match[1] != step.operation)
    assert correct or slips
    assert set(labels(tokenizer, word_problems.teacher_trace(problem, rng, slips=False), problem)) == {"R"}


GOOD = "First, Mia has 12+7=19 apples. Next, we get 19*2=38 apples for Tom. The two have 38+19=57 apples. "
STEPS = "RRR RRRR RRR "


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (GOOD + "The answer is 57.", STEPS + "RR"),
        ("Mia has 7+12=19 apples.", "RRR"),  # the other order is as good
        ("Mia has 12+7=18 apples. For Tom it is 18*2=36.", "RRS RRPP"),
        ("Mia has 12+7=29 apples.", "RSP"),  # wrong from the first digit on
        ("Mia has 12+7=1 apples.", "RRS"),  # what comes where a digit should
        ("Mia has 12+7=190 apples.", "RRRS"),
        ("Mia has 12-7=5 apples. Tom: 5*2=10. Both 10+5=15. The answer is 15.", "SP RRPP RPP PP"),
        ("Mia has 12+7=19 apples. Tom is at 19+2=21.", "RRR SRPP"),  # misread
        ("Mia has 12+7=19 apples. Tom is at 19*3=57.", "RRR RSPP"),
        ("Mia has 12+7=19 apples. Take 18 and 2, so Tom has 18*2=36.", "RRR S PPRRPP"),  # read off the prose
        ("Mia has 12+8=20 apples.", "RSPP"),
        ("Mia has 12+7=18 apples. Let me check: 12+7=19, so I was wrong. Tom: 19*2=38.", "RRS RRR RRRR"),
        ("Mia has 12+7=19 apples. Let me check: 12+7=18, not the same. Tom: 18*2=36.", "RRR RRS RRPP"),
        ("Mia has 12+7=19 apples. The answer is 19.", "RRR SPP"),
        ("The answer is 57.", "SSP"),
        (GOOD + "Next, that is 57+1=58. The answer is 58.", STEPS + "SPP SPP"),
        (GOOD + "The answer is 58.", STEPS + "RS"),
        (GOOD + "The answer is 5.", STEPS + "RS"),
        ("Mia has 12+7= apples. Tom: 19*2=38.", "SSSPP"),  # no result, so a step is missing
        ("Mia has 5/0=3.", "SSSS"),
        ("", ""),
    ],
)
def test_labels(tokenizer, completion, expected):
    assert labels(tokenizer, completion) == expected.replace(" ", "")


@given(seeds, st.integers(1, 5))
def test_a_wrong_answer_has_a_slip_whatever_the_text(tokenizer, seed, changes):
    """Tokens of right traces changed, left out, doubled and swapped at random, as a model under training may."""
    rng = random.Random(seed)
    problem = word_problems.sample_problem(rng)
    tokens = tokenizer.tokenize(word_problems.teacher_trace(problem, rng, slips=False))
    vocabulary = list(tokenizer.get_vocab())
    for _ in range(changes):
        i, j = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        tokens[i : i + 1] = rng.choice(
            [[], [rng.choice(vocabulary)], [rng.choice("0123456789+-*/=")], [tokens[i], tokens[j]], [tokens[j]]]
        )
    judged = label_tokens(problem, tokens)
    assert len(judged) == len(tokens)
    if extract_answer("".join(tokens).replace("Ġ", " ")) not in (None, problem.answer):
        assert SLIP in judged
