"""Token advantages through TRL's own generation, scoring, loss and logging, on a tiny model."""

import inspect
import logging
import math
import sys
from collections import Counter
from functools import partial
from types import ModuleType

import pytest
import torch
from torch.nn.functional import log_softmax
from torch.nn.utils.rnn import pad_sequence

import ktae

pytest.importorskip("trl")

import pandas
import tiny
from datasets import Dataset
from tiny import IDS, RecordedGRPO, Recorder, build, expected, flat, has_a, key_values, replay, weights
from tiny import quick as quick  # a fixture
from trl import GRPOConfig, GRPOTrainer

from ktae.estimators import Rollouts
from ktae.integrations.metrics import measure
from ktae.integrations.trl import TokenAdvantageTrainer

pytestmark = tiny.WARNINGS

G = 6  # num_generations of `tiny.build`
LOSSES = ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo")
UNIFORM_AT_SEQUENCE_LEVEL = ("grpo", "dapo", "dr_grpo", "bnpo", "luspo", "sapo")


class RecordedToken(Recorder, TokenAdvantageTrainer):
    pass


def zero(rollouts):
    """An estimator that adds nothing."""
    return torch.zeros(rollouts.mask.shape)


def trained(trainer):
    trainer.train()
    return trainer


def assert_same(actual, wanted):
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-6)


def informative(key_NT):
    """Whether these values could tell a wrong computation from a right one."""
    return bool((key_NT > 0.4).any() and (key_NT < -0.1).any())


check = partial(tiny.check, size=G)


# What the advantages are


@pytest.mark.parametrize(
    ("settings", "config"),
    [
        ({"num_generations": 4, "scale_rewards": "none"}, {}),
        ({"num_generations": 3, "scale_rewards": "batch", "pad_to_multiple_of": 16}, {}),
        ({}, {"scale": 0.5, "exclude_token_ids": (IDS["b"],), "term_frequency_weight": 0.0, "correct_above": 0.5}),
        ({}, {"correct_above": 1.0}),
    ],
)
def test_advantages_are_those_of_the_public_function(tmp_path, settings, config):
    config = ktae.KTAEConfig(**config)
    trainer = trained(build(tmp_path, ktae=config, settings=settings | {"max_steps": 3}))
    assert len(trainer.rollouts) == 3
    assert any(IDS[tiny.PAD] in ids[:-1] for rollouts in trainer.rollouts for ids in rollouts.ids), "it counts inside"
    keys = [check(rollouts, size=settings.get("num_generations", G), config=config) for rollouts in trainer.rollouts]
    if config.correct_above == 1.0:  # nothing is correct
        assert not any(key.any() for key in keys)
    else:
        assert any(informative(key / config.scale) for key in keys)


@pytest.mark.parametrize("tools", [False, True])
def test_truncated_rollouts_count_in_the_tables_but_get_no_advantage(tmp_path, tools):
    """TRL zeroes their tool mask as well; which of their tokens are the model's is still known: the others never count.

    Through TRL's tool loop. The tool says "a b", words that the model says too.
    """
    settings = {"mask_truncated_completions": True, "max_steps": 4, "max_completion_length": 8 if tools else 6}
    trainer = trained(tool_trainer(tmp_path, **settings) if tools else build(tmp_path, settings=settings))
    mattered = outside = False
    for rollouts in trainer.rollouts:
        ended = torch.tensor([tiny.VOCABULARY[ids[-1]] in (tiny.EOS, tiny.STOP, tiny.PAD) for ids in rollouts.ids])
        assert not ended.all()
        counted = model_tokens(rollouts)
        key = check(rollouts, counted=counted)
        assert (rollouts.batch["advantages"][~ended] == 0).all()
        without = [[m * int(end) for m in mask] for mask, end in zip(counted, ended.tolist(), strict=True)]
        other = key_values(rollouts.ids, rollouts.rewards[:, 0], G, counted=without)
        mattered |= bool(((key - other)[ended].abs() > 0.1).any())
        outside |= any(0 in mask for mask in counted)
    assert (mattered, outside) == (True, tools)


