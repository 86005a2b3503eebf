import itertools
import math
import random
import re
from fractions import Fraction
from functools import cache

import game24
import long_chains
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ktae.bench import chain_rollouts
from ktae.bench.credit import SOURCES, load_source
from ktae.bench.labelled import WordRollout, assemble
from ktae.chain.labels import Label, label_steps
from ktae.chain.model import load
from ktae.chain.problems import MODULUS, Problem

OTHER, RIGHT, SLIP, PROPAGATED = Label
NAMES = (*SOURCES, *(f"{own}:rollouts" for own in ("long_chains", "legs", "game24", "word_problems")))
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("name", NAMES)
def test_groups_are_mixed_and_every_failure_that_ends_has_a_slip(name, monkeypatch):
    monkeypatch.setattr(chain_rollouts, "GROUPS_PER_MEASURED", 1000)  # true advantages take long
    rollouts = load_source(name)(24, 16, 11)
    assert rollouts.group_ids.tolist() == [group for group in range(24) for _ in range(16)]
    accuracy_G = rollouts.rewards.view(24, 16).mean(dim=1)
    assert 0.2 < accuracy_G.mean() < 0.75
    assert ((accuracy_G > 0) & (accuracy_G < 1)).float().mean() > 0.7
    ended_B = ((rollouts.token_ids == 0) & rollouts.mask).any(dim=1)
    assert ended_B.float().mean() > 0.95
    assert rollouts.first_slip_BT.any(dim=1)[ended_B & (rollouts.rewards == 0)].all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_rollouts_and_another_others(name):
    a, b, other = (load_source(name)(2, 4, seed) for seed in (5, 5, 6))
    assert torch.equal(a.token_ids, b.token_ids)
    assert torch.equal(a.labels, b.labels)
    assert a.token_ids.shape != other.token_ids.shape or not torch.equal(a.labels, other.labels)


def test_assembling_pads_and_ends():
    done = WordRollout(False, ["b"], [RIGHT])
    done.say("a", SLIP)
    rollouts = assemble([done, WordRollout(True, ["c"], [RIGHT], ended=False)], 1)
    assert rollouts.token_ids.tolist() == [[2, 1, 0], [3, 0, 0]]
    assert rollouts.mask.tolist() == [[True, True, True], [True, False, False]]
    assert rollouts.labels.tolist() == [[RIGHT, SLIP, OTHER], [RIGHT, OTHER, OTHER]]
    assert rollouts.rewards.tolist() == [0.0, 1.0]
    assert rollouts.group_ids.tolist() == [0, 1]
    assert rollouts.entropies is rollouts.true_advantages is None


@pytest.fixture(scope="module")
def sampled():
    return chain_rollouts._drawn((4, 5, 6), 24, 16, 11)


def evaluate(value, operation):
    return eval(f"{value}{operation}") % MODULUS


def results(start, words):
    """Place, value, what would follow from the rollout's own values, of every result; then of the answer."""
    text = " ".join(words)
    before = value = start
    for match in re.finditer(r"(S\d+|check) ([+*-]\d+) = (\d+)|ans (\d+)", text):
        place = len(text[: match.end()].split()) - 1
        if match[4]:
            yield place, int(match[4]), value
        else:
            before = value if match[1] != "check" else before
            yield place, int(match[3]), evaluate(before, match[2])
            value = int(match[3])


def test_slips_of_the_model_by_another_reading(sampled):
    numbers = 0
    for problem, r in sampled:
        if set(itertools.compress(r.words, [label is SLIP for label in r.labels])) - set(map(str, range(97))):
            continue  # another operation, or a step out of turn
        for place, value, follows in results(problem.start, r.words):
            assert (r.labels[place] is SLIP) == (value != follows), (problem, r.words, place)
            numbers += 1
    assert numbers > 2000


@torch.no_grad()
def test_entropies_are_the_models(sampled):
    """Of single rollouts, without padding and without a cache."""
    model, tokenizer = load()
    for problem, r in sampled[::60]:
        ids = tokenizer(" ".join([problem.prompt, *r.words]), return_tensors="pt").input_ids
        log_p = model(ids).logits[0, -len(r.words) - 1 :].log_softmax(dim=-1)
        assert r.entropies == pytest.approx((-(log_p.exp() * log_p).sum(dim=-1)).tolist()[: len(r.entropies)], abs=1e-4)
        assert len(r.entropies) == len(r.words) + r.ended


