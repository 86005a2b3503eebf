import hashlib
import json

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from ktae.chain import problems as chain
from ktae.chain.labels import Label, label_steps
from ktae.chain.model import MAX_COMPLETION, load
from ktae.chain.problems import MODULUS, OPERATIONS, Problem, apply, exact_match, extract_answer
from ktae.train.rewards import answer

OTHER, RIGHT, SLIP, PROPAGATED = Label

problems = st.builds(
    Problem,
    start=st.integers(0, MODULUS - 1),
    operations=st.lists(st.sampled_from(OPERATIONS), min_size=4, max_size=6).map(tuple),
)


@given(problems)
def test_the_answer_is_what_python_evaluates_the_prompt_to(problem):
    words = problem.prompt.split()
    value = eval("(" * len(problem.operations) + words[0] + "".join(f"{op})" for op in words[2:-1:2]))
    assert problem.answer == value % MODULUS
    assert Problem.from_prompt(problem.prompt) == problem


SEVEN_STEPS = "5 S1 +1 S2 +1 S3 +1 S4 +1 S5 +1 S6 +1 S7 +1 ?"


@pytest.mark.parametrize(
    "text", ["", "?", "5 ?", "5 S1 +5", "97 S1 +5 ?", "5 S2 +5 ?", "5 S1 +5  ?", "5 S1 +13 ?", SEVEN_STEPS]
)
def test_other_texts_are_not_problems(text):
    with pytest.raises(ValueError, match="expected"):
        Problem.from_prompt(text)


def test_no_test_problem_is_a_training_problem():
    held_out = chain.test_problems()
    prompts = {row["prompt"] for row in held_out}
    assert len(held_out) == len(prompts) == 1000
    assert all(str(Problem.from_prompt(row["prompt"]).answer) == row["answers"][0] for row in held_out)
    # The seed of the test set would give exactly the test problems if they were not left out.
    rows = chain.train_problems(3000, chain._TEST_SEED)
    assert not prompts & {row["prompt"] for row in rows}
    assert len({row["prompt"] for row in rows}) == 3000
    assert rows[:10] == chain.train_problems(10, chain._TEST_SEED) != chain.train_problems(10, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("S1 +5 = 58 ans 58", 58), ("ans 0", 0), ("ans 96 ", 96), ("ans 3 ans 4", 4)]
    + [(text, None) for text in ("", "58", "ans", "ans 58 S2", "ans 58 59", "S1 +5 = 58")]
    + [(text, None) for text in ("ans +5", "ans 97", "ans 058", "ans -1")],
)
def test_answers_are_read_from_the_end(text, expected):
    assert extract_answer(text) == expected


def test_rewards_follow_the_answers_and_extra_columns_are_ignored():
    texts = ["ans 3", "ans 4", "3"]
    assert exact_match(prompts=[""] * 3, completions=texts, answers=[["3"]] * 3, steps=[1, 2, 3]) == [1.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="zip"):
        exact_match([""], ["ans 3"], [["3"], ["3"]])


@st.composite
def written_responses(draw):
    """A problem, a response written step by step, and the labels known from how it was written."""
    problem = draw(problems)
    value, truth, written = problem.start, problem.start, []

    def write(word, label=OTHER):
        written.append((word, label))

    def number(follows):
        """Writes what follows, or something else, and returns it."""
        offset = draw(st.one_of(st.just(0), st.integers(0, MODULUS - 1)))
        value = (follows + offset) % MODULUS
        write(str(value), SLIP if offset else RIGHT if value == truth else PROPAGATED)
        return value

    for step, op in enumerate(problem.operations, 1):
        for word in draw(st.sampled_from(([], ["let", "me", "think"], ["note", "that"]))):
            write(word)
        write(f"S{step}")
        before, truth = value, apply(truth, op)
        for attempt in range(draw(st.integers(1, 2))):
            if attempt:
                write("check")
            chosen = draw(st.one_of(st.just(op), st.sampled_from(OPERATIONS)))
            write(chosen, OTHER if chosen == op else SLIP)
            write("=")
            value = number(apply(before, chosen))
            if attempt:
                write("ok!")
    write("ans")
    number(value)
    return problem, *zip(*written, strict=True)


@given(written_responses())
def test_labels_are_those_known_from_writing_the_response(case):
    problem, words, labels = case
    assert label_steps(problem, " ".join(words)) == list(labels)


WORDS = [*chain.NUMBERS, *OPERATIONS, *chain.STEPS, "=", "ans", "check", "ok!", "let"]


