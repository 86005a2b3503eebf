"""The replication experiment's own loop: its sampling against the model's forward pass."""

import random
from itertools import islice
from types import SimpleNamespace

import decode
import loop
import methods
import pytest
import tasks
import torch
import word_problems
from peft import LoraConfig, inject_adapter_in_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ktae.chain import problems as chain
from ktae.chain.model import CHECKPOINT
from ktae.estimators import Rollouts, token_values


def start():
    return AutoModelForCausalLM.from_pretrained(CHECKPOINT), AutoTokenizer.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def policy():
    return start()


def problems(n):
    return list(islice(chain.training_stream(random.Random(0)), n))


@pytest.mark.parametrize(("greedy", "temperature"), [(False, 1.0), (False, 0.6), (True, 1.0)])
def test_sampled_tokens_have_the_models_probabilities(policy, greedy, temperature):
    model, tokenizer = policy
    prompts = [tokenizer(problem.prompt)["input_ids"] for problem in problems(5)]
    assert len({len(prompt) for prompt in prompts}) > 1
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    how = {"generator": None if greedy else torch.Generator().manual_seed(0), "temperature": temperature}
    done = decode.sample(model, prompts, 4, 64, pad=pad, eos=eos, **how)
    assert len(done.mask) == 20
    for row in range(20):
        length = int(done.mask[row].sum())
        assert done.mask[row, :length].all()
        ids = done.token_ids[row, :length]
        assert (ids == eos).nonzero()[:, 0].tolist() in ([], [length - 1])
        assert (done.token_ids[row, length:] == pad).all()
        prompt = prompts[row // 4]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids.tolist()])).logits[0, len(prompt) - 1 : -1]
        logp = (logits / temperature).log_softmax(-1)
        found = done.log_probabilities[row, :length]
        torch.testing.assert_close(found, logp.gather(1, ids[:, None])[:, 0], atol=1e-4, rtol=0)
        entropies = -(logp.exp() * logp).sum(-1)
        torch.testing.assert_close(done.entropies[row, :length], entropies, atol=1e-4, rtol=0)
        if greedy:
            assert torch.equal(ids, logits.argmax(-1))


@pytest.mark.parametrize("name", ["grpo", "dapo+context"])
def test_a_run_is_repeatable_and_changes_the_model(name):
    settings = loop.Settings(
        dapo=name.startswith("dapo"), updates=2, prompts=2, group_size=4, evaluate_every=1,
        final_evaluations=1, final_rows=12, samples=2,
    )  # fmt: skip
    results, weights = [], []
    for _ in range(2):
        model, tokenizer = start()
        before = model.lm_head.weight.clone()
        results.append(loop.run(model, tokenizer, tasks.CHAIN, methods.method(name), settings, seed=3))
        weights.append(model.lm_head.weight)
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], before)
    assert all(results[0][name] == results[1][name] for name in ("final", "end"))
    assert results[0]["end"].keys() >= {"accuracy", "greedy_accuracy", "t06_accuracy", "pass_2", "maj_2", "entropy"}
    assert results[0]["end"]["pass_2"] >= results[0]["end"]["accuracy"]


def test_several_samples_of_a_problem_are_counted(monkeypatch):
    """Three problems of two samples: both right, one right, none right with the same wrong answer twice."""
    texts = ["ans 1", "ans 1", "ans 2", "ans 9", "ans 7", "ans 7"]
    task = tasks.Task(**{**vars(tasks.CHAIN), "reward": lambda p, t: float(t == f"ans {p}")})
    ones = torch.ones(6, 2)
    monkeypatch.setattr(loop, "_sample", lambda *_: decode.Completions(ones.long(), ones.bool(), ones, ones))
    words = SimpleNamespace(batch_decode=lambda ids, skip_special_tokens: texts)
    found = loop.evaluate(None, words, task, [1, 2, 3], samples=2)
    assert found == {"accuracy": 0.5, "length": 2.0, "entropy": 1.0, "pass_2": pytest.approx(2 / 3), "maj_2": 0.5}


def test_methods_add_to_the_rollout_advantages():
    ids_BT = torch.tensor([[5, 7, 1], [5, 9, 2], [5, 7, 2], [5, 9, 1], [3, 3, 3], [3, 4, 4]])
    outcomes = torch.tensor([1.0, 0, 1, 0, 1, 1]), torch.tensor([0, 0, 0, 0, 1, 1])
    rollouts = Rollouts(ids_BT, torch.ones_like(ids_BT), *outcomes)
    own = rollouts.rollout_advantages.float()
    for name, added in {"grpo": 0 * own, "grpo+x3": 2 * own, "grpo+positive": (own > 0).float()}.items():
        values_BT = token_values(methods.method(name), rollouts)
        torch.testing.assert_close(values_BT, added[:, None].expand(6, 3))
    value_BT = methods.method("grpo+context_in_share")(rollouts)
    value_T = value_BT[:4][value_BT[:4] != 0].double()
    torch.testing.assert_close(value_T.square().mean(), own[:4].double().square().mean(), atol=1e-6, rtol=0)
    assert not value_BT[4:].any()  # one outcome