# Other estimators

SEEN = []


def own(rollouts):
    """Needs all that a trainer can give, and keeps it."""
    [rollouts.require(name) for name in ("log_probs", "entropies", "states")]
    SEEN.append(rollouts)
    return rollouts.entropies - rollouts.log_probs + rollouts.states * rollouts.mask


def place(rollout):
    """The states of a rollout: the places of its tokens, after the length of its prompt."""
    assert len(rollout["mask"]) == len(rollout["token_ids"])
    return [100 * len(rollout["prompt"]) + place for place in range(len(rollout["token_ids"]))]


@pytest.mark.parametrize("settings", [{}, {"mask_truncated_completions": True, "max_completion_length": 6}])
def test_an_estimator_by_import_path_gets_the_policys_own(tmp_path, settings):
    """Log-probabilities and entropies are those of the start weights, by hand, for truncated rollouts as well."""
    trainer = build(tmp_path, RecordedToken, advantages="test_trl:own", states=place, settings=settings)
    SEEN.clear()  # of the trial before the run
    (rollouts,) = trained(trainer).rollouts
    (given,) = SEEN
    batch, mask = rollouts.batch, given.mask
    assert mask.sum(dim=1).tolist() == [len(ids) for ids in rollouts.ids]
    log_p = log_p_of(tiny.model(), batch, mask).detach()
    log_probs = log_p.gather(2, batch["completion_ids"][:, :, None]).squeeze(2) * mask
    entropies = -(log_p.exp() * log_p).sum(dim=2) * mask
    torch.testing.assert_close(given.log_probs, log_probs, rtol=0, atol=1e-5)
    torch.testing.assert_close(given.entropies, entropies, rtol=0, atol=1e-5)
    assert_same(given.rollout_advantages.float(), rollouts.rollout_advantages)
    for prompt, row, states in zip(rollouts.prompts, rollouts.ids, given.states.tolist(), strict=True):
        assert states[: len(row)] == [100 * len(prompt) + place for place in range(len(row))]
    assert_same(batch["advantages"], expected(rollouts, entropies - log_probs + given.states * mask))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ktae": {"scale": 8}}, TypeError, r"ktae must be a KTAEConfig, such as .* got \{'scale': 8\}"),
        ({"ktae": ktae.KTAEConfig}, TypeError, r"ktae must be a KTAEConfig, such as .* got <class"),
        ({"ktae": ktae.KTAEConfig(), "correct_above": 0.5}, ValueError, "correct_above must be that of .* got 0.5"),
        ({"advantages": "test_trl:no_such"}, ValueError, "test_trl has no function 'no_such'"),
        ({"advantages": 3}, TypeError, "estimator must be a KTAEConfig, a name, .* or a function of Rollouts, got 3"),
        ({"advantages": lambda rollouts: 3}, ValueError, r"lambda> fails .* must return a torch.Tensor, got int"),
        ({"advantages": own}, ValueError, "needs the rollouts' states, which .* does not give"),
        ({"reward_funcs": [has_a, zero]}, ValueError, r"correctness_reward must name .*\['has_a', 'zero'\].* got None"),
        ({"correctness_reward": "hasa"}, ValueError, r"one of the reward functions \['has_a'\], got 'hasa'"),
        ({"reward_funcs": [has_a] * 2, "correctness_reward": "has_a"}, ValueError, r"exactly one .*'has_a', 'has_a'\]"),
    ],
)
def test_mistakes_are_told_before_the_model_is_loaded(tmp_path, monkeypatch, arguments, error, message):
    monkeypatch.setattr(tiny, "model", lambda: tmp_path / "there is no model here")
    with pytest.raises(error, match=message):
        build(tmp_path, RecordedToken if "advantages" in arguments else tiny.RecordedKTAE, **arguments)


def test_off_policy_masks_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"off_policy_mask_threshold .* must be None, got 0\.5"):
        build(tmp_path, settings={"off_policy_mask_threshold": 0.5})


def test_unsloth_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "unsloth", ModuleType("unsloth"))
    with pytest.raises(RuntimeError, match=r"do not work with Unsloth.* Train without importing unsloth"):
        build(tmp_path)