@settings(max_examples=300)
@given(problems, st.lists(st.tuples(st.sampled_from("drs"), st.integers(0, 99), st.sampled_from(WORDS)), max_size=3))
def test_a_wrong_answer_always_has_a_slip(problem, edits):
    steps = (f"S{i} {op} = {problem.values[i]}" for i, op in enumerate(problem.operations, 1))
    words = f"{' ok next step '.join(steps)} ans {problem.answer}".split()
    assert label_steps(problem, " ".join(words)).count(RIGHT) == len(problem.operations) + 1
    for kind, place, word in edits:
        i = place % len(words)
        if kind == "d" and len(words) > 2:
            del words[i]
        elif kind == "r":
            words[i] = word
        else:
            words.insert(i, word)
    completion = " ".join(words)
    labels = label_steps(problem, completion)
    assert len(labels) == len(words)
    assert SLIP in labels or extract_answer(completion) in (None, problem.answer)


@pytest.mark.parametrize(
    ("completion", "first"),
    [
        ("S1 +5 = 58 S2 *9 = 37 S3 -4 = 33 S4 +1 = 34 ans 34", None),
        ("S1 +5 = 58 S2 *9 = 47 check *9 = 37 no! S3 -4 = 33 S4 +1 = 34 ans 34", 7),
        ("S1 +5 = 58 S3 -4 = 54 S4 +1 = 55 ans 55", 4),  # a step left out
        ("S1 +5 = 58 S2 *9 = 37 S2 *9 = 42", 8),  # a step taken twice
        ("S1 +5 = 58 S2 *9 = 37 ans 37", 8),  # an answer before the last step
        ("S1 +5 = 58 S2 *9 S3 -4 = 54", 6),  # a step without a result
        ("S1 +5 = 58 S2 *9 = 37 S3 -4 = 33 S4 +1 = 34 S5 +1 = 35 ans 35", 16),  # a step too many
        ("S1 +5 = 58 S2 *9 = 37 S3 -4 = 33 S4 +1 = 34 ans 33", 17),  # not the last result
        ("", None),
    ],
)
def test_the_first_slip_is_found(completion, first):
    labels = label_steps(Problem.from_prompt("53 S1 +5 S2 *9 S3 -4 S4 +1 ?"), completion)
    assert (labels.index(SLIP) if SLIP in labels else None) == first


def test_every_process_draws_the_same_task():
    """Fixed for good: what was measured on these problems is comparable only while they stay."""
    drawn = json.dumps([chain.train_problems(50, 3), chain.test_problems()]) + "\n"
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == "7b4a61f2a0faa8b4"


# The shipped starting model and its tokenizer


def test_one_word_is_one_token_and_decoding_gives_the_words_back():
    _, tokenizer = load()
    prompt, words = chain.test_problems()[0]["prompt"], [word for word in tokenizer.get_vocab() if word[0] != "<"]
    prompt_ids = tokenizer(prompt)["input_ids"]
    ids = tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(prompt_ids) == ["<bos>", *prompt.split()]
    assert len(ids) == len(set(ids)) == len(words) == 169
    whole = [*prompt_ids, *ids, tokenizer.eos_token_id]
    assert tokenizer.decode(whole) == f"<bos> {prompt} {' '.join(words)} <eos>"
    assert tokenizer.decode(whole, skip_special_tokens=True) == f"{prompt} {' '.join(words)}"


def test_the_tokenizer_pads_on_the_left_and_refuses_unknown_words():
    tokenizer = load()[1]
    batch = tokenizer(["5 S1 +5 ?", "5 S1 +5 S2 *9 ?"], padding=True)
    assert tokenizer.convert_ids_to_tokens(batch["input_ids"][0])[:4] == ["<pad>", "<pad>", "<bos>", "5"]
    assert [sum(mask) for mask in batch["attention_mask"]] == [5, 7]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    with pytest.raises(Exception, match="UNK"):
        tokenizer("5 S1 +13 ?")


@pytest.mark.slow
def test_the_shipped_checkpoint_is_as_good_as_its_readme_says():
    rows = Dataset.from_list(chain.test_problems()[:200])
    greedy, sampled = (
        answer(*load(), rows, chain.exact_match, max_completion_length=MAX_COMPLETION, samples=samples, seed=1)
        for samples in (None, 1)
    )
    assert 0.38 <= sum(a["reward"] for a in greedy) / 200 <= 0.50
    assert 0.33 <= sum(a["reward"] for a in sampled) / 200 <= 0.46
    assert 31.5 < sum(a["length"] for a in sampled) / 200 < 35.5
