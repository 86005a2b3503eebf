"""Warm starts: small models that imitate a noisy teacher, one folder a (task, seed).

python warm.py TASK SEED
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
from pathlib import Path

import torch
from tasks import LEGS, SMOLLM2, task
from transformers import AutoModelForCausalLM, AutoTokenizer

from ktae.bench.sources import legs
from ktae.chain.model import build_model, build_tokenizer
from ktae.chain.warm_start import IGNORED, TRACES, imitate, warm_start
from ktae.seeds import derived_seed

FOLDER = Path(os.environ.get("KTAE_WARM_STARTS", "/tmp/ktae_warm_starts"))
# The hard chains stop early: .11 and .27 of the problems right, where the others begin at .4.
UPDATES = {"chain": 1000, "chain_hard": 510, "legs": 1000}


def load(task: str, seed: int):
    """Model and tokenizer of a warm start, trained when missing (4 minutes of one core).

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
    if task != "legs":
        return warm_start(seed, UPDATES[task]), build_tokenizer()
    tokenizer, model = build_tokenizer(legs.WORDS), build_model(seed, legs.WORDS)
    rng = random.Random(derived_seed("warm start", seed))
    problems = LEGS.problems(rng)
    batches = ([_batch(tokenizer, [next(problems) for _ in range(TRACES)], rng)] for _ in itertools.count())
    imitate(model, batches, UPDATES[task])
    return model, tokenizer


def _batch(tokenizer, problems: list[legs.LegsProblem], rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (n, T), prompts with the teacher's traces, padded on the right; labels, -100 but on the traces."""
    rows, labels = [], []
    for problem in problems:
        prompt = tokenizer(LEGS.prompt(problem))["input_ids"]
        trace = tokenizer(legs.teacher_trace(problem, rng), add_special_tokens=False)["input_ids"]
        trace.append(tokenizer.eos_token_id)
        rows.append(torch.tensor(prompt + trace))
        labels.append(torch.tensor([IGNORED] * len(prompt) + trace))
    pad = torch.nn.utils.rnn.pad_sequence
    return (
        pad(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
        pad(labels, batch_first=True, padding_value=IGNORED),
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
