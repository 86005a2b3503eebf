"""One reinforcement-learning run of a small model without a trainer's overhead: sample, credit, update.

    problems -> G completions each, at temperature 1 -> rewards -> token advantages -> clipped policy-gradient updates

What a trainer does besides (logging, checkpoints, processes) is left out, so that a run takes less than a minute of one
core and comparisons can have many seeds. The quickstart repeats the main ones through TRL.

Shape suffixes: _B one entry a rollout, _BT one a completion token.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from decode import Completions, sample
from tasks import Task
from torch import Tensor

from ktae.bench.labelled import LabelledRollouts
from ktae.estimators import Estimator, token_values
from ktae.evaluation.at_k import majority_at_k, pass_at_k
from ktae.rollout import grpo
from ktae.seeds import derived_seed


@dataclass(frozen=True)
class Settings:
    """Of one run; `dapo` means dynamic sampling, clip-higher, the mean over tokens and the overlong penalty."""

    dapo: bool = False
    updates: int = 100  # of `prompts * group_size` rollouts each
    prompts: int = 8
    group_size: int = 16
    mini_batches: int = 2
    learning_rate: float = 2e-4
    warmup: int = 5
    rounds: int = 4  # of generation at most, to fill a batch of DAPO's
    overlong_buffer: int = 12
    evaluate_every: int = 10
    curve_rows: int = 250  # test problems of an evaluation during training
    final_evaluations: int = 3  # the last ones take all test problems; their mean is the result
    samples: int = 8  # of each test problem at the end, for pass@8 and maj@8


def run(model, tokenizer, task: Task, method: Estimator, settings: Settings, seed: int) -> dict[str, Any]:
    """Trains `model` in place and returns the curve, the final evaluations and the means over the updates."""
    problems = task.problems(random.Random(derived_seed("problems", seed)))
    generator = torch.Generator().manual_seed(derived_seed("sampling", seed))
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    started, curve, means, sampled = time.perf_counter(), [], [], 0
    final_from = settings.updates - settings.evaluate_every * (settings.final_evaluations - 1)
    for update in range(settings.updates + 1):
        if update % settings.evaluate_every == 0:
            rows = len(task.test) if update >= final_from else settings.curve_rows
            curve.append({"update": update, "rollouts": sampled} | evaluate_both(model, tokenizer, task, rows))
        if update == settings.updates:
            break
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (update + 1) / settings.warmup)
        batch, prompts, drawn, accuracy = generate(model, tokenizer, task, problems, settings, generator)
        sampled += drawn
        values_BT = token_values(method, batch.rollouts)
        advantage_BT = (batch.rollouts.rollout_advantages[:, None].float() + values_BT) * batch.completions.mask
        means.append(
            {
                "accuracy": accuracy,
                "entropy": float(batch.completions.entropies.sum() / batch.completions.mask.sum()),
                "length": float(batch.completions.mask.sum(1).float().mean()),
            }
        )
        order = torch.randperm(len(prompts), generator=generator)
        for rows_B in order.chunk(settings.mini_batches):
            policy_loss(model, prompts, batch.completions, advantage_BT, rows_B, settings).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return {
        "final": _mean([point for point in curve if point["update"] >= final_from]),
        "end": evaluate_end(model, tokenizer, task, settings.samples),
        "curve": curve,
        "train": _mean(means),
        "seconds": time.perf_counter() - started,
    }


def _mean(points: list[dict[str, Any]]) -> dict[str, float]:
    return {key: sum(point[key] for point in points) / len(points) for key in points[0]}


@dataclass(frozen=True)
class Batch:
    """Rollouts with their rewards, and what the benchmark's labels say of them."""

    completions: Completions
    rollouts: LabelledRollouts


