"""KTAETrainer through TRL's own generation, scoring, loss and logging, on a tiny model."""

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.nn.functional import log_softmax, pad

import ktae

pytest.importorskip("trl")

import pandas
import tiny
from datasets import Dataset
from tiny import IDS, RecordedGRPO, RecordedKTAE, build, has_a, key_values, quick, replay  # noqa: F401 (a fixture)

pytestmark = [
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore:You are using 'rollout_func', which is an experimental feature:UserWarning"),
]

G = 6  # num_generations of `tiny.build`
LOSSES = ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo")
UNIFORM_AT_SEQUENCE_LEVEL = ("grpo", "dapo", "dr_grpo", "bnpo", "luspo", "sapo")


def trained(trainer):
    trainer.train()
    return trainer


def weights(trainer):
    return flat(trainer.model.parameters())


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def expected(rollouts, key_NT):
    """TRL's rollout advantage plus the key-token value, 0 where TRL's own mask is 0."""
    mask = rollouts.batch["completion_mask"]
    return (rollouts.rollout_advantages[:, None] + pad(key_NT, (0, mask.shape[1] - key_NT.shape[1]))) * mask


def assert_same(actual, wanted):
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-6)


def informative(key_NT):
    """Whether these values could tell a wrong computation from a right one."""
    return bool((key_NT > 0.4).any() and (key_NT < -0.1).any())


# What the advantages are


