import random

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from ktae.chain import model as chain_model
from ktae.chain import problems as chain
from ktae.chain.labels import Label, label_steps
from ktae.chain.model import CHECKPOINT, MAX_COMPLETION
from ktae.chain.problems import Problem, exact_match
from ktae.chain.warm_start import drill_batches, trace_batches, warm_start
from ktae.models.held_out import answer

# Accuracy of the shipped checkpoint on the first 200 test problems.
GREEDY_BAND, SAMPLED_BAND = (0.38, 0.50), (0.33, 0.46)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module", params=["built", "shipped"])
def either_tokenizer(request, tokenizer):
    return chain_model.build_tokenizer() if request.param == "built" else tokenizer


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(CHECKPOINT)


@given(seed=st.integers(0, 2**32 - 1))
def test_one_word_is_one_token_and_decoding_gives_the_words_back(either_tokenizer, seed):
    tokenizer, rng = either_tokenizer, random.Random(seed)
    problem = chain.sample_problem(rng)
    completion = chain.teacher_trace(problem, rng)
    prompt_ids = tokenizer(problem.prompt)["input_ids"]
    ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(prompt_ids) == ["<bos>", *problem.prompt.split()]
    assert tokenizer.convert_ids_to_tokens(ids) == completion.split()
    whole = [*prompt_ids, *ids, tokenizer.eos_token_id]
    assert tokenizer.decode(whole) == f"<bos> {problem.prompt} {completion} <eos>"
    assert tokenizer.decode(whole, skip_special_tokens=True) == f"{problem.prompt} {completion}"


def test_the_tokenizer_pads_on_the_left_and_refuses_unknown_words(either_tokenizer):
    tokenizer = either_tokenizer
    batch = tokenizer(["5 S1 +5 ?", "5 S1 +5 S2 *9 ?"], padding=True)
    assert tokenizer.convert_ids_to_tokens(batch["input_ids"][0])[:4] == ["<pad>", "<pad>", "<bos>", "5"]
    assert [sum(mask) for mask in batch["attention_mask"]] == [5, 7]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    with pytest.raises(Exception, match="UNK"):
        tokenizer("5 S1 +13 ?")


def test_the_shipped_files_are_those_the_code_builds(tokenizer, model):
    assert tokenizer.get_vocab() == chain_model.build_tokenizer().get_vocab()
    built = chain_model.build_model(0)
    assert {name: p.shape for name, p in model.named_parameters()} == {
        name: p.shape for name, p in built.named_parameters()
    }
    assert model.dtype == torch.float32
    assert 360_000 < model.num_parameters() < 400_000
    assert (CHECKPOINT / "model.safetensors").stat().st_size <= 2_000_000
    ours, shipped = built.generation_config.to_dict(), model.generation_config.to_dict()
    assert ours == shipped
    assert (shipped["do_sample"], shipped["temperature"], shipped["top_k"], shipped["top_p"]) == (True, 1.0, 0, 1.0)
    assert (shipped["pad_token_id"], shipped["eos_token_id"]) == (0, 2)


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    a, b, c = (chain_model.build_model(seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), first)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def answers(model, tokenizer, count, **settings):
    rows = Dataset.from_list(chain.test_problems()[:count])
    return answer(model, tokenizer, rows, exact_match, max_completion_length=MAX_COMPLETION, **settings)


def accuracy(answers):
    return sum(a.reward for a in answers) / len(answers)


@pytest.mark.slow
def test_the_shipped_checkpoint_is_as_good_as_its_readme_says(tokenizer, model):
    greedy = answers(model, tokenizer, 200, samples=None)
    assert GREEDY_BAND[0] <= accuracy(greedy) <= GREEDY_BAND[1]
    sampled = answers(model, tokenizer, 200, samples=1, seed=1)
    assert sampled == answers(model, tokenizer, 200, samples=1, seed=1)
    assert SAMPLED_BAND[0] <= accuracy(sampled) <= SAMPLED_BAND[1]
    assert 31.5 < sum(a.length for a in sampled) / 200 < 35.5
    # Its mistakes are the teacher's: wrong results, hardly ever anything else.
    results = others = 0
    for a in sampled:
        problem, words = Problem.from_prompt(chain.test_problems()[a.problem]["prompt"]), a.completion.split()
        labels = label_steps(problem, a.completion)
        if Label.SLIP in labels:
            first = labels.index(Label.SLIP)
            results, others = results + (words[first - 1] == "="), others + (words[first - 1] != "=")
    assert results > 20 * others
    assert results > 0


def test_answers_are_counted_and_scored_one_by_one(tokenizer, model):
    sampled = answers(model, tokenizer, 20, samples=2, batch_size=7)
    assert [a.problem for a in sampled] == [i for i in range(20) for _ in range(2)]
    for a in sampled:
        ended = a.length < MAX_COMPLETION
        assert a.length == len(a.completion.split()) + ended, "the end token counts"
        assert a.reward == exact_match([], [a.completion], [chain.test_problems()[a.problem]["answers"]])[0]
    assert len({a.completion for a in sampled}) > 30


def test_a_second_end_token_of_the_model_ends_a_completion_too(tokenizer, model):
    answer_word = tokenizer.get_vocab()["ans"]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, answer_word]
    try:
        cut = answers(model, tokenizer, 20, samples=None)
    finally:
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    assert all(a.completion.split()[-1] == "ans" and a.length == len(a.completion.split()) for a in cut)
    assert len({a.length for a in cut}) > 1


def test_answering_leaves_the_generators_and_the_mode_alone(tokenizer, model):
    model.train()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    answers(model, tokenizer, 5, samples=1)
    assert torch.equal(torch.rand(2), expected)
    assert model.training
    model.eval()


# --- warm start -------------------------------------------------------------------------------------------


def test_warm_start_batches_label_the_completions_and_the_results(tokenizer):
    vocabulary = tokenizer.get_vocab()
    tokens, labels = next(trace_batches(vocabulary, random.Random(0)))
    for row, wanted in zip(tokens.tolist(), labels.tolist(), strict=True):
        text = tokenizer.decode([t for t in row if t != 0])
        prompt, _, completion = text.partition(" ? ")
        Problem.from_prompt(prompt.removeprefix("<bos> ") + " ?")
        assert completion.endswith(" <eos>")
        assert tokenizer.decode([t for t in wanted if t != -100]) == completion
        assert all(w in (-100, t) for t, w in zip(row, wanted, strict=True))
    tokens, labels = next(drill_batches(vocabulary, random.Random(0)))
    right = 0
    for row, wanted in zip(tokens.tolist(), labels.tolist(), strict=True):
        words = tokenizer.convert_ids_to_tokens(row)
        assert [i for i, w in enumerate(wanted) if w != -100] == list(range(4, 41, 4))
        right += sum(chain.apply(int(words[i - 4]), words[i - 2]) == int(words[i]) for i in range(4, 41, 4))
    assert 0.80 < right / labels.numel() * 4.1 < 0.90


def test_a_short_warm_start_learns_and_repeats(capsys):
    first, second = (warm_start(seed=3, steps=3).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "step 3: loss" in capsys.readouterr().out
    start = chain_model.build_model(3).state_dict()
    assert not any(torch.equal(first[name], start[name]) for name in first)
