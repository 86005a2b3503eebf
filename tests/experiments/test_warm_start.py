"""How the quickstart's starting model was made: the shipped files, its batches, a short training."""

import hashlib
import json
import random

import torch
import warm_start

from ktae.chain import problems as chain
from ktae.chain.model import CHECKPOINT, load
from ktae.chain.problems import Problem


def test_the_shipped_files_are_those_the_code_builds():
    model, tokenizer = load.__wrapped__()  # anew: a tokenizer remembers the padding of its last call
    assert tokenizer.backend_tokenizer.to_str() == warm_start.build_tokenizer().backend_tokenizer.to_str()
    built = warm_start.build_model(0)
    shapes, shipped_shapes = ({name: p.shape for name, p in m.named_parameters()} for m in (built, model))
    assert shapes == shipped_shapes
    assert model.dtype == torch.float32
    assert model.num_parameters() == 365_472
    assert (CHECKPOINT / "model.safetensors").stat().st_size <= 2_000_000
    shipped = model.generation_config.to_dict()
    assert built.generation_config.to_dict() == shipped
    assert (shipped["do_sample"], shipped["temperature"], shipped["top_k"], shipped["top_p"]) == (True, 1.0, 0, 1.0)
    assert (shipped["pad_token_id"], shipped["eos_token_id"]) == (0, 2)


def test_a_short_warm_start_learns_and_repeats(capsys):
    before = torch.get_rng_state()
    first, second = (warm_start.warm_start(seed=3, steps=3).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "step 3: loss" in capsys.readouterr().out
    start, other = (warm_start.build_model(seed).state_dict() for seed in (3, 4))
    assert not any(torch.equal(first[name], start[name]) for name in first)
    assert not torch.equal(start["lm_head.weight"], other["lm_head.weight"])


def test_warm_start_batches_label_the_completions_and_the_results():
    tokenizer = load()[1]
    vocabulary = tokenizer.get_vocab()
    tokens, labels = next(warm_start.trace_batches(vocabulary, random.Random(0)))
    for row, wanted in zip(tokens.tolist(), labels.tolist(), strict=True):
        text = tokenizer.decode([t for t in row if t != 0])
        prompt, _, completion = text.partition(" ? ")
        Problem.from_prompt(prompt.removeprefix("<bos> ") + " ?")
        assert completion.endswith(" <eos>")
        assert tokenizer.decode([t for t in wanted if t != -100]) == completion
        assert all(w in (-100, t) for t, w in zip(row, wanted, strict=True))
    tokens, labels = next(warm_start.drill_batches(vocabulary, random.Random(0)))
    right = 0
    for row, wanted in zip(tokens.tolist(), labels.tolist(), strict=True):
        words = tokenizer.convert_ids_to_tokens(row)
        assert [i for i, w in enumerate(wanted) if w != -100] == list(range(4, 41, 4))
        right += sum(chain.apply(int(words[i - 4]), words[i - 2]) == int(words[i]) for i in range(4, 41, 4))
    assert 0.80 < right / labels.numel() * 4.1 < 0.90


def test_the_teacher_writes_the_traces_of_which_the_shipped_weights_come():
    """As noisy and as verbose as chain_teacher.py says."""
    rng = random.Random(0)
    sampled = [chain.sample_problem(rng) for _ in range(4000)]
    traces = [warm_start.teacher_trace(problem, rng) for problem in sampled]
    accuracy = sum(chain.extract_answer(t) == p.answer for p, t in zip(sampled, traces, strict=True)) / len(traces)
    assert 0.46 < accuracy < 0.51
    assert 32.4 < sum(len(trace.split()) + 1 for trace in traces) / len(traces) < 33.4
    drawn = json.dumps([warm_start.WORDS, traces[:50]]).encode()
    assert hashlib.sha256(drawn).hexdigest()[:16] == "3547eedddb172d63"
