"""One reinforcement-learning run of a small model without a trainer's overhead: sample, credit, update.

    problems -> G completions each, at temperature 1 -> rewards -> token advantages -> clipped policy-gradient updates

What a trainer does besides (logging, checkpoints, processes) is left out, so that a run takes less than a minute of one
core and comparisons can have many seeds. The quickstart repeats the main ones through TRL.

Shape suffixes: _B one entry a rollout, _BT one a completion token.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
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
from ktae.evaluation.statistics import majority, pass_at_k
from ktae.rollout import grpo
from ktae.seeds import derived_seed
from ktae.states import calculation


@dataclass(frozen=True)
class Settings:
    """Of one run; `dapo` means dynamic sampling, clip-higher, the mean over tokens and the overlong penalty."""

    dapo: bool = False
    updates: int = 100  # of `prompts * group_size` rollouts each
    prompts: int = 8
    group_size: int = 16
    mini_batches: int = 2
    parts: int = 4  # of a mini-batch, of like length each: less padding, but a long prompt is computed in each
    learning_rate: float = 2e-4
    warmup: int = 5
    rounds: int = 4  # of generation at most, to fill a batch of DAPO's
    overlong_buffer: int = 12
    evaluate_every: int = 10  # updates, the last one among them
    final_rows: int = 500  # test problems of an evaluation
    final_evaluations: int = 3  # whose mean is the result
    samples: int = 8  # of each test problem at the end, for pass@8 and maj@8; 0: nothing is measured there
    learned_rows: int = 200  # the last training problems, evaluated at the end as well
    scale: float = 1.0  # a factor of the token-level values; for GRPO alone, of the advantages


def run(model, tokenizer, task: Task, method: Estimator, settings: Settings, seed: int) -> dict[str, Any]:
    """Trains `model` in place; returns the mean of the final evaluations, `evaluate_end` and the means over updates."""
    learned: list[Any] = []
    problems = _recorded(task.problems(random.Random(derived_seed("problems", seed))), learned)
    generator = torch.Generator().manual_seed(derived_seed("sampling", seed))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    started, final, means = time.perf_counter(), [], []
    final_from = settings.updates - settings.evaluate_every * (settings.final_evaluations - 1)
    for update in range(settings.updates + 1):
        if update >= final_from and update % settings.evaluate_every == 0:
            final.append(evaluate_both(model, tokenizer, task, settings.final_rows))
        if update == settings.updates:
            break
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (update + 1) / settings.warmup)
        batch, prompts, accuracy = generate(model, tokenizer, task, problems, settings, generator)
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
            if not advantage_BT[rows_B].any():
                continue
            policy_loss(model, prompts, batch.completions, advantage_BT, rows_B, settings).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return {
        "final": _mean(final),
        "end": evaluate_end(model, tokenizer, task, settings, learned[-settings.learned_rows :]),
        "train": _mean(means),
        "seconds": time.perf_counter() - started,
    }


def _recorded(problems: Iterator[Any], drawn: list[Any]) -> Iterator[Any]:
    """The problems, each of them also put into `drawn`."""
    for problem in problems:
        drawn.append(problem)
        yield problem


def _mean(points: list[dict[str, Any]]) -> dict[str, float]:
    return {key: sum(point[key] for point in points) / len(points) for key in points[0]}


@dataclass(frozen=True)
class Batch:
    """Rollouts with their rewards, and what the benchmark's labels say of them."""

    completions: Completions
    rollouts: LabelledRollouts


