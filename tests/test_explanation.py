"""Key-token tables against plain counting, SciPy, and the estimator itself under every labelling."""

import dataclasses
import itertools
import math
from collections import Counter
from types import SimpleNamespace

import batches
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ktae
from ktae.chance import benjamini_hochberg

TABLES = settings(max_examples=60)
SMALL = torch.tensor([[5, 7], [5, 9]]), torch.ones(2, 2), torch.tensor([1.0, 0.0]), torch.tensor([0, 0])


def counted(batch, config):
    """By plain loops, of scored rollouts: {(group, tokens before, unit): Counter of rows}, contexts alike, rows."""
    ids, mask, rewards, groups = (part.tolist() for part in batch)
    reach = max(config.context, config.ngram - 1)
    units, contexts, rows = {}, {}, {}
    for row, (group, reward) in enumerate(zip(groups, rewards, strict=True)):
        if not math.isnan(reward):
            rows.setdefault(group, []).append(row)
            own = [unit for unit, counts in zip(ids[row], mask[row], strict=True) if counts]
            for place, unit in enumerate(own):
                context, before = (tuple(own[max(place - length, 0) : place]) for length in (config.context, reach))
                units.setdefault((group, before, unit), Counter())[row] += 1
                contexts.setdefault((group, context), Counter())[row] += 1
    return units, contexts, rows


@TABLES
@given(st.data())
def test_counts_statistics_and_values(data):
    batch = data.draw(batches.batches())
    config = ktae.KTAEConfig(**data.draw(batches.configs(batch)))
    table = ktae.explain(*batch, config=config, permutations=0)
    units, contexts, rows = counted(batch, config)
    correct = (batch.rewards > config.correct_above).tolist()
    assert len(table) == len(units)
    for row in table.rows():
        before = tuple(map(int, row["context"].split()))
        held = units.pop((row["group"], before, row["unit"]))
        context = before[len(before) - min(config.context, len(before)) :]
        among = contexts[row["group"], context] if config.context else rows[row["group"]]
        n_T = sum(correct[i] for i in among)
        a = sum(correct[i] for i in held)
        assert (row["a"], row["b"]) == (a, len(held) - a)
        assert (row["c"], row["d"]) == (n_T - row["a"], len(among) - n_T - row["b"])
        assert row["occurrences"] == held.total()
        assert row["fisher_p"] == pytest.approx(
            scipy.stats.fisher_exact([[row["a"], row["b"]], [row["c"], row["d"]]]).pvalue, rel=1e-9
        )
        contrast = row["tf_correct"] / (row["tf_incorrect"] + 1e-5) - row["tf_incorrect"] / (row["tf_correct"] + 1e-5)
        expected = row["cohen_h"] + config.term_frequency_weight * contrast
        assert row["direction"] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert not units
    values = ktae.key_token_values(*batch, config=dataclasses.replace(config, centered=False))
    at = torch.from_numpy(table.unit_index)
    spread = torch.cat([torch.from_numpy(table.value), torch.zeros(1)])[at]
    assert torch.equal(spread, values)
    assert torch.equal(at >= 0, batch.mask & ~batch.rewards.isnan()[:, None])


def brute_force_p(batch, row, places, config):
    """The share of labellings of a unit's group under which `key_token_values` gives |value| at least the observed.

    `places`: (N, T) bool, where the unit stands.
    """
    of_group = (batch.group_ids == row["group"]) & ~batch.rewards.isnan()
    ids, mask, rewards, _ = batch.rows(of_group)
    correct = rewards > config.correct_above

    def value(labels):
        numbers = torch.where(labels, 1.0, 0.0).double() + config.correct_above - 0.5
        values = ktae.key_token_values(ids, mask, numbers, torch.zeros(len(ids)).long(), config=config)
        return values[places[of_group]][0].abs().item()

    observed = value(correct)
    hits = []
    for chosen in itertools.combinations(range(len(ids)), int(correct.sum())):
        labels = torch.zeros(len(ids), dtype=torch.bool)
        labels[list(chosen)] = True
        hits.append(value(labels) >= observed - 1e-6)
    return sum(hits) / len(hits)


@settings(max_examples=30)
@given(st.data())
def test_exact_permutation_p_values(data):
    batch = data.draw(batches.batches())
    config = ktae.KTAEConfig(**data.draw(batches.configs(batch)) | {"scale": 1.0, "centered": False})
    table = ktae.explain(*batch, config=config)
    for number in {0, 1, 2, len(table) - 1} & set(range(len(table))):
        row = table.rows()[number]
        places = torch.from_numpy(table.unit_index) == number
        expected = 1.0 if row["value"] == 0 else brute_force_p(batch, row, places, config)
        # The float32 values of the brute force tie where float64 values do not, close to 1.
        assert row["permutation_p"] <= expected + 1e-12
        if abs(row["value"]) < 0.999:
            assert row["permutation_p"] == pytest.approx(expected)


