import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktae.bench.sources import legs
from ktae.bench.sources.legs import BELIEFS, LEGS, NUMBERS, WORDS, LegsProblem, extract_answer, label_steps
from ktae.chain.labels import Label

OTHER, RIGHT, SLIP, PROPAGATED = Label
seeds = st.integers(0, 2**32 - 1)
PROBLEM = LegsProblem(0, "", (("sea slug", 2), ("crab", 3), ("deer", 1)))


def labels(completion, problem=PROBLEM):
    """The labels of the words that carry a decision, one letter each: R, S or P."""
    return "".join(label.name[0] for label in label_steps(problem, completion) if label is not OTHER)


# --- problems ----------------------------------------------------------------------------------------------


@given(seeds)
def test_prompts_are_reasoning_gyms_and_say_what_the_animals_are(seed):
    import reasoning_gym

    problem = legs.sample_problem(random.Random(seed))
    dataset = reasoning_gym.create_dataset("leg_counting", seed=0, size=2**31, max_animals=5, max_instances=5)
    item = dataset[problem.index]
    assert problem.prompt.replace(" ", "") == re.sub(r"\s", "", item["question"])
    assert str(problem.answer) == item["answer"]
    stated = re.findall(r"(\d+) ([a-z ]+?) [,?]", problem.prompt)
    assert [(animal if count == 1 else f"{animal}s", count) for animal, count in problem.animals] == [
        (name, int(count)) for count, name in stated
    ]
    assert 3 <= len(stated) <= 5


@pytest.mark.parametrize("index", [-1, 2**31])
def test_there_are_two_to_the_31_problems(index):
    with pytest.raises(ValueError, match=f"index must be in 0..2147483647, got {index}"):
        legs.problem(index)


# --- teacher -----------------------------------------------------------------------------------------------


@given(seeds)
def test_every_word_is_known(seed):
    rng = random.Random(seed)
    problem = legs.sample_problem(rng)
    assert {*problem.prompt.split(), *legs.teacher_trace(problem, rng).split()} <= set(WORDS)


def test_the_largest_number_is_enough_for_the_worst_of_all_traces():
    class Worst(random.Random):
        """Slips always, upwards by 10, and goes by every wrong belief that adds legs."""

        def random(self):
            return 0.0

        def choice(self, options):
            return max(options) if isinstance(options, list) and isinstance(options[0], int) else options[0]

    most = sorted(LEGS, key=lambda animal: max(LEGS[animal], BELIEFS.get(animal, 0)))[-5:]
    trace = legs.teacher_trace(LegsProblem(0, "", tuple((animal, 5) for animal in most)), Worst())
    assert set(trace.split()) <= set(WORDS)
    assert int(trace.split()[-1]) > 300


@given(seeds)
def test_a_teacher_without_slips_is_right(seed):
    rng = random.Random(seed)
    problem = legs.sample_problem(rng)
    trace = legs.teacher_trace(problem, rng, slips=False)
    assert extract_answer(trace) == problem.answer
    assert set(labels(trace, problem)) == {"R"}


# --- labels ------------------------------------------------------------------------------------------------

STEP = r"(?P<count>\d+) (?P<name>[a-z ]+?) \* (?P<legs>\d+) = (?P<product>\d+)"