def generate(
    model, tokenizer, task: Task, problems, settings: Settings, generator
) -> tuple[Batch, list[list[int]], float]:
    """A batch, the prompt's token ids of each row and the share of all rollouts drawn for it that were correct.

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
    calculation_BT = torch.zeros(completions.mask.shape, dtype=torch.int64)
    for row, problem in enumerate(problems):
        ids = completions.token_ids[row, completions.mask[row]].tolist()
        tokens = tokenizer.convert_ids_to_tokens(ids)
        labels = task.labels(problem, tokens)
        calculation_BT[row, : len(ids)] = torch.tensor(calculation([task.separator + token for token in tokens]))
        label_BT[row, : len(labels)] = torch.tensor(labels, dtype=torch.int8)
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
        calculations=calculation_BT,
    )


def policy_loss(
    model, prompts: list[list[int]], completions: Completions, advantage_BT: Tensor, rows: Tensor, settings: Settings
) -> Tensor:
    """The clipped objective over `rows`: the mean over tokens (DAPO), or over rollouts of their token means (GRPO)."""
    length_B = completions.mask[rows].sum(1)
    weight_B = 1 / (length_B.sum() if settings.dapo else length_B * len(rows)).expand(len(rows))
    learned_B = advantage_BT[rows].any(1)  # a rollout without advantage has no gradient
    order = length_B[learned_B].argsort()
    rows, weight_B = rows[learned_B][order], weight_B[learned_B][order]
    mask_BT = completions.mask[rows]
    new_K = torch.cat([_log_probabilities(model, prompts, completions, part) for part in rows.chunk(settings.parts)])
    ratio_K = (new_K - completions.log_probabilities[rows][mask_BT]).exp()
    advantage_K = advantage_BT[rows][mask_BT]
    clipped_K = ratio_K.clamp(0.8, 1.28 if settings.dapo else 1.2)
    gain_K = torch.minimum(ratio_K * advantage_K, clipped_K * advantage_K)
    return -(gain_K * weight_B[mask_BT.nonzero()[:, 0]]).sum()


def _log_probabilities(model, prompts: list[list[int]], completions: Completions, rows: Tensor) -> Tensor:
    """Of each token of the completions of `rows`, one after the other."""
    mask_BT = completions.mask[rows]
    mask_BT = mask_BT[:, : int(mask_BT.sum(1).max())]
    ids_BT = completions.token_ids[rows][:, : mask_BT.shape[1]]
    hidden_BT = completion_states(model, [prompts[row] for row in rows.tolist()], ids_BT)
    return -F.cross_entropy(model.lm_head(hidden_BT[mask_BT]).float(), ids_BT[mask_BT], reduction="none")


def completion_states(model, prompts: list[list[int]], ids_BT: Tensor) -> Tensor:
    """(B, T, d) hidden states that predict each completion token; a prompt that many rows share is computed once.

    Padding after a completion's end needs no attention mask: no token of it can see that.
    """
    distinct = {tuple(prompt): index for index, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    row_B = torch.tensor([distinct[tuple(prompt)] for prompt in prompts])
    width = max(map(len, distinct))
    prompt_PL = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in distinct])
    seen_PL = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in distinct])
    places_PL = (seen_PL.cumsum(1) - 1).clamp(min=0)
    done = model.model(prompt_PL, attention_mask=seen_PL, position_ids=places_PL, use_cache=True)
    cache = done.past_key_values
    cache.batch_select_indices(row_B)
    T = ids_BT.shape[1]
    rest = model.model(
        ids_BT[:, :-1],
        attention_mask=F.pad(seen_PL[row_B], (0, T - 1), value=1),
        position_ids=seen_PL.sum(1)[row_B][:, None] + torch.arange(T - 1),
        past_key_values=cache,
    )
    return torch.cat([done.last_hidden_state[row_B, -1:], rest.last_hidden_state], dim=1)


def evaluate_both(model, tokenizer, task: Task, rows: int) -> dict[str, float]:
    """Accuracy, length and entropy (nats a token) on the first `rows` test problems, sampled once and greedy."""
    greedy = evaluate(model, tokenizer, task, task.test[:rows], temperature=0.0)
    return evaluate(model, tokenizer, task, task.test[:rows]) | {
        f"greedy_{k}": greedy[k] for k in ("accuracy", "length")
    }


def evaluate_end(model, tokenizer, task: Task, settings: Settings, learned: list[Any]) -> dict[str, float]:
    """`evaluate` of several samples of each test problem, and accuracy at temperature 0.6 and greedy.

    Greedy accuracy also on `learned`, problems that the model was trained on last.
    """
    if not settings.samples:
        return {}
    test = task.test[: settings.final_rows]
    found = evaluate(model, tokenizer, task, test, samples=settings.samples)
    for name, problems, temperature in (("greedy", test, 0.0), ("t06", test, 0.6), ("learned", learned, 0.0)):
        found[f"{name}_accuracy"] = evaluate(model, tokenizer, task, problems, temperature=temperature)["accuracy"]
    return found


def evaluate(
    model, tokenizer, task: Task, problems: Sequence[Any], *, samples: int = 1, temperature: float = 1.0
) -> dict[str, float]:
    """Accuracy, length and entropy on problems, and pass@k and maj@k of k samples each.

    The draws are the same in every call; at temperature 0 there are none.
    """
    generator = torch.Generator().manual_seed(derived_seed("evaluation")) if temperature else None
    length = entropy = 0.0
    correct_PS, answer_PS = [], []
    at_once = 250 // samples
    for first in range(0, len(problems), at_once):
        some = problems[first : first + at_once]
        done = _sample(model, tokenizer, task, some, samples, generator, temperature or 1.0)
        texts = tokenizer.batch_decode(done.token_ids, skip_special_tokens=True)
        for i, problem in enumerate(some):
            of_problem = texts[i * samples : (i + 1) * samples]
            correct_PS.append([int(task.reward(problem, text)) for text in of_problem])
            numbers = {None: -1}
            answer_PS.append([numbers.setdefault(task.answer(text), len(numbers)) for text in of_problem])
        length += float(done.mask.sum())
        entropy += float(done.entropies.sum())
    correct, answer = np.array(correct_PS), np.array(answer_PS)
    found = {"accuracy": float(correct.mean()), "length": length / correct.size, "entropy": entropy / length}
    if samples > 1:
        found[f"pass_{samples}"] = float(pass_at_k(correct, samples).mean())
        found[f"maj_{samples}"] = float(majority(answer, correct).mean())
    return found


def correctness(model, tokenizer, task: Task, problems: Sequence[Any], samples: int, generator) -> np.ndarray:
    """(problems, samples) rewards at temperature 1."""
    done = _sample(model, tokenizer, task, problems, samples, generator)
    texts = tokenizer.batch_decode(done.token_ids, skip_special_tokens=True)
    rewards = [task.reward(problems[row // samples], text) for row, text in enumerate(texts)]
    return np.array(rewards).reshape(len(problems), samples)


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