def test_context_as_text():
    ids = torch.tensor([[5, 7, 9], [5, 9, 9]])
    texts = {5: "it", 7: " is", 9: " was"}
    table = ktae.explain(ids, torch.ones_like(ids), *SMALL[2:], config=ktae.KTAEConfig(context=2), texts=texts)
    found = {(row["context"], row["text"]) for row in table.rows()}
    assert found == {("", "it"), ("it", " is"), ("it", " was"), ("it is", " was"), ("it was", " was")}


def mixed_batch(rollouts=16, tokens=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 40, (rollouts, tokens), generator=generator)
    rewards = (torch.arange(rollouts) % 2).double()
    ids[rewards > 0, 0] = 99  # held by all correct rollouts and no other
    ids[rewards < 1, 0] = 98
    return batches.Batch(ids, torch.ones_like(ids).bool(), rewards, torch.zeros(rollouts).long())


def test_sampled_permutation_p_values_come_near_the_exact_ones():
    batch = mixed_batch()
    exact, sampled = ktae.explain(*batch), ktae.explain(*batch, permutations=4000)
    assert exact.unit.tolist() == sampled.unit.tolist()
    error = np.abs(exact.permutation_p - sampled.permutation_p)
    assert (exact.permutation_p < 0.9).sum() > 10
    assert error.max() < 5 * math.sqrt(0.25 / 4000)
    assert error.max() > 0  # 12,870 labellings are more than 4,000: these were not all of them
    best = sampled.unit.tolist().index(99)
    assert exact.permutation_p[best] == pytest.approx(2 / math.comb(16, 8))
    assert sampled.permutation_p[best] >= 1 / 4001


def test_order_of_rows_and_other_groups_change_nothing():
    first, second = mixed_batch(18, seed=1), mixed_batch(18, seed=2)
    second_as_5 = second._replace(group_ids=second.group_ids + 5)
    both = batches.Batch(*(torch.cat(parts) for parts in zip(first, second_as_5, strict=True)))
    shuffled = both.rows(torch.randperm(36, generator=torch.Generator().manual_seed(3)))
    alone = ktae.explain(*second, permutations=500, seed=4).rows()
    together = ktae.explain(*shuffled, permutations=500, seed=4).rows()
    assert [row | {"group": 0} for row in together if row["group"] == 5] == alone
    assert min(row["permutation_p"] for row in alone) < 0.01
    other = ktae.explain(*second, permutations=500, seed=5).rows()
    assert [row["permutation_p"] for row in other] != [row["permutation_p"] for row in alone]


@TABLES
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.001, 1.0)), min_size=1, max_size=30))
def test_benjamini_hochberg_is_scipys(pairs):
    groups, p = (np.array(column) for column in zip(*pairs, strict=True))
    adjusted = benjamini_hochberg(p, groups)
    for group in set(groups.tolist()):
        expected = scipy.stats.false_discovery_control(p[groups == group], method="bh")
        np.testing.assert_allclose(adjusted[groups == group], expected)


def test_rows_are_sorted_and_found_again():
    table = ktae.explain(*mixed_batch(), texts={99: "so", 98: "but"})
    assert table.unit[:2].tolist() == [98, 99]  # equal |value| and occurrences: by id
    keys = [(-abs(row["value"]), -row["occurrences"], row["unit"]) for row in table.rows()]
    assert keys == sorted(keys)
    assert np.array_equal(table.unit[table.unit_index], mixed_batch().token_ids.numpy())


def test_texts_by_a_tokenizer():
    letters = SimpleNamespace(decode=lambda token_ids: "".join(chr(97 + i) for i in token_ids))
    assert ktae.explain(*SMALL, tokenizer=letters).text.tolist() == ["h", "j", "f"]
    with pytest.raises(ValueError, match="texts and tokenizer exclude each other"):
        ktae.explain(*SMALL, tokenizer=letters, texts={})


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"permutations": -1}, "permutations must be an integer >= 0, got -1"),
        ({"permutations": 1.5}, "permutations must be an integer >= 0, got 1.5"),
        ({"seed": True}, "seed must be an integer >= 0, got True"),
    ],
)
def test_errors(argument, message):
    with pytest.raises(ValueError, match=message):
        ktae.explain(*SMALL, **argument)
