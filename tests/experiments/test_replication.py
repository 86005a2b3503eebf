"""The replication experiment's own loop: its sampling against the model's forward pass, and its committed tables."""

import importlib
import random
import sys
from pathlib import Path

import pytest
import torch

from ktae.chain import problems as chain

FOLDER = Path(__file__).parents[2] / "experiments" / "replication"


@pytest.fixture
def experiment(monkeypatch):
    """Imports a module of the experiment."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = [path.stem for path in FOLDER.glob("*.py")]
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def policy():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ktae.chain.model import CHECKPOINT

    return AutoModelForCausalLM.from_pretrained(CHECKPOINT), AutoTokenizer.from_pretrained(CHECKPOINT)


def problems(n):
    stream = chain.training_stream(random.Random(0))
    return [next(stream) for _ in range(n)]


@pytest.mark.parametrize("greedy", [False, True])
def test_sampled_tokens_have_the_models_probabilities(experiment, policy, greedy):
    model, tokenizer = policy
    prompts = [tokenizer(problem.prompt)["input_ids"] for problem in problems(5)]
    assert len({len(prompt) for prompt in prompts}) > 1
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    generator = None if greedy else torch.Generator().manual_seed(0)
    done = experiment("decode").sample(model, prompts, 4, 64, pad=pad, eos=eos, generator=generator)
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
        logp = logits.log_softmax(-1)
        torch.testing.assert_close(
            done.log_probabilities[row, :length], logp.gather(1, ids[:, None])[:, 0], atol=1e-4, rtol=0
        )
        entropies = -(logp.exp() * logp).sum(-1)
        torch.testing.assert_close(done.entropies[row, :length], entropies, atol=1e-4, rtol=0)
        if greedy:
            assert torch.equal(ids, logits.argmax(-1))


@pytest.mark.parametrize("name", ["grpo", "dapo+context"])
def test_a_run_is_repeatable_and_changes_the_model(experiment, name):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ktae.chain.model import CHECKPOINT

    loop, tasks, methods = (experiment(module) for module in ("loop", "tasks", "methods"))
    settings = loop.Settings(
        dapo=name.startswith("dapo"), updates=2, prompts=2, group_size=4, evaluate_every=1,
        final_evaluations=1, final_rows=12, samples=2,
    )  # fmt: skip
    task = tasks.CHAIN
    results, weights = [], []
    for _ in range(2):
        model = AutoModelForCausalLM.from_pretrained(CHECKPOINT)
        tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
        before = model.lm_head.weight.clone()
        results.append(loop.run(model, tokenizer, task, methods.method(name), settings, seed=3))
        weights.append(model.lm_head.weight)
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], before)
    assert results[0]["final"] == results[1]["final"]
    assert results[0]["end"] == results[1]["end"]
    assert results[0]["end"].keys() >= {"accuracy", "greedy_accuracy", "t06_accuracy", "pass_2", "maj_2", "entropy"}
    assert results[0]["end"]["pass_2"] >= results[0]["end"]["accuracy"]


def test_colder_samples_have_the_probabilities_of_that_temperature(experiment, policy):
    model, tokenizer = policy
    prompt = tokenizer(problems(1)[0].prompt)["input_ids"]
    generator = torch.Generator().manual_seed(0)
    done = experiment("decode").sample(
        model, [prompt], 4, 64, pad=tokenizer.pad_token_id, eos=tokenizer.eos_token_id, generator=generator,
        temperature=0.6,
    )  # fmt: skip
    ids = done.token_ids[0, done.mask[0]]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids.tolist()])).logits[0, len(prompt) - 1 : -1]
    logp = (logits / 0.6).log_softmax(-1).gather(1, ids[:, None])[:, 0]
    torch.testing.assert_close(done.log_probabilities[0, done.mask[0]], logp, atol=1e-4, rtol=0)


def test_several_samples_of_a_problem_are_counted(experiment, policy, monkeypatch):
    """Three problems of two samples: both right, one right, none right with the same wrong answer twice."""
    loop, tasks = experiment("loop"), experiment("tasks")
    decode = experiment("decode")
    texts = ["ans 1", "ans 1", "ans 2", "ans 9", "ans 7", "ans 7"]
    task = tasks.Task(**{**vars(tasks.CHAIN), "reward": lambda p, t: float(t == f"ans {p}")})
    ones = torch.ones(6, 2)
    monkeypatch.setattr(loop, "_sample", lambda *_: decode.Completions(ones.long(), ones.bool(), ones, ones))

    class Texts:
        def batch_decode(self, ids, skip_special_tokens):
            return texts

    found = loop.evaluate(None, Texts(), task, [1, 2, 3], samples=2)
    assert found == {"accuracy": 0.5, "length": 2.0, "entropy": 1.0, "pass_2": pytest.approx(2 / 3), "maj_2": 0.5}


@pytest.mark.parametrize("name", ["grpo", "grpo+x3", "grpo+positive", "grpo+surprise", "grpo+context_in_share"])
def test_methods_add_to_the_rollout_advantages(experiment, name):
    from ktae.estimators import Rollouts, token_values

    ids = torch.tensor([[5, 7, 1], [5, 9, 1]])
    rollouts = Rollouts(ids, torch.ones_like(ids), torch.tensor([1.0, 0.0]), torch.zeros(2).long(), entropies=ids / 9)
    values_BT = token_values(experiment("methods").method(name), rollouts)
    twice = 2 * rollouts.rollout_advantages[0].item()
    of_rows = {"grpo": (0.0, 0.0), "grpo+x3": (twice, -twice), "grpo+positive": (1.0, 0.0)}
    if name in of_rows:
        torch.testing.assert_close(values_BT, torch.tensor(of_rows[name])[:, None].expand(2, 3))


def test_the_loss_is_trls(experiment, policy):
    """On the first update all ratios are 1: the loss is minus the advantages' mean, by rollout or by token."""
    model, tokenizer = policy
    loop, tasks = experiment("loop"), experiment("tasks")
    for dapo in (False, True):
        settings = loop.Settings(dapo=dapo, prompts=2, group_size=4, mini_batches=1)
        generator = torch.Generator().manual_seed(1)
        batch, prompts, _ = loop.generate(model, tokenizer, tasks.CHAIN, iter(problems(50)), settings, generator)
        mask_BT = batch.completions.mask
        advantage_BT = torch.randn(mask_BT.shape, generator=generator)
        with torch.no_grad():
            loss = loop.policy_loss(
                model, prompts, batch.completions, advantage_BT, torch.arange(len(prompts)), settings
            )
        by_token = -advantage_BT[mask_BT].mean()
        by_rollout = -((advantage_BT * mask_BT).sum(1) / mask_BT.sum(1)).mean()
        torch.testing.assert_close(loss, by_token if dapo else by_rollout, atol=1e-4, rtol=1e-4)


