"""Warm starts: small models that imitate a noisy teacher, one folder a (task, seed).

python warm.py TASK SEED
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import legs
import torch
import word_problems
from tasks import LEGS, SMOLLM2, WORD_STEPS, WORDS, task
from transformers import AutoModelForCausalLM, AutoTokenizer
from warm_start import IGNORED, LEARNING_RATE, TRACES, build_model, build_tokenizer, imitate, warm_start
from word_problems import WordProblem

from ktae.seeds import derived_seed

FOLDER = Path(os.environ.get("KTAE_WARM_STARTS", "/tmp/ktae_warm_starts"))
# The hard chains stop early: .11 and .27 of the problems right, where the others begin at .4.
# Word problems: .22 and .27.
UPDATES = {"chain": 1000, "chain_hard": 510, "legs": 1000, "words": 1800}
TEACHERS = {"legs": (LEGS, legs.teacher_trace), "words": (WORDS, word_problems.teacher_trace)}
SIZES = {"legs": TRACES, "words": 8}  # of a batch
LEARNING_RATES = {"legs": LEARNING_RATE, "words": 1e-3}
# 3 million parameters.
WORDS_MODEL = {
    "hidden_size": 192,
    "intermediate_size": 576,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "max_position_embeddings": 256,
    "initializer_range": 0.07,
    "tie_word_embeddings": True,  # so that copying a word is the same for all words
}


def load(task: str, seed: int):
    """Model and tokenizer of a warm start, trained when missing (4 minutes of one core; word problems 8).

    SmolLM2's comes from experiments/smollm2_svamp/warm_start.py and gets low-rank adapters, which alone are trained.
    """
    if task == "svamp":
        from peft import LoraConfig, inject_adapter_in_model

        torch.manual_seed(derived_seed("adapters", seed))
        adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
        model = inject_adapter_in_model(adapters, AutoModelForCausalLM.from_pretrained(SMOLLM2, dtype=torch.bfloat16))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return model, AutoTokenizer.from_pretrained(SMOLLM2)
    folder = FOLDER / f"{task}_{seed}"
    if not (folder / "config.json").exists():
        model, tokenizer = train(task, seed)
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def train(task: str, seed: int):
    """A model from scratch; the same task and seed give the same model on one thread."""
    if task not in TEACHERS:
        return warm_start(seed, UPDATES[task]), build_tokenizer()
    if task == "legs":
        tokenizer = build_tokenizer(legs.WORDS)
        model = build_model(seed, len(tokenizer))
    else:
        tokenizer = word_problems.build_tokenizer()
        model = build_model(seed, len(tokenizer), **WORDS_MODEL)
    rng = random.Random(derived_seed("warm start", seed))
    batches = ([batch] for batch in _batches(task, tokenizer, rng))
    if task == "words":
        batches = ([*batch, _drill(tokenizer, rng)] for batch in batches)
    # A core is faster in bfloat16; the weights stay in float32.
    with torch.autocast("cpu", torch.bfloat16, enabled=task == "words", cache_enabled=False):
        imitate(model, batches, UPDATES[task], LEARNING_RATES[task])
    return model, tokenizer


def _batches(task: str, tokenizer, rng: random.Random) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    problems = TEACHERS[task][0].problems(rng)
    if task == "words":
        problems = _by_length(_longer_and_longer(problems, SIZES[task] * UPDATES[task]), 16 * SIZES[task])
    while True:
        yield _batch(task, tokenizer, list(itertools.islice(problems, SIZES[task])), rng)


def _longer_and_longer(problems: Iterator[WordProblem], count: int) -> Iterator[WordProblem]:
    """Of two steps in the first half: the short ones teach to copy, and cost little."""
    for i in itertools.count():
        longest = 2 if 2 * i < count else WORD_STEPS
        yield next(problem for problem in problems if len(problem.steps) <= longest)


def _by_length(problems: Iterator[WordProblem], at_once: int) -> Iterator[WordProblem]:
    """Sorted `at_once`, so that batches need little padding."""
    while True:
        yield from sorted(itertools.islice(problems, at_once), key=lambda problem: len(problem.prompt))


def _batch(task: str, tokenizer, problems: list[Any], rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (n, T), prompts with the teacher's traces, padded on the right; labels, -100 but on the traces."""
    of_task, teacher = TEACHERS[task]
    rows, labels = [], []
    for problem in problems:
        prompt = tokenizer(of_task.prompt(problem))["input_ids"]
        trace = tokenizer(teacher(problem, rng), add_special_tokens=False)["input_ids"]
        trace.append(tokenizer.eos_token_id)
        rows.append(torch.tensor(prompt + trace))
        labels.append(torch.tensor([IGNORED] * len(prompt) + trace))
    return _padded(rows, labels, tokenizer.pad_token_id)


def _drill(tokenizer, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Nothing but the teacher's equations, some ten a row; labels are their results."""
    rows, labels = [], []
    for _ in range(SIZES["words"]):
        traces = [word_problems.teacher_trace(word_problems.sample_problem(rng), rng) for _ in range(3)]
        ids = tokenizer(" ".join(re.findall(r"(?<!check: )\b\d+[-+*/]\d+=\d+", " ".join(traces))))["input_ids"]
        rows.append(torch.tensor(ids))
        labels.append(torch.full((len(ids),), IGNORED))
        after_sign = False
        for place, token in enumerate(tokenizer.convert_ids_to_tokens(ids)):
            if after_sign and token.isdigit():
                labels[-1][place] = ids[place]
            after_sign = token == "=" or (after_sign and token.isdigit())
    return _padded(rows, labels, tokenizer.pad_token_id)


def _padded(rows: list[torch.Tensor], labels: list[torch.Tensor], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    pad_sequence = torch.nn.utils.rnn.pad_sequence
    return (
        pad_sequence(rows, batch_first=True, padding_value=pad),
        pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    )


def keep_mixed(samples: int = 8) -> None:
    """Writes mixed.jsonl: SVAMP's training problems of which SmolLM2 gets some of `samples` right and some wrong."""
    from loop import correctness

    model, tokenizer = load("svamp", 0)
    rows = [json.loads(line) for line in (SMOLLM2 / "unseen.jsonl").read_text().splitlines()][200:]
    correct = correctness(model, tokenizer, task("svamp"), rows, samples, torch.Generator().manual_seed(0)).mean(1)
    kept = [row for row, share in zip(rows, correct, strict=True) if 0 < share < 1]
    (SMOLLM2 / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    print(f"{len(kept)} of {len(rows)} problems, {correct.mean():.3f} right")


if __name__ == "__main__":
    from loop import evaluate_both

    name, seed = sys.argv[1], int(sys.argv[2])
    if name == "svamp":
        keep_mixed()
    else:
        torch.set_num_threads(1)
        model, tokenizer = load(name, seed)
        print(name, seed, evaluate_both(model, tokenizer, task(name), 1000))
