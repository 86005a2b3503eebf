import itertools
import math
import random
import re
from fractions import Fraction
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ktae.bench.labelled import WordRollout, assemble
from ktae.bench.sources import SOURCES, chain, chain_teacher, game24
from ktae.chain.labels import Label
from ktae.chain.model import MAX_COMPLETION
from ktae.chain.problems import MODULUS, WORDS

OTHER, RIGHT, SLIP, PROPAGATED = Label
seeds = st.integers(0, 2**32 - 1)


@cache
def drawn(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain, "GROUPS_PER_MEASURED", 1000)  # true advantages take long, and are looked at elsewhere
        return SOURCES[name](24, 16, 11)


def evaluate(value, operation):
    return eval(f"{value}{operation}") % MODULUS


# --- all sources -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_groups_are_mixed_and_every_failure_that_ends_has_a_slip(name):
    rollouts = drawn(name)
    accuracy_G = rollouts.rewards.view(24, 16).mean(dim=1)
    assert rollouts.group_ids.tolist() == sorted(rollouts.group_ids.tolist())
    assert torch.equal(rollouts.group_ids.unique(return_counts=True)[1], torch.full((24,), 16))
    assert 0.2 < accuracy_G.mean() < 0.75
    assert ((accuracy_G > 0) & (accuracy_G < 1)).float().mean() > 0.7
    ended_B = (rollouts.token_ids == 0).logical_and(rollouts.mask).any(dim=1)
    assert ended_B.float().mean() > 0.95
    assert rollouts.first_slip_BT.any(dim=1)[ended_B & (rollouts.rewards == 0)].all()


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_seed_gives_the_same_rollouts_and_another_others(name):
    chain._sampled.cache_clear()
    a = SOURCES[name](2, 4, 5)
    chain._sampled.cache_clear()
    b, other = SOURCES[name](2, 4, 5), SOURCES[name](2, 4, 6)
    assert torch.equal(a.token_ids, b.token_ids)
    assert torch.equal(a.labels, b.labels)
    assert a.token_ids.shape != other.token_ids.shape or not torch.equal(a.labels, other.labels)


# --- assembling ----------------------------------------------------------------------------------------------


def test_assembling_pads_and_ends():
    done = WordRollout(0, False, ["b", "a"], [RIGHT, SLIP])
    cut_off = WordRollout(3, True, ["c"], [RIGHT], ended=False)
    rollouts = assemble([done, cut_off])
    assert rollouts.token_ids.tolist() == [[2, 1, 0], [3, 0, 0]]
    assert rollouts.mask.tolist() == [[True, True, True], [True, False, False]]
    assert rollouts.first_slip_BT.tolist() == [[False, True, False], [False] * 3]
    assert rollouts.rewards.tolist() == [0.0, 1.0]
    assert rollouts.group_ids.tolist() == [0, 3]
    assert rollouts.entropies is rollouts.true_advantages is None


# --- chains ------------------------------------------------------------------------------------------------

RESULT = r"(S\d+|check) ([+*-]\d+) = (\d+)|ans (\d+)"


def results(start, words):
    """Place, value, what would follow from the rollout's own values, of every result; then of the answer."""
    text = " ".join(words)
    before = value = start
    for match in re.finditer(RESULT, text):
        place = len(text[: match.end()].split()) - 1
        if match[4]:
            yield place, int(match[4]), value
        else:
            before = value if match[1] != "check" else before
            yield place, int(match[3]), evaluate(before, match[2])
            value = int(match[3])


def test_slips_of_the_model_by_another_reading():
    chains = chain._sampled(24, 16, 11, (4, 5, 6))
    numbers = 0
    for problem, r in chains:
        if set(itertools.compress(r.words, [label is SLIP for label in r.labels])) - set(map(str, range(97))):
            continue  # another operation, or a step out of turn
        for place, value, follows in results(problem.start, r.words):
            assert (r.labels[place] is SLIP) == (value != follows), (problem, r.words, place)
            numbers += 1
    assert numbers > 2000


@torch.no_grad()
def test_entropies_are_the_models():
    """Of single rollouts, without padding and without a cache."""
    model, tokenizer = chain.model()
    for problem, r in chain._sampled(24, 16, 11, (4, 5, 6))[::60]:
        text = " ".join([problem.prompt, *r.words])
        ids = tokenizer(text, return_tensors="pt").input_ids
        log_p = model(ids).logits[0, -len(r.words) - 1 :].log_softmax(dim=-1)
        assert r.entropies == pytest.approx((-(log_p.exp() * log_p).sum(dim=-1)).tolist()[: len(r.entropies)], abs=1e-4)
        assert len(r.entropies) == len(r.words) + r.ended


@torch.no_grad()
def chance_of_being_right(problem, words, samples):
    """By plain sampling, a token at a time, everything computed anew."""
    model, tokenizer = chain.model()
    ids = tokenizer([" ".join([problem.prompt, *words])] * samples, return_tensors="pt").input_ids
    start = ids.shape[1] - len(words)
    generator = torch.Generator().manual_seed(1)
    while ids.shape[1] - start < MAX_COMPLETION and not (ids == tokenizer.eos_token_id).any(dim=1).all():
        probabilities = model(ids).logits[:, -1].softmax(dim=-1)
        ids = torch.cat([ids, torch.multinomial(probabilities, 1, generator=generator)], dim=1)
    right = 0
    for row in ids[:, start:].tolist():
        end = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row)
        right += tokenizer.decode(row[:end]).split()[-2:] == ["ans", str(problem.answer)]
    return right / samples


