"""Gradient fidelity: its gradients against plain autograd, its summaries against loops."""

import pytest
import torch

from ktae.bench import chain_rollouts, fidelity
from ktae.bench.labelled import assemble
from ktae.chain.model import load
from ktae.chain.problems import Problem


@pytest.fixture(scope="module")
def sampled():
    prompts = "53 S1 +5 S2 *9 S3 -4 S4 +1 ?", "5 S1 *2 S2 -3 S3 +9 S4 -1 S5 *5 ?"
    return chain_rollouts.sample([Problem.from_prompt(prompt) for prompt in prompts], 3, seed=1)


def test_log_probabilities_are_those_of_each_rollout_alone(sampled):
    model, tokenizer = load()
    expected = []
    for problem, r in sampled:
        text = " ".join([problem.prompt, *r.words]) + (" <eos>" if r.ended else "")
        ids = tokenizer(text, return_tensors="pt").input_ids
        start = len(tokenizer(problem.prompt).input_ids)
        with torch.no_grad():
            logp = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
        expected += logp.gather(1, ids[0, start:, None])[:, 0].tolist()
    assert fidelity.log_probs(sampled).tolist() == pytest.approx(expected, abs=1e-4)


def test_gradients_are_autograds_of_each_estimators_objective(sampled, monkeypatch):
    rollouts = assemble([r for _, r in sampled], 3)
    advantage_EBT = torch.randn(2, *rollouts.mask.shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(chain_rollouts, "BATCH", 4)  # two parts
    got = fidelity.gradients(sampled, rollouts, advantage_EBT)
    for advantage_BT, gradient_P in zip(advantage_EBT, got, strict=True):
        objective = (advantage_BT[rollouts.mask] * fidelity.log_probs(sampled)).sum() / len(sampled)
        expected = torch.autograd.grad(objective, list(load()[0].parameters()))
        torch.testing.assert_close(gradient_P, torch.cat([g.flatten() for g in expected]), rtol=1e-3, atol=1e-5)


def test_summaries_over_batches(monkeypatch):
    """Made-up gradients: a reference along x, then two batches of GRPO's and of an estimator's."""
    found = iter([[[1.0, 0.0]], [[3.0, 4.0], [1.0, 0.0]], [[3.0, -4.0], [1.0, 0.5]]])
    monkeypatch.setattr(fidelity, "gradients", lambda *_: torch.tensor(next(found)))
    monkeypatch.setattr(fidelity, "REFERENCE_ROLLOUTS", 2)
    monkeypatch.setattr(fidelity, "GROUP_SIZE", 2)
    got = fidelity.fidelity({"mine": lambda r: torch.zeros(r.mask.shape)}, 2, seed=0)
    assert got["grpo"]["cosine"][:4] == pytest.approx([0.6, 0.6, 0.6, 0.0])
    second = 1 / 1.25**0.5
    assert got["mine"]["cosine"][0] == pytest.approx((1 + second) / 2)
    assert got["mine"]["cosine"][3] == pytest.approx((1 + second) / 2 - 0.6)
    assert got["grpo"]["snr"] == pytest.approx([(9 - 32 / 2) / 32])  # variance 32 around (3, 0)
    assert got["mine"]["snr"] == pytest.approx([(1 + 0.0625 - 0.125 / 2) / 0.125])