@pytest.mark.parametrize(
    ("settings", "config"),
    [
        ({}, {}),
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
    keys = []
    for rollouts in trainer.rollouts:
        assert len({len(ids) for ids in rollouts.ids}) > 1
        keys.append(key_values(rollouts.ids, rollouts.rewards[:, 0], settings.get("num_generations", G), config=config))
        assert_same(rollouts.batch["advantages"], expected(rollouts, keys[-1]))
    if config.correct_above == 1.0:  # nothing is correct
        assert not any(key.any() for key in keys)
    else:
        assert any(informative(key / config.scale) for key in keys)


def test_nothing_but_the_key_value_differs_from_grpo(tmp_path):
    plain, token_level = (trained(build(tmp_path, trainer)).rollouts[0] for trainer in (RecordedGRPO, RecordedKTAE))
    assert plain.prompts == token_level.prompts
    assert plain.ids == token_level.ids
    assert torch.equal(plain.rewards, token_level.rewards)
    assert plain.batch.keys() == token_level.batch.keys()
    for name in plain.batch.keys() - {"advantages"}:
        assert torch.equal(plain.batch[name], token_level.batch[name]), name

    mask = plain.batch["completion_mask"]
    assert plain.batch["advantages"].any()
    key = key_values(plain.ids, plain.rewards[:, 0], G)
    assert informative(key)
    assert_same(token_level.batch["advantages"] - plain.batch["advantages"][:, None] * mask, key * mask)


def test_generated_padding_tokens_count(tmp_path):
    """What counts is the length of a completion, not its ids: a model may well generate the padding token."""
    rollouts = trained(build(tmp_path, settings={"max_steps": 2})).rollouts
    inside = [IDS[tiny.PAD] in ids[:-1] for generation in rollouts for ids in generation.ids]
    assert any(inside)
    for generation in rollouts:
        key = key_values(generation.ids, generation.rewards[:, 0], G)
        assert_same(generation.batch["advantages"], expected(generation, key))


def test_truncated_rollouts_count_in_the_tables_but_get_no_advantage(tmp_path):
    settings = {"mask_truncated_completions": True, "max_steps": 4, "max_completion_length": 6}
    trainer = trained(build(tmp_path, settings=settings))
    mattered = False
    for rollouts in trainer.rollouts:
        ended = torch.tensor([tiny.VOCABULARY[ids[-1]] in (tiny.EOS, tiny.STOP, tiny.PAD) for ids in rollouts.ids])
        assert not ended.all()
        key = key_values(rollouts.ids, rollouts.rewards[:, 0], G)
        assert_same(rollouts.batch["advantages"], expected(rollouts, key))
        assert (rollouts.batch["advantages"][~ended] == 0).all()

        without = [[int(end)] * len(ids) for end, ids in zip(ended.tolist(), rollouts.ids, strict=True)]
        other = key_values(rollouts.ids, rollouts.rewards[:, 0], G, counted=without)
        mattered |= ((key - other)[ended].abs() > 0.1).any()
    assert mattered


# Rewards


def has_a_unless_b(completion_ids, **columns):
    """Cannot score a completion that holds the word b."""
    return [None if IDS["b"] in ids else float(IDS["a"] in ids) for ids in completion_ids]


def length(completion_ids, **columns):
    return [len(ids) / 10 for ids in completion_ids]


def test_unscorable_rollouts(tmp_path):
    """With a single reward function: no advantage at all, and the tables are those of the other rollouts."""
    trainer = trained(build(tmp_path, reward_funcs=has_a_unless_b, settings={"max_steps": 3}))
    left_keys = []
    for rollouts in trainer.rollouts:
        unscored = rollouts.rewards[:, 0].isnan()
        assert unscored.any()
        assert not unscored.all()
        advantages = rollouts.batch["advantages"]
        assert (advantages[unscored] == 0).all()
        assert_same(advantages, expected(rollouts, key_values(rollouts.ids, rollouts.rewards[:, 0], G)))

        left = (~unscored).nonzero().flatten()
        mask = rollouts.batch["completion_mask"][left]
        ids, rewards = rollouts.batch["completion_ids"][left], rollouts.rewards[left, 0]
        left_keys.append(ktae.key_token_values(ids, mask, rewards, left // G))
        assert_same(advantages[left], (rollouts.rollout_advantages[left, None] + left_keys[-1]) * mask)
    assert any(informative(key) for key in left_keys)
    for rollouts, logged in zip(trainer.rollouts, trainer.state.log_history, strict=False):
        assert_logged(logged, metrics_by_hand(rollouts, G))


def test_only_the_correctness_is_missing(tmp_path):
    """Another function scored the rollout: its advantage stays, the key-token value is 0."""
    funcs = [length, has_a_unless_b]
    trainer = trained(build(tmp_path, reward_funcs=funcs, correctness_reward="has_a_unless_b"))
    (rollouts,) = trainer.rollouts
    unscored = rollouts.rewards[:, 1].isnan()
    assert unscored.any()
    assert rollouts.rollout_advantages[unscored].any()
    wanted = (rollouts.rollout_advantages[:, None] * rollouts.batch["completion_mask"])[unscored]
    assert_same(rollouts.batch["advantages"][unscored], wanted)
    key = key_values(rollouts.ids, rollouts.rewards[:, 1], G)
    assert key.any()
    assert_same(rollouts.batch["advantages"], expected(rollouts, key))


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
@pytest.mark.parametrize("first", [True, False])
def test_the_named_reward_decides_with_its_raw_values(tmp_path, aggregation, first):
    """Weights and normalisation, which turn the correct rollouts' rewards negative here, do not matter."""

    def graded(completion_ids, **columns):
        return [0.25 if IDS["a"] in ids else 0.2 for ids in completion_ids]

    funcs = [graded, length] if first else [length, graded]
    settings = {"multi_objective_aggregation": aggregation, "reward_weights": [-1.0, -2.0], "max_steps": 2}
    config = ktae.KTAEConfig(correct_above=0.225)
    trainer = trained(build(tmp_path, reward_funcs=funcs, correctness_reward="graded", ktae=config, settings=settings))
    keys = []
    for rollouts in trainer.rollouts:
        correct = torch.tensor([float(IDS["a"] in ids) for ids in rollouts.ids])
        keys.append(key_values(rollouts.ids, correct, G))
        assert_same(rollouts.batch["advantages"], expected(rollouts, keys[-1]))
    assert any(informative(key) for key in keys)


@pytest.mark.parametrize("threshold", [0.1, 0.25, 0.7])
def test_a_reward_equal_to_the_threshold_is_not_correct(tmp_path, threshold):
    """TRL's rewards are float32, in which 0.1 is a little more than the float64 of the same name."""

    def graded(completion_ids, **columns):
        return [1.0 if IDS["a"] in ids else threshold for ids in completion_ids]

    trainer = trained(build(tmp_path, reward_funcs=graded, ktae=ktae.KTAEConfig(correct_above=threshold)))
    (rollouts,) = trainer.rollouts
    correct = torch.tensor([float(IDS["a"] in ids) for ids in rollouts.ids])
    key = key_values(rollouts.ids, correct, G)
    assert informative(key)
    assert_same(rollouts.batch["advantages"], expected(rollouts, key))
    assert trainer.state.log_history[0]["ktae/mixed_group_share"] == 1


@pytest.mark.parametrize("name", [None, "accuracy", "Length"])
def test_correctness_must_be_named(tmp_path, name):
    with pytest.raises(ValueError, match=rf"correctness_reward must name .*\['length', 'has_a'\].* got {name!r}"):
        build(tmp_path, reward_funcs=[length, has_a], correctness_reward=name)


def test_an_ambiguous_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"exactly one of the reward functions \['has_a', 'has_a'\], got 'has_a'"):
        build(tmp_path, reward_funcs=[has_a, has_a], correctness_reward="has_a")


def test_a_wrong_name_is_refused_for_a_single_function_too(tmp_path):
    with pytest.raises(ValueError, match=r"exactly one of the reward functions \['has_a'\], got 'length'"):
        build(tmp_path, correctness_reward="length")


# What the loss makes of the advantages


def token_weights(loss, mask):
    """How much each token's advantage-weighted log-probability counts in TRL's loss, at an importance ratio of 1."""
    rows, lengths = mask.shape[0], mask.sum(dim=1, keepdim=True)
    return {
        "grpo": mask / lengths / rows,
        "sapo": mask / lengths / rows,
        "bnpo": mask / mask.sum(),
        "dapo": mask / mask.sum(),
        "cispo": mask / mask.sum(),
        "vespo": mask / mask.sum(),
        "dr_grpo": mask / (rows * tiny.LENGTH),
        "luspo": mask / rows,
    }[loss]


def step_by_hand(batch, advantages, loss):
    """The start weights and the step of gradient descent that these token advantages ask for, at rate 1."""
    model = tiny.model()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    logits = model(input_ids=ids, attention_mask=attention).logits[:, -advantages.shape[1] - 1 : -1]
    log_probs = log_softmax(logits, dim=-1).gather(2, batch["completion_ids"][:, :, None]).squeeze(2)
    counted = batch["completion_mask"] * batch.get("tool_mask", 1)
    objective = (token_weights(loss, counted) * advantages * log_probs).sum()
    gradients = torch.autograd.grad(objective, list(model.parameters()))
    return flat(model.parameters()), flat(gradients)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_weights_each_token_by_its_advantage(tmp_path, loss):
    """One step of gradient descent is the one computed by hand from the advantages, for every loss type.

    epsilon_high is what TRL recommends for CISPO, whose ratios it would cut to 0.2 otherwise.
    """
    trainer = trained(build(tmp_path, settings={"loss_type": loss, "learning_rate": 1.0, "epsilon_high": 5.0}))
    (rollouts,) = trainer.rollouts
    key = key_values(rollouts.ids, rollouts.rewards[:, 0], G)
    assert informative(key)
    start, step = step_by_hand(rollouts.batch, expected(rollouts, key), loss)
    assert step.abs().max() > 0.01
    torch.testing.assert_close(weights(trainer) - start, step, rtol=1e-4, atol=1e-5)
    assert math.isfinite(trainer.state.log_history[0]["loss"])


@pytest.mark.parametrize("loss", LOSSES)
def test_without_the_key_value_training_is_grpo(tmp_path, loss):
    """scale=0 gives bit for bit the weights of GRPOTrainer, scale=1 gives others."""
    settings = {"loss_type": loss, "max_steps": 2, "optim": "adamw_torch", "learning_rate": 0.01}
    plain = weights(trained(build(tmp_path, RecordedGRPO, settings=settings)))
    zero = weights(trained(build(tmp_path, ktae=ktae.KTAEConfig(scale=0.0), settings=settings)))
    one = weights(trained(build(tmp_path, settings=settings)))
    start = flat(tiny.model().parameters())
    assert torch.equal(plain, zero)
    assert (plain - start).abs().max() > 0.01
    assert (plain - one).abs().max() > 0.001


def test_microbatches_keep_each_completion_with_its_advantages(tmp_path):
    """TRL shuffles a generation, splits it into four microbatches and goes through them twice."""
    settings = {
        "per_device_train_batch_size": 3,
        "steps_per_generation": 4,
        "gradient_accumulation_steps": 2,
        "num_iterations": 2,
        "num_generations": 4,
        "max_steps": 8,
    }
    trainer = trained(build(tmp_path, settings=settings))
    assert len(trainer.rollouts) == 2
    assert len(trainer.microbatches) == 16

    def rows(batch):
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")
        return list(zip(*(map(tuple, batch[name].tolist()) for name in names), strict=True))

    for generation, rollouts in enumerate(trainer.rollouts):
        key = key_values(rollouts.ids, rollouts.rewards[:, 0], 4)
        assert_same(rollouts.batch["advantages"], expected(rollouts, key))
        scored = rows(rollouts.batch)
        assert len({row[-1] for row in scored}) > 6
        for iteration in range(2):
            start = generation * 8 + iteration * 4
            used = [row for batch in trainer.microbatches[start : start + 4] for row in rows(batch)]
            assert Counter(used) == Counter(scored)
            assert used != scored


# Sequence-level importance sampling


class Spread(RecordedGRPO):
    """GRPO with advantages that differ from token to token; each rollout's mean is the rollout advantage."""

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        mask = batch["completion_mask"]
        wave = torch.arange(mask.shape[1]).cos().expand(mask.shape) * mask
        wave = (wave - wave.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)) * mask
        batch["advantages"] = batch["advantages"][:, None] + wave
        return batch


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss", LOSSES)
def test_where_trl_erases_token_credit(tmp_path, loss, level):
    """Not our code: the reason why six loss types are refused with importance_sampling_level="sequence".

    There, only the mean of a rollout's advantages reaches the gradient.
    """
    settings = {"loss_type": loss, "importance_sampling_level": level, "learning_rate": 1.0}
    difference = weights(trained(build(tmp_path, RecordedGRPO, settings=settings))) - weights(
        trained(build(tmp_path, Spread, settings=settings))
    )
    if level == "sequence" and loss in UNIFORM_AT_SEQUENCE_LEVEL:
        assert difference.abs().max() < 1e-5
    else:
        assert difference.abs().max() > 0.01


@pytest.mark.parametrize("loss", UNIFORM_AT_SEQUENCE_LEVEL)
def test_sequence_level_is_refused(tmp_path, loss):
    settings = {"loss_type": loss, "importance_sampling_level": "sequence"}
    with pytest.raises(ValueError, match=f'importance_sampling_level="sequence".*loss_type="{loss}".*"token"'):
        build(tmp_path, settings=settings)


@pytest.mark.parametrize("loss", ["cispo", "vespo"])
def test_sequence_level_is_allowed_where_tokens_keep_their_credit(tmp_path, loss):
    settings = {"loss_type": loss, "importance_sampling_level": "sequence", "learning_rate": 1.0}
    zero, one = (trained(build(tmp_path, ktae=ktae.KTAEConfig(scale=s), settings=settings)) for s in (0.0, 1.0))
    assert zero.rollouts[0].ids == one.rollouts[0].ids
    assert (weights(zero) - weights(one)).abs().max() > 0.01


def test_off_policy_mask_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"off_policy_mask_threshold .* must be None, got 0\.5"):
        build(tmp_path, settings={"off_policy_mask_threshold": 0.5})


# Evaluation


@pytest.mark.parametrize("group_size", [3, 1])
def test_evaluation_has_its_own_group_size(tmp_path, group_size):
    settings = {"num_generations_eval": group_size, "per_device_eval_batch_size": 6}
    trainer = trained(build(tmp_path, eval_dataset=tiny.prompts(12 // group_size), settings=settings))
    training = trainer.rollouts[0]
    assert_same(training.batch["advantages"], expected(training, key_values(training.ids, training.rewards[:, 0], G)))

    metrics = trainer.evaluate()
    evaluated = trainer.rollouts[1:]
    assert len(evaluated) == 2
    keys = [key_values(rollouts.ids, rollouts.rewards[:, 0], group_size) for rollouts in evaluated]
    for rollouts, key in zip(evaluated, keys, strict=True):
        assert_same(rollouts.batch["advantages"], expected(rollouts, key))
    assert any(key.any() for key in keys) == (group_size > 1)

    logged = trainer.state.log_history[-1]
    assert {name for name in logged if "ktae/" in name} == {f"eval_ktae/{name}" for name in METRICS}
    wanted = mean_of([metrics_by_hand(rollouts, group_size) for rollouts in evaluated])
    assert_logged(logged, wanted, prefix="eval_ktae/")
    assert_logged(metrics, wanted, prefix="eval_ktae/")


def test_generation_may_leave_the_model_in_training_mode(tmp_path):
    """As TRL's own continuous batching does in an evaluation, whose group size must be used all the same."""
    words = ["a c", "d c", "d e", "a e", "a e", "d c"]
    ids = [[IDS[word] for word in text.split()] for text in words]
    deliver = replay([ids + ids, ids])

    def rollout_func(prompts, trainer):
        rollouts = deliver(prompts, trainer)
        if not trainer.model.training:
            trainer.model.train()
        return rollouts

    settings = {"num_generations_eval": 3, "per_device_eval_batch_size": 6}
    trainer = build(tmp_path, eval_dataset=tiny.prompts(2), settings=settings, rollout_func=rollout_func)
    trainer.train()
    trainer.evaluate()
    rollouts = trainer.rollouts[1]
    key, other = (key_values(ids, rollouts.rewards[:, 0], size) for size in (3, 6))
    assert not torch.equal(key, other)
    assert_same(rollouts.batch["advantages"], expected(rollouts, key))


# Tokens from outside the model


def look():
    """Reads the scale."""
    return "a b"


def conversational(tokenizer):
    """The tokenizer with a chat template, in which all after <call> up to the end of the turn calls `look`."""
    tokenizer.chat_template = (
        "{%- for message in messages -%}"
        "<{{ message.role }}> {{ message.content }} "
        "{%- for call in message.tool_calls or [] %} <call> {{ call.function.name }} {{ call.function.arguments }} "
        "{%- endfor -%}"
        "{%- if message.role == 'assistant' %} <eos> {% endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt %} <assistant> {% endif -%}"
    )
    end = "<eos>|<stop>|$"
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    tokenizer.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<assistant>",
        "fields": {
            "content": {"close_pattern": end, "content": "text"},
            "tool_calls": {
                "open_pattern": "<call>",
                "close_pattern": end,
                "repeats": True,
                "content": "text",
                "transform": call,
            },
        },
    }
    return tokenizer


def tool_trainer(folder, **settings):
    chats = [[{"role": "user", "content": prompt}] for prompt in tiny.prompts()["prompt"]]

    def has_c(completion_ids, **columns):
        return [float(IDS["c"] in ids) for ids in completion_ids]

    return build(
        folder,
        reward_funcs=has_c,
        settings={"max_completion_length": 16, "max_tool_calling_iterations": 1, "max_steps": 3} | settings,
        processing_class=conversational(tiny.tokenizer()),
        train_dataset=Dataset.from_dict({"prompt": chats}),
        tools=[look],
    )


def model_tokens(rollouts):
    """1 for what the model generated, 0 for a tool's turn and the header after it, read off the ids."""
    turn = [IDS[word] for word in ("<tool>", "a", "b", "<assistant>")]
    masks = []
    for ids in rollouts.ids:
        mask = [1] * len(ids)
        for start in range(1, len(ids) - 3):
            if ids[start : start + 4] == turn and ids[start - 1] in (IDS[tiny.EOS], IDS[tiny.STOP]):
                mask[start : start + 4] = [0] * 4
        masks.append(mask)
    return masks


def test_tool_output_does_not_count(tmp_path):
    """Through TRL's tool loop. The tool says "a b", words that the model says too."""
    trainer = trained(tool_trainer(tmp_path))
    mattered = False
    for rollouts in trainer.rollouts:
        counted = model_tokens(rollouts)
        tools = rollouts.batch["tool_mask"]
        assert any(0 in mask for mask in counted)
        assert counted == [mask[: len(ids)] for mask, ids in zip(tools.tolist(), rollouts.ids, strict=True)]
        key = key_values(rollouts.ids, rollouts.rewards[:, 0], G, counted=counted)
        assert_same(rollouts.batch["advantages"] * tools, expected(rollouts, key) * tools)
        everything = key_values(rollouts.ids, rollouts.rewards[:, 0], G)
        mattered |= (((everything - key) * tools).abs() > 0.1).any()
    assert mattered


def test_environment_tokens_neither_count_nor_move_weights(tmp_path):
    """Through a rollout function's env_mask: b marks success for the model, the environment says it always."""
    a, b, c, end = (IDS[word] for word in ("a", "b", "c", tiny.EOS))
    ids = [[b, a, b, end], [b, a, b, a], [c, a, b], [c, b, c, c, end], [c, b, end], [c, end]] * 2
    mask = [[1, 1, 0, 1], [1, 1, 0, 1], [1, 1, 0], [1, 0, 1, 1, 1], [1, 0, 1], [1, 1]] * 2
    settings = {"learning_rate": 1.0, "loss_type": "dapo"}
    trainer = trained(build(tmp_path, rollout_func=replay([(ids, mask)]), settings=settings))
    (rollouts,) = trainer.rollouts
    assert rollouts.rewards[:, 0].tolist() == [1, 1, 1, 0, 0, 0] * 2
    key = key_values(ids, rollouts.rewards[:, 0], G, counted=mask)
    assert key[0, 0] > 0.5
    assert key[0, 2] == 0
    tools = rollouts.batch["tool_mask"]
    assert_same(rollouts.batch["advantages"] * tools, expected(rollouts, key) * tools)

    assert_logged(trainer.state.log_history[0], metrics_by_hand(rollouts, G, counted=mask))

    start, step = step_by_hand(rollouts.batch, expected(rollouts, key), "dapo")
    torch.testing.assert_close(weights(trainer) - start, step, rtol=1e-4, atol=1e-5)


def test_truncated_rollouts_with_tools_count_as_well(tmp_path):
    """TRL zeroes the tool mask of a truncated rollout too; which of its tokens are the model's is still known."""
    trainer = trained(tool_trainer(tmp_path, mask_truncated_completions=True, max_completion_length=8))
    mattered = False
    for rollouts in trainer.rollouts:
        ended = torch.tensor([tiny.VOCABULARY[ids[-1]] in (tiny.EOS, tiny.STOP, tiny.PAD) for ids in rollouts.ids])
        assert not ended.all()
        counted = model_tokens(rollouts)
        key = key_values(rollouts.ids, rollouts.rewards[:, 0], G, counted=counted)
        tools = rollouts.batch["tool_mask"]
        assert_same(rollouts.batch["advantages"] * tools, expected(rollouts, key) * tools)
        without = [[m * int(end) for m in mask] for mask, end in zip(counted, ended.tolist(), strict=True)]
        other = key_values(rollouts.ids, rollouts.rewards[:, 0], G, counted=without)
        mattered |= ((key - other)[ended].abs() > 0.1).any()
    assert mattered


# What is logged

METRICS = ("key_token_share", "abs_value_correct", "abs_value_incorrect", "mixed_group_share", "seconds")


def metrics_by_hand(rollouts, group_size, counted=None):
    """The metrics from plain lists; None where there is nothing to average."""
    rewards = rollouts.rewards[:, 0].tolist()
    correct = [None if math.isnan(reward) else reward > 0 for reward in rewards]
    counted = counted or [[1] * len(ids) for ids in rollouts.ids]
    values = key_values(rollouts.ids, rollouts.rewards[:, 0], group_size, counted=counted).abs().tolist()
    tokens = [
        (value, right)
        for row, mask, right in zip(values, counted, correct, strict=True)
        for value, counts in zip(row, mask, strict=False)
        if counts
    ]
    groups = [set(correct[start : start + group_size]) for start in range(0, len(correct), group_size)]

    def mean(numbers):
        numbers = list(numbers)
        return sum(numbers) / len(numbers) if numbers else None

    return {
        "key_token_share": mean(value > 0.5 for value, _ in tokens),
        "abs_value_correct": mean(value for value, right in tokens if right),
        "abs_value_incorrect": mean(value for value, right in tokens if right is False),
        "mixed_group_share": mean(group >= {True, False} for group in groups),
    }


def mean_of(metrics):
    columns = {name: [row[name] for row in metrics if row[name] is not None] for name in metrics[0]}
    return {name: sum(column) / len(column) if column else None for name, column in columns.items()}


def assert_logged(row, metrics, prefix="ktae/"):
    assert {name: row[prefix + name] for name in metrics} == pytest.approx(metrics, abs=1e-6)


@pytest.mark.parametrize("logging_steps", [1, 3])
def test_metrics(tmp_path, logging_steps):
    settings = {"max_steps": 3, "logging_steps": logging_steps, "num_generations": 3}
    trainer = trained(build(tmp_path, settings=settings))
    logged = [row for row in trainer.state.log_history if "loss" in row]
    assert len(logged) == 3 // logging_steps
    by_hand = [metrics_by_hand(rollouts, 3) for rollouts in trainer.rollouts]
    assert any(0 < row["mixed_group_share"] < 1 for row in by_hand)
    assert any(0 < row["key_token_share"] < 1 for row in by_hand)
    for index, row in enumerate(logged):
        wanted = mean_of(by_hand[index * logging_steps : (index + 1) * logging_steps])
        assert {name for name in row if "ktae/" in name} == {f"ktae/{name}" for name in METRICS}
        assert_logged(row, wanted)
        assert 0 < row["ktae/seconds"] < 10


def test_metrics_when_nothing_is_correct(tmp_path):
    def never(completion_ids, **columns):
        return [0.0] * len(completion_ids)

    logged = trained(build(tmp_path, reward_funcs=never)).state.log_history[0]
    assert logged["ktae/abs_value_correct"] is None
    assert logged["ktae/abs_value_incorrect"] == logged["ktae/key_token_share"] == 0
    assert logged["ktae/mixed_group_share"] == 0


def test_completions_table(tmp_path, capsys):
    """One row a rollout, with the rollout advantage and the mean key-token value as plain numbers."""
    settings = {"log_completions": True, "max_steps": 2, "num_completions_to_print": 3}
    trainer = trained(build(tmp_path, settings=settings))
    for step, rollouts in enumerate(trainer.rollouts, start=1):
        table = pandas.read_parquet(tmp_path / "completions" / f"completions_{step:05d}.parquet")
        assert len(table) == len(rollouts.ids) == 12
        assert table["advantage"].dtype == table["key_token_value"].dtype == "float64"
        assert table["advantage"].tolist() == rollouts.rollout_advantages.tolist()
        key = key_values(rollouts.ids, rollouts.rewards[:, 0], G)
        means = [sum(row) / len(ids) for row, ids in zip(key.tolist(), rollouts.ids, strict=True)]
        assert any(abs(mean) > 0.1 for mean in means)
        assert table["key_token_value"].tolist() == pytest.approx(means, abs=1e-6)
    assert "Advantage" in capsys.readouterr().out


# Other packages: each in an interpreter of its own


def python(code, *paths):
    paths = [*map(str, paths), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_unsloth_is_refused(tmp_path):
    package = tmp_path / "unsloth"
    package.mkdir()
    (package / "__init__.py").touch()
    code = f"""
import tiny
tiny.build({str(tmp_path)!r})
import unsloth
try:
    tiny.build({str(tmp_path)!r})
except RuntimeError as error:
    print(error)
"""
    message = python(code, tmp_path)
    assert "does not work with Unsloth" in message
    assert "each token would get another token's credit" in message
    assert "Train without importing unsloth" in message


def test_without_trl():
    """The core needs neither TRL nor transformers; the integration says what to install."""
    code = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "trl":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import ktae
print({"trl", "transformers", "datasets", "accelerate"} & sys.modules.keys())
try:
    import ktae.integrations.trl
except ImportError as error:
    print(error)
"""
    imported, message = python(code).splitlines()
    assert imported == "set()"
    assert 'pip install "ktae[train]"' in message
