"""Chains of arithmetic modulo 97, a word a token: rollouts of the quickstart's model."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import torch

from ktae.bench.labelled import LabelledRollouts, WordRollout, assemble
from ktae.chain import problems as chain
from ktae.chain.labels import label_steps
from ktae.chain.model import MAX_COMPLETION, load
from ktae.chain.problems import NUMBERS, Problem
from ktae.seeds import derived_seed

# Rollouts sampled together; true advantages are measured in one of so many groups, by so many continuations.
BATCH, GROUPS_PER_MEASURED, CONTINUATIONS = 256, 8, 16

Sampled = Sequence[tuple[Problem, WordRollout]]


def measured(groups: int, group_size: int, seed: int) -> LabelledRollouts:
    """Problems of 4 to 6 steps. Entropies of the model; true advantages in every eighth group.

    A true advantage is the share of 16 continuations from after a result that are right minus that from before it. Its
    standard error is at most 0.18.
    """
    sampled = _drawn((4, 5, 6), groups, group_size, seed)
    rollouts = assemble([r for _, r in sampled], group_size)
    last = GROUPS_PER_MEASURED - 1
    rows = [row for row in range(len(sampled)) if row // group_size % GROUPS_PER_MEASURED == last]
    advantage_BT = torch.full(rollouts.mask.shape, math.nan)
    for row, by_place in zip(rows, true_advantages([sampled[row] for row in rows], seed), strict=True):
        advantage_BT[row, list(by_place)] = torch.tensor(list(by_place.values()))
    return replace(rollouts, true_advantages=advantage_BT)


def of_steps(steps: int, groups: int, group_size: int, seed: int) -> LabelledRollouts:
    """Problems of so many steps. Entropies of the model."""
    return assemble([r for _, r in _drawn((steps,), groups, group_size, seed)], group_size)


def sample(problems: Sequence[Problem], group_size: int, seed: int) -> Sampled:
    """`group_size` rollouts of the model of each problem in a row, with the problem."""
    repeated = [problem for problem in problems for _ in range(group_size)]
    completions = _complete([problem.prompt for problem in repeated], seed)
    sampled = []
    for problem, (words, ended, entropies) in zip(repeated, completions, strict=True):
        text = " ".join(words)
        correct = chain.extract_answer(text) == problem.answer
        sampled.append((problem, WordRollout(correct, words, label_steps(problem, text), ended, entropies)))
    return sampled


def true_advantages(sampled: Sampled, seed: int) -> list[dict[int, float]]:
    """Of each rollout the true advantage of every result and answer, by its place."""
    right = {(problem, *r.words[:end]): 0.0 for problem, r in sampled for i in _results(r) for end in (i, i + 1)}
    # Long prefixes have little left to say: batches of one length end early.
    prefixes = sorted(right, key=lambda prefix: (-len(prefix), prefix[0].prompt, prefix[1:]))
    texts = [" ".join([problem.prompt, *words]) for problem, *words in prefixes for _ in range(CONTINUATIONS)]
    for i, (continued, _, _) in enumerate(_complete(texts, derived_seed(seed, 2))):
        problem, *words = prefix = prefixes[i // CONTINUATIONS]
        answer = chain.extract_answer(" ".join([*words, *continued][:MAX_COMPLETION]))
        right[prefix] += (answer == problem.answer) / CONTINUATIONS
    return [
        {i: right[problem, *r.words[: i + 1]] - right[problem, *r.words[:i]] for i in _results(r)}
        for problem, r in sampled
    ]


def _results(r: WordRollout) -> list[int]:
    return [i for i in range(1, len(r.words)) if r.words[i] in NUMBERS and r.words[i - 1] in ("=", "ans")]


def _drawn(steps: tuple[int, ...], groups: int, group_size: int, seed: int) -> Sampled:
    rng, problems = random.Random(derived_seed(seed, *steps)), []
    while len(problems) < groups:
        problem = chain.sample_problem(rng)
        if len(problem.operations) in steps:
            problems.append(problem)
    return sample(problems, group_size, derived_seed(seed, 1, *steps))


@torch.no_grad()
def _complete(prefixes: Sequence[str], seed: int) -> list[tuple[list[str], bool, list[float]]]:
    """Of each prefix one continuation: its words, whether it ended, and the entropy at each choice."""
    policy, tokenizer = load()
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
        logp_BTV = torch.stack(out.logits, dim=1).log_softmax(dim=-1)
        entropies = (-(logp_BTV.exp() * logp_BTV).sum(dim=-1)).tolist()
        for ids, entropy in zip(out.sequences[:, inputs.input_ids.shape[1] :].tolist(), entropies, strict=True):
            ended = tokenizer.eos_token_id in ids
            length = ids.index(tokenizer.eos_token_id) if ended else len(ids)
            words = tokenizer.decode(ids[:length], skip_special_tokens=True).split()
            completions.append((words, ended, entropy[: length + ended]))
    return completions
