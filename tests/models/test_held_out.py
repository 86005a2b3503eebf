"""Answers to held-out problems, with the shipped quickstart model."""

import pytest
import torch
from datasets import Dataset

from ktae.chain import problems as chain
from ktae.chain.model import CHECKPOINT, MAX_COMPLETION
from ktae.models.held_out import answer
from ktae.models.load import Model, load_model


@pytest.fixture(scope="module")
def policy():
    return load_model(Model(str(CHECKPOINT)))


def answers(policy, count, **settings):
    rows = Dataset.from_list(chain.test_problems()[:count])
    return answer(*policy, rows, chain.exact_match, max_completion_length=MAX_COMPLETION, **settings)


def test_answers_are_counted_and_scored_one_by_one(policy):
    model, _ = policy
    model.train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    sampled = answers(policy, 20, samples=2, batch_size=7)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert sampled == answers(policy, 20, samples=2, batch_size=7) != answers(policy, 20, samples=2, seed=1)
    assert [a.problem for a in sampled] == [i for i in range(20) for _ in range(2)]
    for a in sampled:
        ended = a.length < MAX_COMPLETION
        assert a.length == len(a.completion.split()) + ended, "the end token counts"
        assert a.reward == chain.exact_match([], [a.completion], [chain.test_problems()[a.problem]["answers"]])[0]
    assert len({a.completion for a in sampled}) > 30


def test_a_second_end_token_of_the_model_ends_a_completion_too(policy):
    model, tokenizer = policy
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.get_vocab()["ans"]]
    try:
        cut = answers(policy, 20, samples=None)
    finally:
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    assert all(a.completion.split()[-1] == "ans" and a.length == len(a.completion.split()) for a in cut)
    assert len({a.length for a in cut}) > 1