@given(seeds)
def test_labels_of_the_teacher_by_another_reading(seed):
    """Every number's place and label, read off the text with a regular expression."""
    rng = random.Random(seed)
    problem = legs.sample_problem(rng)
    trace = legs.teacher_trace(problem, rng)
    want, total, animal, product = {}, 0, -1, 0
    plurals = {f"{name}s": name for name in LEGS} | {name: name for name in LEGS}
    for match in re.finditer(rf"{STEP}|total (?P<total>\d+)|ans (?P<ans>\d+)", trace):
        said = {key: int(value) for key, value in match.groupdict().items() if value and key != "name"}
        truth = list(itertools.accumulate(problem.products))
        if match["name"]:
            animal += not trace[: match.start()].endswith("check ")
            name = plurals[re.sub(r".*(?=\b(" + "|".join(plurals) + r")$)", "", match["name"])]
            assert (name, said["count"]) == problem.animals[animal]
            product = said["product"]
            want[match.start("legs")] = RIGHT if said["legs"] == LEGS[name] else SLIP
            follows = product == said["count"] * said["legs"]
            right = product == problem.products[animal]
            want[match.start("product")] = SLIP if not follows else RIGHT if right else PROPAGATED
        elif match["total"]:
            follows = said["total"] == total + product
            want[match.start("total")] = (
                SLIP if not follows else RIGHT if said["total"] == truth[animal] else PROPAGATED
            )
            total = said["total"]
        else:
            want[match.start("ans")] = RIGHT if said["ans"] == problem.answer else PROPAGATED
    starts = [match.start() for match in re.finditer(r"\S+", trace)]
    got = dict(zip(starts, label_steps(problem, trace), strict=True))
    assert {start: label for start, label in got.items() if label is not OTHER} == want


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("2 sea slugs * 0 = 0 total 0 3 crabs * 10 = 30 total 30 1 deer * 4 = 4 total 34 ans 34", "RRR RRR RRR R"),
        ("2 sea slugs * 2 = 4 total 4 3 crabs * 10 = 30 total 34 1 deer * 4 = 4 total 38 ans 38", "SPP RRP RRP P"),
        ("2 sea slugs * 0 = 1 total 1 3 crabs * 10 = 30 total 30 1 deer * 4 = 4 total 34 ans 34", "RSP RRS RRR R"),
        ("2 sea slugs * 2 = 4 check 2 sea slugs * 0 = 0 no! total 0", "SP RRR"),
        ("3 sea slugs * 0 = 0 total 0", "S RRR"),  # another count; the product is right all the same
        ("2 crabs * 10 = 20 total 20", "S PPP"),  # another animal
        ("3 crabs * 10 = 30 total 30 2 sea slugs * 0 = 0 total 30 1 deer * 4 = 4 total 34 ans 34", "SSPPP SSPPR RRR R"),
        ("2 sea slugs * 0 = 0 3 crabs * 10 = 30 total 30", "RR SSPPP"),  # no total for the slugs
        ("total 0", "S"),
        ("2 sea slugs * 0 = 0 total 0 total 0", "RRR S"),
        ("ans 34", "SS"),
        ("ans", "S"),
        ("2 sea slugs * 0 = 0 total 0 3 crabs * 10 = 30 total 30 1 deer * 4 = 4 total 34 ans 36", "RRR RRR RRR S"),
        ("2 sea slugs * 0 = total 0", "S"),
        ("", ""),
    ],
)
def test_labels(completion, expected):
    assert labels(completion) == expected.replace(" ", "")


@given(seeds, st.integers(1, 4))
def test_a_wrong_answer_has_a_slip_whatever_the_text(seed, changes):
    """Words of traces changed, left out, doubled and swapped at random, as a model under training may."""
    rng = random.Random(seed)
    problem = legs.sample_problem(rng)
    words = legs.teacher_trace(problem, rng, slips=False).split()
    for _ in range(changes):
        i, j = rng.randrange(len(words)), rng.randrange(len(words))
        match rng.randrange(4):
            case 0:
                words[i] = rng.choice(WORDS)
            case 1:
                words.insert(i, rng.choice([words[j], rng.choice(list(NUMBERS))]))
            case 2:
                del words[i]
            case _:
                words[i], words[j] = words[j], words[i]
    completion = " ".join(words)
    judged = label_steps(problem, completion)
    assert len(judged) == len(words)
    if extract_answer(completion) not in (None, problem.answer):
        assert SLIP in judged


@pytest.mark.parametrize(
    ("completion", "answer"),
    [("total 4 ans 4", 4), ("ans 4 ok!", None), ("ans", None), ("", None), ("total 4", None), ("ans 4.0", None)],
)
def test_extract_answer(completion, answer):
    assert extract_answer(completion) == answer