def generated(policy, settings):
    """The arguments of `policy_loss` for sampled rollouts with random advantages."""
    model, tokenizer = policy
    generator = torch.Generator().manual_seed(1)
    batch, prompts, _ = loop.generate(model, tokenizer, tasks.CHAIN, iter(problems(50)), settings, generator)
    advantage_BT = torch.randn(batch.completions.mask.shape, generator=generator)
    return model, prompts, batch.completions, advantage_BT, torch.arange(len(prompts)), settings


@torch.no_grad()
def test_blame_for_one_token_and_parts_of_the_oracle():
    rollouts = SimpleNamespace(
        counted_BT=torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1]]).bool(),
        mixed_B=torch.tensor([True, True, True]),
        correct_B=torch.tensor([True, False, False]),
    )
    value_BT = torch.tensor([[-3.0, 1.0, 0.0], [-1.0, -1.0, -9.0], [2.0, 0.0, 0.5]])
    blamed_BT = methods.most_blamed(lambda rollouts: value_BT)(rollouts)
    assert blamed_BT.tolist() == [[0.0, 0.0, 0.0], [-0.5, -0.5, 0.0], [0.0, 0.0, 0.0]]
    batch = word_problems.rollouts(2, 8, 0)
    parts = [methods.METHODS[name](batch) for name in ("oracle_slips", "oracle_in_incorrect", "oracle_in_correct")]
    mended_BT = (methods.oracle(batch) < 0) & batch.correct_B[:, None]
    assert torch.equal(sum(parts), methods.oracle(batch).masked_fill(mended_BT, 0.0))
    assert all(part.any() for part in parts)


@pytest.mark.parametrize("dapo", [False, True])
def test_the_loss_is_trls(policy, dapo):
    """On the first update all ratios are 1: the loss is minus the advantages' mean, by rollout or by token."""
    arguments = generated(policy, loop.Settings(dapo=dapo, prompts=2, group_size=4, mini_batches=1))
    mask_BT, advantage_BT = arguments[2].mask, arguments[3]
    by_token = -advantage_BT[mask_BT].mean()
    by_rollout = -((advantage_BT * mask_BT).sum(1) / mask_BT.sum(1)).mean()
    wanted = by_token if dapo else by_rollout
    torch.testing.assert_close(loop.policy_loss(*arguments), wanted, atol=1e-4, rtol=1e-4)


def test_a_rollout_without_advantage_changes_nothing(policy):
    """Rows whose advantages are all 0 are not computed, and the others weigh as before."""
    arguments = generated(policy, loop.Settings(prompts=2, group_size=4, parts=2))
    model, advantage_BT = arguments[0], arguments[3]
    advantage_BT[3:] = 0
    advantage_BT[0] = torch.where(arguments[2].mask[0], 1e-30, 0.0)

    def gradient():
        model.zero_grad()
        loop.policy_loss(*arguments).backward()
        return model.lm_head.weight.grad.clone()

    without = gradient()
    advantage_BT[3:] = 1e-30
    torch.testing.assert_close(without, gradient())
    model.zero_grad(set_to_none=True)


def test_adapters_and_shared_heads_are_sampled_as_the_model_computes_them():
    config = LlamaConfig(
        vocab_size=50, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = inject_adapter_in_model(LoraConfig(r=2, target_modules="all-linear"), LlamaForCausalLM(config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    prompts = [[5, 6, 7], [8]]
    done = decode.sample(model, prompts, 2, 9, pad=0, eos=1, generator=torch.Generator().manual_seed(0))
    hidden_BT = loop.completion_states(model, [prompts[row // 2] for row in range(4)], done.token_ids)
    logp_BTV = model.lm_head(hidden_BT).log_softmax(-1)
    logp_BT = logp_BTV.gather(2, done.token_ids[..., None])[..., 0] * done.mask
    torch.testing.assert_close(done.log_probabilities, logp_BT, atol=1e-4, rtol=0)
    with torch.no_grad():
        ids = torch.tensor([prompts[0] + done.token_ids[0].tolist()])
        alone = model(ids).logits[0, 2:-1].log_softmax(-1)
    torch.testing.assert_close(alone, logp_BTV[0].detach(), atol=1e-4, rtol=0)
