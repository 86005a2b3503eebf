"""Batches, and completions by transformers: the shipped quickstart model and a tiny one."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import model, tokenizer

from ktae.chain import problems as chain
from ktae.models.generate import (
    Sampling,
    TransformersBackend,
    choose_backend,
    generate,
    plan_batches,
    render,
)
from ktae.models.load import Model, load_model


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 20), st.integers(1, 300))
def test_batches(lengths, max_tokens, budget):
    batches = plan_batches(lengths, max_tokens, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * (max(lengths[i] for i in batch) + max_tokens) <= budget
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(lengths, reverse=True)
    for batch, following in pairwise(batches):
        widest = lengths[batch[0]] + max_tokens
        assert (len(batch) + 1) * widest > budget, f"{following} could have begun in {batch}"


@pytest.fixture(scope="module")
def backend():
    return TransformersBackend(*load_model(Model("python:ktae/chain/weights")))


PROMPTS = [problem["prompt"] for problem in chain.test_problems()[:12]]


def everything(backend, texts, sampling, **kwargs):
    return {i: c for part in generate(backend, texts, sampling, **kwargs) for i, c in part.items()}


def test_greedy_does_not_depend_on_the_batches(backend):
    sampling = Sampling(max_tokens=40)
    whole = everything(backend, PROMPTS, sampling, budget=10**6)
    assert sorted(whole) == list(range(12))
    assert everything(backend, PROMPTS, sampling, budget=1) == whole
    assert everything(backend, PROMPTS[::-1], sampling, budget=150) == {11 - i: c for i, c in whole.items()}


def test_sampling_is_seeded_and_can_go_on(backend):
    sampling = Sampling(temperature=1.0, max_tokens=40, seed=3)
    before = torch.get_rng_state()
    parts = list(generate(backend, PROMPTS, sampling, budget=300))
    assert len(parts) > 2
    assert torch.equal(torch.get_rng_state(), before)
    whole = {i: c for part in parts for i, c in part.items()}
    done = frozenset(parts[0]) | set(list(parts[1])[:1])
    rest = everything(backend, PROMPTS, sampling, budget=300, done=done)
    assert rest == {i: c for i, c in whole.items() if i not in done}
    assert everything(backend, PROMPTS, Sampling(1.0, 1.0, 40, 4), budget=300) != whole


def test_lengths_and_truncation():
    llama, words = model(), tokenizer()
    engine = TransformersBackend(llama, words)
    sampling = Sampling(temperature=1.0, max_tokens=6)
    completions = everything(engine, ["a b c"] * 200, sampling, budget=10**6).values()
    ended = [c for c in completions if not c.truncated]
    cut = [c for c in completions if c.truncated]
    assert len(ended) > 20 < len(cut)
    assert all(c.length == 6 for c in cut)
    assert all(1 <= c.length <= 6 for c in ended)
    assert any(c.length == 6 for c in ended), "ended exactly at the limit"


def test_prompts_are_rendered_as_the_model_expects():
    words = tokenizer()
    assert render(words, "a b", "be brief") == "a b"
    turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    words.chat_template = turns + "{% if add_generation_prompt %}>{% endif %}"
    assert render(words, "a b", "be brief") == "<system>be brief<user>a b>"
    assert render(words, "a b", "") == "<user>a b>"


def test_backends():
    assert choose_backend("transformers") == "transformers"
    if not torch.cuda.is_available():
        assert choose_backend("auto") == "transformers"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature must be at least 0, got -0.1"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
    ],
)
def test_wrong_sampling(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)
