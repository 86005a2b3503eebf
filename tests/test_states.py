"""States from a rollout's own text: against a slow version, and by a model's tokenizer."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ktae.states import Calculation, calculation

PIECES = ["12", "3", ".", "5", " and ", "+", " =", "\\ti", "mes", "\\cdot", "\\frac", "{", "x", "×", "−", "a\n", "/"]  # noqa: RUF001
SIGNS = {"\\times": "*", "\\cdot": "*", "×": "*", "−": "-"}  # noqa: RUF001


def slow(texts, terms):
    """What is written before each token, as a tuple."""
    states = []
    for i in range(len(texts)):
        found = re.findall(r"\d+(?:\.\d+)?|\\(?:times|cdot|frac)|[-+*/=×−]", "".join(texts[:i]))  # noqa: RUF001
        states.append(tuple(SIGNS.get(term, term) for term in found[-terms:]))
    return states


@given(st.lists(st.sampled_from(PIECES), max_size=30), st.integers(1, 5))
def test_states_are_equal_where_the_last_numbers_and_signs_are(texts, terms):
    states, expected = calculation(texts, terms), slow(texts, terms)
    assert len(states) == len(texts)
    for i in range(len(texts)):
        for j in range(i):
            assert (states[i] == states[j]) == (expected[i] == expected[j]), (texts[:i], texts[:j])


def test_at_least_one_term():
    with pytest.raises(ValueError, match="terms must be at least 1, got 0"):
        calculation(["1"], 0)


@pytest.mark.parametrize("spaces", ["Ġ", "▁"])
def test_by_a_tokenizer(spaces):
    """Two numbers with nothing but a space between them stay two, whether the tokenizer decodes the space or not."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [f"{spaces}12", f"{spaces}7", "127", f"{spaces}+", f"{spaces}is", "1", "2", "7"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}))
    parts = (pre_tokenizers.Metaspace(), decoders.Metaspace()) if spaces == "▁" else (None, decoders.ByteLevel())
    tokenizer.pre_tokenizer, tokenizer.decoder = parts
    states = Calculation(PreTrainedTokenizerFast(tokenizer_object=tokenizer), terms=2)
    two = states({"token_ids": torch.tensor([0, 1, 3])})
    assert two == calculation(["12", " 7", " +"], 2)
    one = states({"token_ids": [2, 3, 3]})
    assert one == calculation(["127", " +", " +"], 2)
    assert two[2] != one[1]