def generate(
    model, tokenizer, task: Task, problems, settings: Settings, generator
) -> tuple[Batch, list[list[int]], int, float]:
    """A batch, the prompt's token ids of each row, the rollouts drawn for it and the share of those that were correct.

    DAPO drops the groups without variance and draws again until the batch is full or the rounds are used up; then
    the batch stays smaller.
    """
    kept: list[tuple[Any, Completions, list[str]]] = []
    drawn, correct = 0, 0.0
    for _ in range(settings.rounds if settings.dapo else 1):
        wanted = settings.prompts - len(kept)
        if wanted == 0:
            break
        asked = [next(problems) for _ in range(wanted if not settings.dapo else max(wanted, 4))]
        done = _sample(model, tokenizer, task, asked, settings.group_size, generator)
        texts = tokenizer.batch_decode(done.token_ids, skip_special_tokens=True)
        for i, problem in enumerate(asked):
            rows = slice(i * settings.group_size, (i + 1) * settings.group_size)
            rewards = [task.reward(problem, text) for text in texts[rows]]
            drawn, correct = drawn + len(rewards), correct + sum(rewards)
            if len(kept) < settings.prompts and (not settings.dapo or 0 < sum(rewards) < len(rewards)):
                kept.append((problem, done.rows(rows), texts[rows]))
    if not kept:
        raise RuntimeError(f"no group had both correct and incorrect rollouts in {settings.rounds} rounds")
    completions = Completions.concatenate([c for _, c, _ in kept], tokenizer.pad_token_id)
    prompts = [ids for problem, c, _ in kept for ids in [tokenizer(task.prompt(problem))["input_ids"]] * len(c.mask)]
    return (
        Batch(completions, judged(tokenizer, task, [(p, texts) for p, _, texts in kept], completions, settings)),
        prompts,
        drawn,
        correct / drawn,
    )


def judged(
    tokenizer, task: Task, groups: list[tuple[Any, list[str]]], completions: Completions, settings: Settings
) -> LabelledRollouts:
    """The rollouts with rewards, GRPO's advantages and the labels of every token (read by the oracle only).

    DAPO's advantages are those of rewards that are less for long completions.
    """
    problems = [problem for problem, texts in groups for _ in texts]
    texts = [text for _, texts in groups for text in texts]
    label_BT = torch.zeros(completions.mask.shape, dtype=torch.int8)
    for row, problem in enumerate(problems):
        ids = completions.token_ids[row, completions.mask[row]].tolist()
        labels = task.labels(problem, tokenizer.convert_ids_to_tokens(ids))
        label_BT[row, : len(ids)] = torch.tensor(labels, dtype=torch.int8)
    rewards_B = torch.tensor([task.reward(problem, text) for problem, text in zip(problems, texts, strict=True)])
    group_ids_B = torch.tensor([i for i, (_, texts) in enumerate(groups) for _ in texts])
    shaped_B = rewards_B
    if settings.dapo:
        free = task.max_completion - settings.overlong_buffer
        shaped_B = rewards_B - (completions.mask.sum(1) - free).clamp(min=0) / settings.overlong_buffer
    return LabelledRollouts(
        token_ids=completions.token_ids,
        mask=completions.mask,
        rewards=rewards_B,
        group_ids=group_ids_B,
        rollout_advantages=grpo(shaped_B, group_ids_B),
        log_probs=completions.log_probabilities,
        entropies=completions.entropies,
        labels=label_BT,
    )


