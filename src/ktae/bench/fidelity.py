"""Gradient fidelity: does a batch's policy gradient point where that of many more rollouts of its prompts points?

The reference is the gradient of the prompts' mean accuracy, from `REFERENCE_ROLLOUTS` rollouts of each prompt:

    g* = mean over rollouts of (r - mean(r)) sum_t grad log pi(o_t)

A batch of `GROUP_SIZE` rollouts of each of the same prompts has, under an estimator,

    g = mean over rollouts of sum_t (A + value_t) grad log pi(o_t),  A from GRPO

Over batches that are drawn anew `cosine` is the mean of cos(g, g*), and `snr` is |E g|^2 / E |g - E g|^2: how much of a
batch's gradient is common to all. Values that credit the right tokens add to both; values that are loud but always the
same (the length of an answer, say) add to the second alone. The policy is the quickstart's model with all its weights.

Shape suffixes: _K one entry a token inside the mask, _E one an estimator, _P one a weight of the model.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ktae.bench import chain_rollouts
from ktae.bench.labelled import LabelledRollouts, assemble
from ktae.chain.model import load
from ktae.chain.problems import sample_problem
from ktae.estimators import Estimator, token_values
from ktae.seeds import derived_seed

PROMPTS, GROUP_SIZE, REFERENCE_ROLLOUTS = 8, 16, 512


def fidelity(estimators: Mapping[str, Estimator], batches: int, seed: int) -> dict[str, dict[str, list[float]]]:
    """`cosine` and `snr` of each estimator and of `grpo`, which adds nothing.

    At least 2 `batches`, each `PROMPTS` groups of `GROUP_SIZE` rollouts with entropies and labels; `seed` is that of
    the prompts and of all rollouts. Returns value, low, high, difference to `grpo`, low, high of `cosine`, 95 % normal
    intervals over batches, the difference paired by batch; [value] of `snr`, which is freed of the noise in E g and so
    may come out below 0.
    """
    rng = random.Random(derived_seed(seed, 3))
    problems = [sample_problem(rng) for _ in range(PROMPTS)]
    sampled = chain_rollouts.sample(problems, REFERENCE_ROLLOUTS, derived_seed(seed, 4))
    rollouts = assemble([r for _, r in sampled], REFERENCE_ROLLOUTS)
    reward_G = rollouts.rewards.view(PROMPTS, REFERENCE_ROLLOUTS)
    reward_B = (reward_G - reward_G.mean(dim=1, keepdim=True)).flatten()
    reference_P = gradients(sampled, rollouts, reward_B[None, :, None].expand(1, *rollouts.mask.shape))[0]

    cosines, sum_EP, square_E = [], torch.zeros(()), torch.zeros(())
    for batch in range(batches):
        sampled = chain_rollouts.sample(problems, GROUP_SIZE, derived_seed(seed, 5, batch))
        rollouts = assemble([r for _, r in sampled], GROUP_SIZE)
        values = [torch.zeros(rollouts.mask.shape), *(token_values(e, rollouts) for e in estimators.values())]
        gradient_EP = gradients(sampled, rollouts, torch.stack(values) + rollouts.rollout_advantages.float()[:, None])
        cosines.append(F.cosine_similarity(gradient_EP, reference_P, dim=-1))
        sum_EP, square_E = sum_EP + gradient_EP, square_E + gradient_EP.double().square().sum(dim=-1)
    cosine_Eb = torch.stack(cosines, dim=1)
    mean_square_E = (sum_EP / batches).double().square().sum(dim=-1)
    noise_E = (square_E - batches * mean_square_E) / (batches - 1)
    snr_E = ((mean_square_E - noise_E / batches) / noise_E).tolist()
    return {
        name: {"cosine": [*_interval(cosine_b), *_interval(cosine_b - cosine_Eb[0])], "snr": [snr]}
        for name, cosine_b, snr in zip(["grpo", *estimators], cosine_Eb, snr_E, strict=True)
    }


def gradients(sampled: chain_rollouts.Sampled, rollouts: LabelledRollouts, advantage_EBT: Tensor) -> Tensor:
    """(E, P) gradients of the mean over rollouts of sum_t advantage_t log pi(o_t), for E advantages of each token."""
    parameters = list(load()[0].parameters())
    sums = [torch.zeros(len(advantage_EBT), p.numel()) for p in parameters]
    for first in range(0, len(sampled), chain_rollouts.BATCH):
        rows = slice(first, first + chain_rollouts.BATCH)
        weight_EK = advantage_EBT[:, rows][:, rollouts.mask[rows] != 0] / len(sampled)
        parts = torch.autograd.grad(log_probs(sampled[rows]), parameters, weight_EK, is_grads_batched=True)
        for total, part in zip(sums, parts, strict=True):
            total += part.flatten(1)
    return torch.cat(sums, dim=1)


def log_probs(sampled: chain_rollouts.Sampled) -> Tensor:
    """(K,) log-probabilities of the rollouts' tokens, the end token included, row by row, with their graph."""
    model, tokenizer = load()
    texts = [" ".join([problem.prompt, *r.words, *[tokenizer.eos_token] * r.ended]) for problem, r in sampled]
    # Padding on the right needs no attention mask: no token of a completion can see it.
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    start_B = torch.tensor([len(tokenizer(problem.prompt).input_ids) for problem, _ in sampled])
    after_BT = torch.arange(inputs.input_ids.shape[1]) >= start_B[:, None]
    chosen_BT = (after_BT & (inputs.attention_mask != 0))[:, 1:]
    hidden_BT = model.model(inputs.input_ids[:, :-1], use_cache=False).last_hidden_state
    logits_KV = model.lm_head(hidden_BT[chosen_BT])
    return -F.cross_entropy(logits_KV, inputs.input_ids[:, 1:][chosen_BT], reduction="none")


def _interval(values_b: Tensor) -> list[float]:
    mean, error = float(values_b.mean()), 1.96 * float(values_b.std()) / len(values_b) ** 0.5
    return [mean, mean - error, mean + error]