# Rewards


def graded(completion_ids, **columns):
    """All above 0. TRL's rewards are float32, in which 0.1 is a little more than the float64 of the same name."""
    return [1.0 if IDS["a"] in ids else 0.1 for ids in completion_ids]


def has_a_unless_b(completion_ids, **columns):
    """Cannot score a completion that holds the word b."""
    return [None if IDS["b"] in ids else float(IDS["a"] in ids) for ids in completion_ids]


def length(completion_ids, **columns):
    return [len(ids) / 10 for ids in completion_ids]


def test_a_trap_is_named_once(tmp_path, caplog):
    trainer = build(tmp_path, reward_funcs=graded, settings={"max_steps": 6})
    with caplog.at_level(logging.WARNING, logger="ktae"):
        trainer.train()
    (message,) = [record.message for record in caplog.records if "no group has both" in record.message]
    assert "they lie in 0.1 to 1, and correct_above=0 splits no group; correct_above=0.55 would split" in message


@pytest.mark.parametrize("funcs", [[has_a_unless_b], [length, has_a_unless_b]])
def test_unscorable_rollouts(tmp_path, funcs):
    """They get no value, and the advantage that another function gives; the tables are those of the other rollouts."""
    settings = {"max_steps": 3}
    trainer = build(tmp_path, reward_funcs=funcs, correctness_reward="has_a_unless_b", settings=settings)
    keys = []
    for rollouts, logged in zip(trained(trainer).rollouts, trainer.state.log_history, strict=False):
        rewards = rollouts.rewards[:, -1]
        unscored = rewards.isnan()
        assert 0 < unscored.sum() < len(unscored)
        assert rollouts.rollout_advantages[unscored].any() == (len(funcs) > 1)
        keys.append(check(rollouts, rewards=rewards))
        assert not keys[-1][unscored].any()
        assert_logged(logged, metrics_of(rollouts, G, rewards=rewards))
    assert any(informative(key) for key in keys)


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
@pytest.mark.parametrize("funcs", [[graded, length], [length, graded]])
def test_the_named_reward_decides_with_its_raw_values(tmp_path, aggregation, funcs):
    """Weights and normalisation, which turn the correct rollouts' rewards negative here, do not matter.

    A reward equal to the threshold is not correct.
    """
    trainer = build(
        tmp_path,
        reward_funcs=funcs,
        correctness_reward="graded",
        ktae=ktae.KTAEConfig(correct_above=0.1),
        settings={"multi_objective_aggregation": aggregation, "reward_weights": [-1.0, -2.0], "max_steps": 2},
    )
    keys = [check(rollouts, rewards=torch.tensor(has_a(rollouts.ids))) for rollouts in trained(trainer).rollouts]
    assert any(informative(key) for key in keys)


# What the loss makes of the advantages


def token_weights(loss, mask):
    """How much each token's advantage-weighted log-probability counts in TRL's loss, at an importance ratio of 1."""
    rows, lengths = mask.shape[0], mask.sum(dim=1, keepdim=True)
    if loss in ("grpo", "sapo"):
        return mask / lengths / rows
    if loss in ("bnpo", "dapo", "cispo", "vespo"):
        return mask / mask.sum()
    return mask / (rows * tiny.LENGTH) if loss == "dr_grpo" else mask / rows  # luspo


def log_p_of(model, batch, mask):
    """(B, T, vocabulary)"""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], mask], dim=1)
    logits = model(input_ids=ids, attention_mask=attention).logits[:, -mask.shape[1] - 1 : -1]
    return log_softmax(logits, dim=-1)


def log_probs_of(model, batch):
    log_p = log_p_of(model, batch, batch["completion_mask"])
    return log_p.gather(2, batch["completion_ids"][:, :, None]).squeeze(2)


