"""Chains of arithmetic modulo 97: rollouts of the quickstart's model, exact labels, measured true advantages."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import compress
from typing import Any

import torch

from ktae.bench.labelled import LabelledRollouts, WordRollout, assemble
from ktae.chain import problems as chain
from ktae.chain.labels import label_steps
from ktae.chain.problems import NUMBERS, Problem
from ktae.extras import require
from ktae.seeds import derived_seed

# Rollouts sampled together; true advantages are measured in one of so many groups, by so many continuations.
BATCH, GROUPS_PER_MEASURED, CONTINUATIONS = 256, 8, 16


def words(groups: int, group_size: int, seed: int) -> LabelledRollouts:
    """Problems of 4 to 6 steps; a word is a token. Entropies of the model; true advantages in every eighth group.

    A true advantage is the share of 16 continuations from after a result that are right minus that from before it. Its
    standard error is at most 0.18.
    """
    rollouts = _sampled(groups, group_size, seed, (4, 5, 6))
    measured = [g % GROUPS_PER_MEASURED == GROUPS_PER_MEASURED - 1 for g in range(groups) for _ in range(group_size)]
    with_advantages = iter(_with_true_advantages(list(compress(rollouts, measured)), seed))
    return assemble([next(with_advantages) if m else r for (_, r), m in zip(rollouts, measured, strict=True)])


def of_steps(steps: int, groups: int, group_size: int, seed: int) -> LabelledRollouts:
    """Problems of so many steps; a word is a token. Entropies of the model."""
    return assemble([r for _, r in _sampled(groups, group_size, seed, (steps,))])


@cache
def model() -> tuple[Any, Any]:
    """The quickstart's model and its tokenizer."""
    transformers = require("transformers", "bench")
    from ktae.chain.model import CHECKPOINT

    tokenizer = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)
    return transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINT).eval(), tokenizer


@torch.no_grad()
def _complete(prefixes: Sequence[str], seed: int) -> list[tuple[list[str], bool, list[float]]]:
    """Of each prefix one continuation: its words, whether it ended, and the entropy at each choice."""
    from ktae.chain.model import MAX_COMPLETION

    policy, tokenizer = model()
    completions = []
    for start in range(0, len(prefixes), BATCH):
        inputs = tokenizer(list(prefixes[start : start + BATCH]), return_tensors="pt", padding=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, start))
            out = policy.generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                max_new_tokens=MAX_COMPLETION,
                output_logits=True,
                return_dict_in_generate=True,
            )
        log_probabilities_BTV = torch.stack(out.logits, dim=1).log_softmax(dim=-1)
        entropies = (-(log_probabilities_BTV.exp() * log_probabilities_BTV).sum(dim=-1)).tolist()
        for ids, entropy in zip(out.sequences[:, inputs.input_ids.shape[1] :].tolist(), entropies, strict=True):
            ended = tokenizer.eos_token_id in ids
            length = ids.index(tokenizer.eos_token_id) if ended else len(ids)
            words = tokenizer.decode(ids[:length], skip_special_tokens=True).split()
            completions.append((words, ended, entropy[: length + ended]))
    return completions


@cache
def _sampled(
    groups: int, group_size: int, seed: int, numbers_of_steps: tuple[int, ...]
) -> list[tuple[Problem, WordRollout]]:
    rng = random.Random(derived_seed(seed, *numbers_of_steps))
    problems: list[Problem] = []
    while len(problems) < groups:
        problem = chain.sample_problem(rng)
        if len(problem.operations) in numbers_of_steps:
            problems.append(problem)
    return sampled(problems, group_size, derived_seed(seed, 1, *numbers_of_steps))


def sampled(problems: Sequence[Problem], group_size: int, seed: int) -> list[tuple[Problem, WordRollout]]:
    """`group_size` rollouts of each problem in a row, with the problem; a group a problem."""
    prompts = [problem.prompt for problem in problems for _ in range(group_size)]
    rollouts = []
    for i, (words, ended, entropies) in enumerate(_complete(prompts, seed)):
        problem, completion = problems[i // group_size], " ".join(words)
        correct = chain.extract_answer(completion) == problem.answer
        labels = label_steps(problem, completion)
        rollout = WordRollout(i // group_size, correct, words, labels, ended=ended, entropies=entropies)
        rollouts.append((problem, rollout))
    return rollouts


def _with_true_advantages(rollouts: Sequence[tuple[Problem, WordRollout]], seed: int) -> list[WordRollout]:
    """The rollouts with the true advantage of every result and answer."""
    from ktae.chain.model import MAX_COMPLETION

    right = {(problem, *r.words[:end]): 0.0 for problem, r in rollouts for i in _results(r.words) for end in (i, i + 1)}
    # Long prefixes have little left to say: batches of one length end early.
    prefixes = sorted(right, key=lambda prefix: (-len(prefix), prefix[0].prompt, prefix[1:]))
    texts = [" ".join([problem.prompt, *words]) for problem, *words in prefixes for _ in range(CONTINUATIONS)]
    for i, (continued, _, _) in enumerate(_complete(texts, derived_seed(seed, 2))):
        problem, *words = prefix = prefixes[i // CONTINUATIONS]
        answer = chain.extract_answer(" ".join([*words, *continued][:MAX_COMPLETION]))
        right[prefix] += (answer == problem.answer) / CONTINUATIONS
    advantages = []
    for problem, r in rollouts:
        values = [math.nan] * len(r.words)
        for i in _results(r.words):
            values[i] = right[problem, *r.words[: i + 1]] - right[problem, *r.words[:i]]
        advantages.append(replace(r, true_advantages=values))
    return advantages


def _results(words: Sequence[str]) -> list[int]:
    return [i for i in range(1, len(words)) if words[i] in NUMBERS and words[i - 1] in ("=", "ans")]