@pytest.mark.slow
def test_true_advantages_are_differences_of_chances():
    chains = chain._sampled(8, 4, 3, (4, 5, 6))
    measured = chain._with_true_advantages(chains[:2], 3)
    compared = 0
    for (problem, _), r in zip(chains, measured, strict=False):
        places = {place for place, _, _ in results(problem.start, r.words)}
        assert {i for i, value in enumerate(r.true_advantages) if not math.isnan(value)} == places
        assert all((chain.CONTINUATIONS * r.true_advantages[i]).is_integer() for i in places)
        place = min(places)
        before, after = (chance_of_being_right(problem, r.words[:end], 100) for end in (place, place + 1))
        assert r.true_advantages[place] == pytest.approx(after - before, abs=0.45)  # 2.5 standard errors at most
        compared += 1
        last = max(places)  # the answer: afterwards all is decided
        if r.ended:
            before = chance_of_being_right(problem, r.words[:last], 100)
            assert r.true_advantages[last] == pytest.approx(r.correct - before, abs=0.35)
    assert compared == 2


def test_every_eighth_group_is_measured(monkeypatch):
    monkeypatch.setattr(chain, "CONTINUATIONS", 2)
    rollouts = SOURCES["chain"](8, 4, 3)
    measured_B = (~rollouts.true_advantages.isnan()).any(dim=1)
    assert rollouts.group_ids[measured_B].unique().tolist() == [7]
    assert (rollouts.entropies >= 0).all()
    assert rollouts.entropies.max() < math.log(len(WORDS) + 3)


@given(seeds, st.integers(1, 20), st.sampled_from([0.0, 0.05, 0.25]))
def test_labels_of_longer_chains_by_another_reading(seed, steps, slip_rate):
    rng = random.Random(seed)
    start, operations = rng.randrange(97), [rng.choice(["+5", "-12", "*9"]) for _ in range(steps)]
    r = chain_teacher._rollout(0, start, operations, slip_rate, rng)
    truth = list(itertools.accumulate(operations, evaluate, initial=start))
    places = list(results(start, r.words))
    assert len(places) == steps + 1
    assert r.correct == (places[-1][1] == truth[-1])
    for (place, value, follows), true in zip(places, [*truth[1:], truth[-1]], strict=True):
        assert r.labels[place] is (SLIP if value != follows else RIGHT if value == true else PROPAGATED)
        if slip_rate == 0:
            assert r.labels[place] is RIGHT
    assert sum(label is not OTHER for label in r.labels) == steps + 1


# --- game of 24 --------------------------------------------------------------------------------------------


@cache
def values(numbers):
    """All values of expressions that use each of the numbers once: every way to split them into two operands."""
    if len(numbers) == 1:
        return frozenset(numbers)
    found = set()
    for chosen in itertools.product([True, False], repeat=len(numbers)):
        left = tuple(n for n, c in zip(numbers, chosen, strict=True) if c)
        right = tuple(n for n, c in zip(numbers, chosen, strict=True) if not c)
        if left and right:
            for a, b in itertools.product(values(left), values(right)):
                found |= {a + b, a - b, a * b, *([a / b] if b else [])}
    return frozenset(found)


def reaches(numbers):
    return 24 in values(tuple(sorted(numbers)))


def exact(a, operation, b):
    return Fraction(eval(f"Fraction('{a}') {operation} Fraction('{b}')"))


def can_be_kept(numbers, said):
    """Whether the words of a step so far can go on to a right one after which 24 is in reach."""
    for a, b in itertools.permutations(numbers, 2):
        for operation in "+-*/":
            if operation == "/" and b == 0:
                continue
            result = exact(a, operation, b)
            if [str(a), operation, str(b), str(result)][: len(said)] == said:
                left = list(numbers)
                left.remove(a)
                left.remove(b)
                if reaches([*left, result]):
                    return True
    return False


@settings(max_examples=20)
@given(seeds)
def test_labels_of_the_game_by_another_brute_force(seed):
    (r,) = game24._rollouts(1, 1, seed)
    text = " ".join(r.words)
    numbers, lost, last = None, False, None
    for match in re.finditer(r"(\S+) ([-+*/]) (\S+) = (\S+) \(left: ([\d ]+) \)", text):
        first = len(text[: match.start()].split())
        a, operation, b, result = match.groups()[:4]
        left = [Fraction(n) for n in match[5].split()]
        assert left[0] == Fraction(result)
        if numbers is None:
            numbers = [Fraction(a), Fraction(b), *left[1:]]
            assert reaches(numbers)
        assert sorted([Fraction(a), Fraction(b), *left[1:]]) == sorted(numbers)
        places = [first, first + 1, first + 2, first + 4]
        said = []
        for place, word in zip(places, [a, operation, b, result], strict=True):
            said.append(word)
            wrong = place == places[-1] and Fraction(word) != exact(a, operation, b)
            if not lost and not can_be_kept(numbers, said):
                assert r.labels[place] is SLIP
                lost = True
            elif wrong and r.labels[places[-1]] is SLIP:
                assert lost
            else:
                assert r.labels[place] is (PROPAGATED if lost else RIGHT)
        numbers, last = left, left
    assert len(last) == 1
    assert r.correct == (not lost and last == [24])
    assert r.correct == (SLIP not in r.labels)


def test_a_wrong_result_is_a_slip_even_after_the_game_is_lost():
    (step,) = game24.judge((Fraction(1), Fraction(1)), [(Fraction(1), "+", Fraction(1), Fraction(3))])
    assert step == [SLIP, PROPAGATED, PROPAGATED, SLIP]