def policy_loss(
    model, prompts: list[list[int]], completions: Completions, advantage_BT: Tensor, rows: Tensor, settings: Settings
) -> Tensor:
    """The clipped objective over `rows`: the mean over tokens (DAPO), or over rollouts of their token means (GRPO)."""
    sequences, picked_ids = [], []
    for row in rows.tolist():
        ids = completions.token_ids[row, completions.mask[row]]
        sequences.append(torch.cat([torch.tensor(prompts[row]), ids]))
        picked_ids.append(len(prompts[row]))
    padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    # Padding on the right needs no attention mask: no completion token can see it.
    hidden = model.model(padded[:, :-1], use_cache=False).last_hidden_state
    mask_BT = completions.mask[rows]
    row_K, column_K = mask_BT.nonzero(as_tuple=True)
    at_K = torch.tensor(picked_ids)[row_K] + column_K - 1
    logits_K = model.lm_head(hidden[row_K, at_K])
    new_K = -F.cross_entropy(logits_K, completions.token_ids[rows][mask_BT], reduction="none")
    ratio_K = (new_K - completions.log_probabilities[rows][mask_BT]).exp()
    advantage_K = advantage_BT[rows][mask_BT]
    clipped_K = ratio_K.clamp(0.8, 1.28 if settings.dapo else 1.2)
    loss_K = -torch.minimum(ratio_K * advantage_K, clipped_K * advantage_K)
    if settings.dapo:
        return loss_K.mean()
    length_B = mask_BT.sum(1)
    return (loss_K / length_B[row_K]).sum() / len(length_B)


def evaluate_both(model, tokenizer, task: Task, rows: int) -> dict[str, float]:
    """Accuracy, length and entropy (nats a token) on the first `rows` test problems, sampled once and greedy."""
    greedy = evaluate(model, tokenizer, task, rows, temperature=0.0)
    return evaluate(model, tokenizer, task, rows) | {f"greedy_{k}": greedy[k] for k in ("accuracy", "length")}


def evaluate_end(model, tokenizer, task: Task, samples: int) -> dict[str, float]:
    """On all test problems: `evaluate` of several samples each, greedy accuracy, and that at temperature 0.6."""
    rows = len(task.test)
    return evaluate(model, tokenizer, task, rows, samples=samples) | {
        f"{name}_accuracy": evaluate(model, tokenizer, task, rows, temperature=temperature)["accuracy"]
        for name, temperature in (("greedy", 0.0), ("t06", 0.6))
    }


def evaluate(
    model, tokenizer, task: Task, rows: int, *, samples: int = 1, temperature: float = 1.0
) -> dict[str, float]:
    """Accuracy, length and entropy on the first `rows` test problems, and pass@k and maj@k of k samples each.

    The draws are the same in every call; at temperature 0 there are none.
    """
    generator = torch.Generator().manual_seed(derived_seed("evaluation")) if temperature else None
    length = entropy = 0.0
    correct_PS, answer_PS = [], []
    at_once = 250 // samples
    for first in range(0, rows, at_once):
        problems = task.test[first : min(first + at_once, rows)]
        done = _sample(model, tokenizer, task, problems, samples, generator, temperature or 1.0)
        texts = tokenizer.batch_decode(done.token_ids, skip_special_tokens=True)
        for i, problem in enumerate(problems):
            of_problem = texts[i * samples : (i + 1) * samples]
            correct_PS.append([int(task.reward(problem, text)) for text in of_problem])
            answer_PS.append([-1 if (a := task.answer(text)) is None else a for text in of_problem])
        length += float(done.mask.sum())
        entropy += float(done.entropies.sum())
    correct, answer = np.array(correct_PS), np.array(answer_PS)
    found = {"accuracy": float(correct.mean()), "length": length / correct.size, "entropy": entropy / length}
    if samples > 1:
        found[f"pass_{samples}"] = float(pass_at_k(correct, samples).mean())
        found[f"maj_{samples}"] = float(majority_at_k(answer, correct, samples).mean())
    return found


def _sample(
    model, tokenizer, task: Task, problems, group_size: int, generator, temperature: float = 1.0
) -> Completions:
    prompts = [tokenizer(task.prompt(problem))["input_ids"] for problem in problems]
    return sample(
        model,
        prompts,
        group_size,
        task.max_completion,
        pad=tokenizer.pad_token_id,
        eos=tokenizer.eos_token_id,
        generator=generator,
        temperature=temperature,
    )
