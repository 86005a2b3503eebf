"""How the quickstart's starting model was made: the shipped files, its batches, a short training."""

import hashlib
import json
import random

import torch
import warm_start

from ktae.chain import problems as chain
from ktae.chain.model import CHECKPOINT, load


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


def test_what_the_shipped_weights_come_from():
    """Traces as noisy and as verbose as chain_teacher.py says, and the first batches, their labels included."""
    rng = random.Random(0)
    sampled = [chain.sample_problem(rng) for _ in range(4000)]
    traces = [warm_start.teacher_trace(problem, rng) for problem in sampled]
    accuracy = sum(chain.extract_answer(t) == p.answer for p, t in zip(sampled, traces, strict=True)) / len(traces)
    assert 0.46 < accuracy < 0.51
    assert 32.4 < sum(len(trace.split()) + 1 for trace in traces) / len(traces) < 33.4
    vocabulary = load()[1].get_vocab()
    streams = (make(vocabulary, random.Random(0)) for make in (warm_start.trace_batches, warm_start.drill_batches))
    batches = [tensor.tolist() for stream in streams for tensor in next(stream)]
    drawn = json.dumps([warm_start.WORDS, traces[:50], batches]).encode()
    assert hashlib.sha256(drawn).hexdigest()[:16] == "0e3e96e3ddd60871"