def test_a_rollout_without_advantage_changes_nothing(experiment, policy):
    """Rows whose advantages are all 0 are not computed, and the others weigh as before."""
    model, tokenizer = policy
    loop, tasks = experiment("loop"), experiment("tasks")
    settings = loop.Settings(prompts=2, group_size=4, parts=2)
    generator = torch.Generator().manual_seed(1)
    batch, prompts, _ = loop.generate(model, tokenizer, tasks.CHAIN, iter(problems(50)), settings, generator)
    advantage_BT = torch.randn(batch.completions.mask.shape, generator=generator)
    advantage_BT[3:] = 0
    advantage_BT[0] = torch.where(batch.completions.mask[0], 1e-30, 0.0)
    rows = torch.arange(len(prompts))

    def gradient():
        model.zero_grad()
        loop.policy_loss(model, prompts, batch.completions, advantage_BT, rows, settings).backward()
        return model.lm_head.weight.grad.clone()

    without = gradient()
    advantage_BT[3:] = 1e-30
    torch.testing.assert_close(without, gradient())
    model.zero_grad(set_to_none=True)


def test_values_in_share_have_the_size_of_the_rollout_advantages(experiment):
    from ktae.estimators import Rollouts

    methods = experiment("methods")
    ids_BT = torch.tensor([[5, 7, 1], [5, 9, 2], [5, 7, 2], [5, 9, 1], [3, 3, 3], [3, 4, 4]])
    rollouts = Rollouts(
        ids_BT, torch.ones_like(ids_BT), torch.tensor([1.0, 0, 1, 0, 1, 1]), torch.tensor([0, 0, 0, 0, 1, 1])
    )
    value_BT = methods.method("grpo+context_in_share")(rollouts)
    at_BT = value_BT[:4] != 0
    rms = rollouts.rollout_advantages[:4].double().square().mean().sqrt()
    torch.testing.assert_close(value_BT[:4][at_BT].double().square().mean().sqrt(), rms, atol=1e-6, rtol=0)
    assert not value_BT[4:].any()  # one outcome