def assert_stepped(trainer, loss, key):
    """That the weights moved by the step of gradient descent that these values ask for, at rate 1."""
    (rollouts,), model = trainer.rollouts, tiny.model()
    counted = rollouts.batch["completion_mask"] * rollouts.batch.get("tool_mask", 1)
    advantages, log_probs = expected(rollouts, key), log_probs_of(model, rollouts.batch)
    objective = (token_weights(loss, counted) * advantages * log_probs).sum()
    step = flat(torch.autograd.grad(objective, list(model.parameters())))
    assert step.abs().max() > 0.01
    torch.testing.assert_close(weights(trainer) - flat(model.parameters()), step, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_weights_each_token_by_its_advantage(tmp_path, loss, level):
    """One step of gradient descent is the one computed by hand from the advantages, for every loss type.

    epsilon_high is what TRL recommends for CISPO, whose ratios it would cut to 0.2 otherwise.
    """
    settings = {"loss_type": loss, "importance_sampling_level": level, "learning_rate": 1.0, "epsilon_high": 5.0}
    trainer = trained(build(tmp_path, settings=settings))
    key = check(trainer.rollouts[0])
    assert informative(key)
    assert_stepped(trainer, loss, key)
    assert math.isfinite(trainer.state.log_history[0]["loss"])


@pytest.mark.parametrize("loss", LOSSES)
def test_without_values_training_is_grpo(tmp_path, loss):
    """An estimator that adds nothing gives bit for bit the weights of GRPOTrainer."""
    settings = {"loss_type": loss, "max_steps": 2, "optim": "adamw_torch", "learning_rate": 0.01}
    plain = weights(trained(build(tmp_path, RecordedGRPO, settings=settings)))
    assert torch.equal(plain, weights(trained(build(tmp_path, RecordedToken, advantages=zero, settings=settings))))
    assert (plain - flat(tiny.model().parameters())).abs().max() > 0.01


def test_microbatches_keep_each_completion_with_its_advantages(tmp_path):
    """TRL shuffles a generation, splits it into four microbatches and goes through them twice."""
    settings = {"per_device_train_batch_size": 3, "steps_per_generation": 4, "gradient_accumulation_steps": 2}
    settings |= {"num_iterations": 2, "num_generations": 4, "max_steps": 8}
    trainer = trained(build(tmp_path, settings=settings))
    assert (len(trainer.rollouts), len(trainer.microbatches)) == (2, 16)

    def rows(batch):
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")
        return list(zip(*(map(tuple, batch[name].tolist()) for name in names), strict=True))

    for generation, rollouts in enumerate(trainer.rollouts):
        check(rollouts, size=4)
        scored = rows(rollouts.batch)
        assert len({row[-1] for row in scored}) > 6
        for first in (generation * 8, generation * 8 + 4):
            used = [row for batch in trainer.microbatches[first : first + 4] for row in rows(batch)]
            assert Counter(used) == Counter(scored)
            assert used != scored


# Sequence-level importance ratios with token advantages (GSPO-token)


@pytest.fixture(scope="module")
def off_policy(tmp_path_factory):
    """A batch whose rollouts were sampled by another policy: some ratios are clipped."""
    (rollouts,) = trained(build(tmp_path_factory.mktemp("off_policy"))).rollouts
    batch, mask = rollouts.batch, rollouts.batch["completion_mask"]
    noise = 0.5 * torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    assert ((noise * mask).sum(dim=1) / mask.sum(dim=1)).abs().max() > 0.25, "a ratio beyond 0.8 to 1.2"
    batch["old_per_token_logps"] = (log_probs_of(tiny.model(), batch).detach() + noise) * mask
    return batch | {"num_items_in_batch": mask.sum()}


def loss_gradient(folder, trainer, batch, loss, **kwargs):
    """Of TRL's loss at the start weights."""
    settings = {"loss_type": loss, "importance_sampling_level": "sequence", "delta": 1.5}
    built = trained(build(folder, trainer, settings=settings, **kwargs))
    built.model.load_state_dict(tiny.model().state_dict())
    return flat(torch.autograd.grad(built._compute_loss(built.model, batch), list(built.model.parameters())))


@pytest.mark.parametrize("loss", UNIFORM_AT_SEQUENCE_LEVEL)
def test_equal_advantages_at_sequence_level_are_trls_gspo(tmp_path, off_policy, loss):
    """Which only has those of whole rollouts; what becomes of a single token's is tested above."""
    mask = off_policy["completion_mask"]
    advantages = torch.randn(len(mask), generator=torch.Generator().manual_seed(1))
    equal = off_policy | {"advantages": advantages[:, None].expand(mask.shape)}
    gspo = loss_gradient(tmp_path, RecordedGRPO, off_policy | {"advantages": advantages}, loss)
    assert gspo.abs().max() > 0.01
    token = loss_gradient(tmp_path, RecordedToken, equal, loss, advantages=zero)
    torch.testing.assert_close(token, gspo, rtol=1e-4, atol=1e-6)


# Evaluation


class LeftInTraining(tiny.RecordedKTAE):
    """Generation leaves the model in training mode, as TRL's own continuous batching does in an evaluation."""

    def _generate(self, prompts):
        generated = super()._generate(prompts)
        self.model.train()
        return generated


@pytest.mark.parametrize(
    ("group_size", "trainer"), [(3, tiny.RecordedKTAE), (1, tiny.RecordedKTAE), (3, LeftInTraining)]
)
def test_evaluation_has_its_own_group_size(tmp_path, group_size, trainer):
    settings = {"num_generations_eval": group_size, "per_device_eval_batch_size": 12}
    trainer = trained(build(tmp_path, trainer, eval_dataset=tiny.prompts(12 // group_size), settings=settings))
    metrics = trainer.evaluate()
    training, evaluated = trainer.rollouts
    check(training)
    key = check(evaluated, size=group_size)
    assert key.any() == (group_size > 1)
    assert not torch.equal(key, key_values(evaluated.ids, evaluated.rewards[:, 0], G))
    if not isinstance(trainer, LeftInTraining):
        assert {name for name in metrics if "ktae/" in name} == {f"eval_ktae/{name}" for name in METRICS}
        assert_logged(trainer.state.log_history[-1], metrics_of(evaluated, group_size), prefix="eval_ktae/")


# Tokens from outside the model


def look():
    """Reads the scale."""
    return "a b"


TEMPLATE = """
{%- for message in messages -%}
<{{ message.role }}> {{ message.content }} {% for call in message.tool_calls or [] %} <call> {{ call.function.name }} \
{{ call.function.arguments }} {% endfor %}{% if message.role == 'assistant' %} <eos> {% endif -%}
{%- endfor -%}
{%- if add_generation_prompt %} <assistant> {% endif -%}
"""


def tool_trainer(folder, **settings):
    """All after <call> up to the end of the turn calls `look`."""
    tokenizer, end = tiny.tokenizer(), "<eos>|<stop>|$"
    tokenizer.chat_template = TEMPLATE
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    calls = {"open_pattern": "<call>", "close_pattern": end, "repeats": True, "content": "text", "transform": call}
    tokenizer.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<assistant>",
        "fields": {"content": {"close_pattern": end, "content": "text"}, "tool_calls": calls},
    }
    chats = [[{"role": "user", "content": prompt}] for prompt in tiny.prompts()["prompt"]]
    return build(
        folder,
        reward_funcs=lambda completion_ids, **columns: [float(IDS["c"] in ids) for ids in completion_ids],
        settings={"max_completion_length": 16, "max_tool_calling_iterations": 1, "max_steps": 3} | settings,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": chats}),
        tools=[look],
    )


def model_tokens(rollouts):
    """1 for what the model generated, 0 for a tool's turn and the header after it, read off the ids."""
    turn = [IDS[word] for word in ("<tool>", "a", "b", "<assistant>")]
    masks = []
    for ids in rollouts.ids:
        mask = [1] * len(ids)
        for first in range(1, len(ids) - 3):
            if ids[first : first + 4] == turn and ids[first - 1] in (IDS[tiny.EOS], IDS[tiny.STOP]):
                mask[first : first + 4] = [0] * 4
        masks.append(mask)
    return masks


def test_environment_tokens_neither_count_nor_move_weights(tmp_path):
    """Through a rollout function's env_mask: b marks success for the model, the environment says it always."""
    a, b, c, end = (IDS[word] for word in ("a", "b", "c", tiny.EOS))
    ids = [[b, a, b, end], [b, a, b, a], [c, a, b], [c, b, c, c, end], [c, b, end], [c, end]] * 2
    mask = [[1, 1, 0, 1], [1, 1, 0, 1], [1, 1, 0], [1, 0, 1, 1, 1], [1, 0, 1], [1, 1]] * 2
    settings = {"learning_rate": 1.0, "loss_type": "dapo"}
    trainer = trained(build(tmp_path, rollout_func=replay([(ids, mask)]), settings=settings))
    (rollouts,) = trainer.rollouts
    key = check(rollouts, counted=mask)
    assert key[0, 0] > 0.5
    assert key[0, 2] == 0
    assert_logged(trainer.state.log_history[0], metrics_of(rollouts, G, counted=mask))
    assert_stepped(trainer, "dapo", key)


# What is logged

METRICS = {"key_token_share", "abs_value_correct", "abs_value_incorrect", "mixed_group_share", "value_ratio", "seconds"}


def metrics_of(rollouts, group_size, counted=None, rewards=None):
    """The metrics (test_credit.py has them by hand) of all rollouts; None where there is nothing to average."""
    rewards = rollouts.rewards[:, 0] if rewards is None else rewards
    key_NT = key_values(rollouts.ids, rewards, group_size, counted=counted)
    mask_NT = pad_sequence([torch.tensor(row) for row in counted or [[1] * len(ids) for ids in rollouts.ids]], True)
    groups = torch.arange(len(rewards)) // group_size
    given = Rollouts(torch.zeros_like(mask_NT), mask_NT, rewards, groups, rollouts.rollout_advantages)
    metrics = measure(key_NT, given, scale=1.0)
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}


def assert_logged(row, metrics, prefix="ktae/"):
    assert {name: row[prefix + name] for name in metrics} == pytest.approx(metrics, abs=1e-6)


def test_metrics_and_completions_table(tmp_path, capsys):
    """One row a rollout, with the rollout advantage and the mean key-token value as plain numbers."""
    settings = {"log_completions": True, "max_steps": 2, "num_completions_to_print": 3, "num_generations": 3}
    trainer = trained(build(tmp_path, settings=settings))
    assert "Advantage" in capsys.readouterr().out
    wanted = [metrics_of(rollouts, 3) for rollouts in trainer.rollouts]
    assert any(0 < row["mixed_group_share"] < 1 and 0 < row["key_token_share"] < 1 for row in wanted)
    for step, rollouts in enumerate(trainer.rollouts):
        row = trainer.state.log_history[step]
        assert {name for name in row if "ktae/" in name} == {f"ktae/{name}" for name in METRICS}
        assert_logged(row, wanted[step])
        assert row["ktae/seconds"] > 0
        table = pandas.read_parquet(tmp_path / "completions" / f"completions_{step + 1:05d}.parquet")
        assert len(table) == len(rollouts.ids) == 12
        assert table["advantage"].dtype == table["key_token_value"].dtype == "float64"
        assert table["advantage"].tolist() == rollouts.rollout_advantages.tolist()
        key = key_values(rollouts.ids, rollouts.rewards[:, 0], 3)
        means = [sum(row) / len(ids) for row, ids in zip(key.tolist(), rollouts.ids, strict=True)]
        assert any(abs(mean) > 0.1 for mean in means)
        assert table["key_token_value"].tolist() == pytest.approx(means, abs=1e-6)


# Other packages


def test_liger_replaces_layers_and_no_loss():
    """Liger's fused GRPO loss takes one advantage a rollout; TRL 1.16 has no way to switch it on."""
    assert "use_liger_kernel" in inspect.signature(GRPOConfig).parameters
    assert "use_liger_loss" not in inspect.signature(GRPOConfig).parameters
    assert "LigerFusedLinearGRPOLoss" not in inspect.getsource(inspect.getmodule(GRPOTrainer))