def test_true_advantages_are_differences_of_chances(sampled, monkeypatch):
    """Of a model that ends with the right answer unless something before is wrong."""

    def complete(texts, seed):
        for text in texts:
            prompt, said = text.split(" ?")
            problem = Problem.from_prompt(f"{prompt} ?")
            wrong = SLIP in label_steps(problem, said)
            answer = ["ans", str((problem.answer + wrong) % MODULUS)]
            yield answer[2 if re.search(r"ans \d+$", said) else said.endswith("ans") :], True, []

    monkeypatch.setattr(chain_rollouts, "_complete", complete)
    ended = [(problem, r) for problem, r in sampled if r.ended][:40]
    for (problem, r), advantages in zip(ended, chain_rollouts.true_advantages(ended, 3), strict=True):
        slips = [i for i, label in enumerate(r.labels) if label is SLIP]
        # A wrong operation shows at its result, two words on.
        first = slips[0] + 2 * (r.words[slips[0]][0] in "+-*") if slips else len(r.words)
        places = [place for place, _, _ in results(problem.start, r.words)]
        expected = {place: -1.0 * (place == first) for place in places}
        assert advantages == expected | {places[-1]: r.correct - 1.0 * (first >= places[-1])}


def test_every_eighth_group_is_measured(monkeypatch):
    monkeypatch.setattr(chain_rollouts, "CONTINUATIONS", 2)
    rollouts = SOURCES["chain"](8, 4, 3)
    measured_BT = ~rollouts.true_advantages.isnan()
    assert rollouts.group_ids[measured_BT.any(dim=1)].unique().tolist() == [7]
    assert (rollouts.labels[measured_BT] != OTHER).all()
    assert (rollouts.entropies >= 0).all()
    assert rollouts.entropies.max() < math.log(172)


@given(seeds, st.integers(1, 20), st.sampled_from([0.0, 0.05, 0.25]))
def test_labels_of_the_teachers_chains_by_another_reading(seed, steps, slip_rate):
    rng = random.Random(seed)
    start, operations = rng.randrange(97), [rng.choice(["+5", "-12", "*9"]) for _ in range(steps)]
    r = long_chains.solve(Problem(start, tuple(operations)), rng, slip_rate)
    truth = list(itertools.accumulate(operations, evaluate, initial=start))
    places = list(results(start, r.words))
    assert len(places) == steps + 1
    assert r.correct == (places[-1][1] == truth[-1])
    for (place, value, follows), true in zip(places, [*truth[1:], truth[-1]], strict=True):
        assert r.labels[place] is (SLIP if value != follows else RIGHT if value == true else PROPAGATED)
        if slip_rate == 0:
            assert r.labels[place] is RIGHT
    assert sum(label is not OTHER for label in r.labels) == steps + 1


@cache
def values(numbers):
    """All values of expressions that use each of the numbers once: every way to split them into two operands."""
    if len(numbers) == 1:
        return frozenset(numbers)
    found = set()
    for chosen in itertools.product([True, False], repeat=len(numbers)):
        left, right = (tuple(itertools.compress(numbers, mask)) for mask in (chosen, [not c for c in chosen]))
        if left and right:
            for a, b in itertools.product(values(left), values(right)):
                found |= {a + b, a - b, a * b, *([a / b] if b else [])}
    return frozenset(found)


def can_be_kept(numbers, said):
    """Whether the words of a step so far can go on to a right one after which 24 is in reach."""
    for a, b, *others in itertools.permutations(numbers):
        quotient = {"/": a / b} if b else {}
        for operation, result in ({"+": a + b, "-": a - b, "*": a * b} | quotient).items():
            begins = [str(a), operation, str(b), str(result)][: len(said)] == said
            if begins and 24 in values(tuple(sorted([result, *others]))):
                return True
    return False


@settings(max_examples=20)
@given(st.lists(st.integers(1, 13).map(Fraction), min_size=4, max_size=4).map(sorted).map(tuple), seeds)
def test_labels_of_the_game_by_another_brute_force(numbers, seed):
    assert game24.reachable(numbers) == (24 in values(numbers))
    assume(game24.reachable(numbers))
    r = game24.play((numbers, seed), random.Random(seed))
    lost, text = False, " ".join(r.words)
    for match in re.finditer(r"(\S+) ([-+*/]) (\S+) = (\S+) \(left: ([\d ]+) \)", text):
        said, first = list(match.groups()[:4]), len(text[: match.start()].split())
        a, b, result, *left = map(Fraction, [said[0], said[2], *match[5].split()])
        assert result == Fraction(said[3])
        assert sorted([a, b, *left]) == sorted(numbers)
        for length, place in enumerate([first, first + 1, first + 2, first + 4], 1):
            wrong = length == 4 and result != eval(f"a {said[1]} b")
            kept = not lost and can_be_kept(numbers, said[:length])
            assert r.labels[place] is (SLIP if wrong or not (lost or kept) else PROPAGATED if lost else RIGHT)
            lost = not kept
        numbers = [result, *left]
    assert len(numbers) == 1
    assert r.correct == (not lost and numbers == [24])
    assert r.correct == (SLIP not in r.labels)