def test_adapters_and_shared_heads_are_sampled_as_the_model_computes_them(experiment):
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import LlamaConfig, LlamaForCausalLM

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
    done = experiment("decode").sample(model, prompts, 2, 9, pad=0, eos=1, generator=torch.Generator().manual_seed(0))
    hidden_BT = experiment("loop").completion_states(model, [prompts[row // 2] for row in range(4)], done.token_ids)
    logp_BTV = model.lm_head(hidden_BT).log_softmax(-1)
    logp_BT = logp_BTV.gather(2, done.token_ids[..., None])[..., 0] * done.mask
    torch.testing.assert_close(done.log_probabilities, logp_BT, atol=1e-4, rtol=0)
    with torch.no_grad():
        ids = torch.tensor([prompts[0] + done.token_ids[0].tolist()])
        alone = model(ids).logits[0, 2:-1].log_softmax(-1)
    torch.testing.assert_close(alone, logp_BTV[0].detach(), atol=1e-4, rtol=0)


def test_the_tuned_cell_is_the_best_and_the_rest_of_the_plan_waits_for_it(experiment):
    plan = experiment("plan")
    done = {}
    while runs := [run for run in plan.missing(done) if run.seed in plan.TUNING_SEEDS and run.task == "chain"]:
        assert all(run.seed not in plan.SEEDS for run in plan.missing(done))
        for run in runs:
            cell = run.settings["learning_rate"], run.settings["scale"]
            done[run.key] = {"final": {"greedy_accuracy": {(4e-4, 1.0): 0.6, (4e-4, 2.0): 0.7}.get(cell, 0.5)}}
    assert len(done) == len(plan.TUNED) * 6 * len(plan.TUNING_SEEDS)
    assert plan.tuned(done)["grpo+context"] == {"learning_rate": 4e-4, "scale": 2.0}
    assert plan.tuned(done)["grpo+oracle"] == {"learning_rate": 4e-4}
    following = [run for run in plan.missing(done) if run.task == "chain" and run.seed in plan.SEEDS]
    extra = len(plan.SEEDS) * (len(plan.BEYOND) + len(plan.BLAME)) + len(plan.EXTRA_SEEDS) * len(plan.EXTRA)
    assert len(following) == len(plan.SEEDS) * len(plan.METHODS) + extra


def test_the_committed_tables_are_those_of_the_committed_runs(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["predicts.py"])
    for name in ("runs.jsonl", "first_runs.jsonl", "measured.jsonl"):
        (tmp_path / name).write_text((FOLDER / name).read_text())
    for script in (experiment("tables"), experiment("predicts")):
        monkeypatch.setattr(script, "HERE", tmp_path)
        script.main()
    for name in ("tables.md", "first_tables.md", "predicts.md"):
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text()
