"""Batches, and completions by transformers: the shipped quickstart model and a tiny one."""

import math
import sys
from itertools import pairwise

import documented_vllm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tiny_model import EOS, IDS, STOP, model, tokenizer
from transformers import GenerationConfig

from ktae.chain import problems as chain
from ktae.models import generate as models
from ktae.models.generate import Sampling, TransformersBackend, VllmBackend, choose_backend, plan_batches, render
from ktae.models.load import Model, load_model
from ktae.seeds import derived_seed


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
def policy():
    return load_model(Model("python:ktae/chain/weights"))


@pytest.fixture(scope="module")
def backend(policy):
    return TransformersBackend(*policy)


PROMPTS = [problem["prompt"] for problem in chain.test_problems()[:12]]


def everything(backend, texts, sampling, *, seed=0, budget=10**6):
    seeds = [derived_seed(seed, i) for i in range(len(texts))]
    parts = models.generate(backend, texts, sampling, seeds, special_tokens=True, budget=budget)
    return {i: c for part in parts for i, c in part.items()}


def test_greedy_does_not_depend_on_the_batches(backend):
    whole = everything(backend, PROMPTS, Sampling(max_tokens=40))
    assert sorted(whole) == list(range(12))
    reverse = everything(backend, PROMPTS[::-1], Sampling(max_tokens=40), budget=150)
    assert reverse == {11 - i: c for i, c in whole.items()}


def test_lengths_and_truncation():
    backend, sampling = TransformersBackend(model(), tokenizer()), Sampling(temperature=1.0, max_tokens=6)
    completions = everything(backend, ["a b c"] * 200, sampling).values()
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


CHECKPOINTS_OWN = {"do_sample": True, "temperature": 0.3, "top_k": 2, "repetition_penalty": 5.0, "suppress_tokens": [3]}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("adapters", [False, True])
def test_the_checkpoints_generation_settings_play_no_part(temperature, adapters):
    """Except the ids that end a completion."""
    sampling, words = Sampling(temperature, max_tokens=6), tokenizer()
    plain, llama = everything(TransformersBackend(model(), words), ["a b c"] * 20, sampling), model()
    own = GenerationConfig(eos_token_id=llama.generation_config.eos_token_id, **CHECKPOINTS_OWN)
    llama.generation_config = own
    if adapters:
        llama = get_peft_model(llama, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    backend = TransformersBackend(llama, words)
    assert everything(backend, ["a b c"] * 20, sampling) == plain
    assert backend.end_ids == sorted({IDS[EOS], IDS[STOP]})
    assert backend.not_used == CHECKPOINTS_OWN
    inner = llama.get_base_model() if adapters else llama
    assert inner.generation_config is own


def test_a_model_that_never_ends():
    words, llama = tokenizer(), model()
    llama.generation_config.eos_token_id = words.eos_token = None
    backend = TransformersBackend(llama, words)
    assert backend.end_ids == []
    assert all(c.truncated and c.length == 4 for c in backend.complete(["a", "b c"], Sampling(max_tokens=4), [0, 0]))


@pytest.fixture
def vllm(monkeypatch, tmp_path):
    """Its documented behaviour; vLLM itself needs a GPU and has not been run."""
    monkeypatch.setitem(sys.modules, "vllm", documented_vllm)
    llama = model()
    llama.generation_config.update(temperature=0.6, do_sample=True, repetition_penalty=1.1)
    llama.save_pretrained(tmp_path)
    return VllmBackend(str(tmp_path), tokenizer(), "auto")


def test_vllm_draws_every_sample_with_a_seed_of_its_own(vllm):
    texts, sampling = ["a"] * 32 + ["b"] * 32, Sampling(1.0, 0.9, 8)
    whole = everything(vllm, texts, sampling)
    assert len({c.text for c in whole.values()}) == 64
    assert everything(vllm, texts, sampling, budget=40) == whole, "the batches do not matter"
    assert everything(vllm, texts, sampling, seed=1) != whole


def test_vllm_gets_nothing_of_the_checkpoint_but_the_ends(vllm):
    (ended,) = vllm.complete(["a"], Sampling(max_tokens=9), [0])
    (cut, _) = vllm.complete(["a", "b"], Sampling(0.7, 0.9, 3), [4, 5])
    assert (ended.length, ended.truncated, cut.length, cut.truncated) == (3, False, 3, True)
    ends = sorted({IDS[EOS], IDS[STOP]})
    assert vllm._engine.settings[2] == "vllm"
    assert vllm._engine.sampling_params == [
        documented_vllm.SamplingParams(0.7, 0.9, max_tokens=3, stop_token_ids=ends, seed=seed) for seed in (4, 5)
    ]
    assert vllm.not_used == {"temperature": 0.6, "do_sample": True, "repetition_penalty": 1.1}


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("installed", [False, True])
def test_backends(gpu, installed, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    assert choose_backend("auto", "a/b") == ("vllm" if gpu and installed else "transformers")
    assert choose_backend("auto", "a.gguf") == choose_backend("transformers", "a/b") == "transformers"
    with pytest.raises(ValueError, match="reads no GGUF files such as a.gguf" if installed else "not installed"):
        choose_backend("vllm", "a.gguf")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature must be at least 0 and finite, got -0.1"),
        ({"temperature": math.nan}, "temperature must be at least 0 and finite, got nan"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
    ],
)
def test_wrong_sampling(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)
