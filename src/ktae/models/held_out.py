"""Accuracy and length on held-out problems, sampled and greedy, with the reward functions of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ktae.models.generate import Sampling, TransformersBackend
from ktae.seeds import derived_seed


@dataclass(frozen=True)
class Answer:
    """One completion of one problem: `Completion`, and its reward, None if the function could not score it."""

    problem: int  # its index
    completion: str
    length: int
    reward: float | None


def answer(
    model: Any,
    tokenizer: Any,
    rows: Any,
    reward: Callable[..., Sequence[float | None]],
    *,
    max_completion_length: int,
    samples: int | None,
    batch_size: int = 64,
    seed: int = 0,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> list[Answer]:
    """Generates and scores completions of every problem, problem by problem; torch's generators stay as they were.

    Args:
        model, tokenizer: a causal language model and its tokenizer, which pads on the left.
        rows: a `datasets.Dataset` with `prompt` and what the reward function, in TRL's form, reads.
        samples: completions a problem, drawn at temperature 1 from the whole vocabulary; None for one greedy one.
    """
    sampling = Sampling(temperature=0.0 if samples is None else 1.0, max_tokens=max_completion_length)
    tasks = [index for index in range(len(rows)) for _ in range(samples or 1)]
    chat = not isinstance(rows[0]["prompt"], str)
    texts = rows["prompt"]
    if chat:
        how = {"tokenize": False, "add_generation_prompt": True, **(chat_template_kwargs or {})}
        texts = [tokenizer.apply_chat_template(prompt, **how) for prompt in texts]
    answers: list[Answer] = []
    was_training = model.training
    backend = TransformersBackend(model, tokenizer)
    for number, start in enumerate(range(0, len(tasks), batch_size)):
        batch = tasks[start : start + batch_size]
        seeds = [derived_seed(seed, number)] * len(batch)
        completions = backend.complete([texts[i] for i in batch], sampling, seeds, special_tokens=not chat)
        written = [completion.text for completion in completions]
        rewards = reward(
            prompts=[rows[i]["prompt"] for i in batch],
            completions=[[{"role": "assistant", "content": text}] for text in written] if chat else written,
            **{name: [rows[i][name] for i in batch] for name in rows.column_names if name != "prompt"},
        )
        answers += map(Answer, batch, written, [completion.length for completion in completions], rewards)
    model.train(was_training)
    return answers
