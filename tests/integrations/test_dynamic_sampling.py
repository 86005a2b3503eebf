"""DAPO's dynamic sampling, through TRL's own trainer."""

import itertools
import logging
import os

import pytest
import tiny
import torch
from tiny import IDS, Recorder, quick  # noqa: F401 (quick is a fixture)

from ktae.integrations.trl import KTAETrainer
from ktae.integrations.trl_dynamic_sampling import DynamicSamplingTrainer

pytestmark = tiny.WARNINGS

A, B, C, EOS = IDS["a"], IDS["b"], IDS["c"], IDS["<eos>"]
RIGHT, WRONG = [A, EOS], [B, C, EOS]
MIXED, SOLVED, FAILED = [RIGHT, WRONG, WRONG], [RIGHT] * 3, [WRONG] * 3


class Dynamic(Recorder, KTAETrainer, DynamicSamplingTrainer):
    pass


def build(folder, outcomes=None, settings=None, **kwargs):
    """Batches of two groups of three; `outcomes`: one list of groups a round of generation."""
    if outcomes is not None:
        kwargs["rollout_func"] = tiny.replay([list(itertools.chain(*groups)) for groups in outcomes])
    two = {"per_device_train_batch_size": 6, "num_generations": 3}
    return tiny.build(folder, Dynamic, settings=two | (settings or {}), **kwargs)


def trained(*arguments, **kwargs):
    trainer = build(*arguments, **kwargs)
    trainer.train()
    return trainer


def metric(trainer, name):
    return [row[f"dynamic_sampling/{name}"] for row in trainer.state.log_history if f"dynamic_sampling/{name}" in row]


def test_groups_without_variance_are_replaced(tmp_path):
    other = [WRONG, RIGHT, RIGHT]
    trainer = trained(tmp_path, [[SOLVED, MIXED], [FAILED, FAILED], [other, SOLVED]])
    (rollouts,) = trainer.rollouts
    assert rollouts.ids == [*MIXED, *other]
    assert rollouts.rewards[:, 0].tolist() == [1, 0, 0, 0, 1, 1]
    assert len(set(rollouts.prompts)) == 2
    assert rollouts.batch["completion_ids"][3].tolist() == WRONG
    names = ("rounds", "dropped_groups", "filled_groups")
    assert [metric(trainer, name) for name in names] == [[3.0], [4.0], [0.0]]
    assert metric(trainer, "reward") == [pytest.approx((3 + 1 + 0 + 0 + 2 + 3) / 18)]
    rewards = rollouts.rewards.view(2, 3)
    wanted = (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std(dim=1, keepdim=True) + 1e-4)
    torch.testing.assert_close(rollouts.rollout_advantages.view(2, 3), wanted)
    assert list(trainer._logs["prompt"]) == rollouts.prompts
    assert tiny.check(rollouts, 3).any()


def test_prompts_go_with_their_completions(tmp_path):
    """Sampled by the model: each kept row's reward is that of its own prompt and completion."""
    seen = {}

    def parity(prompts, completions, completion_ids, **columns):
        rewards = [float((len(ids) + len(prompt)) % 2) for ids, prompt in zip(completion_ids, prompts, strict=True)]
        for prompt, ids, reward in zip(prompts, completion_ids, rewards, strict=True):
            seen[prompt, tuple(ids)] = reward
        return rewards

    trainer = trained(tmp_path, reward_funcs=parity, settings={"max_steps": 6})
    assert len(trainer.rollouts) == 6
    assert max(metric(trainer, "rounds")) > 1
    for rollouts in trainer.rollouts:
        for prompt, ids, reward in zip(rollouts.prompts, rollouts.ids, rollouts.rewards[:, 0].tolist(), strict=True):
            assert seen[prompt, tuple(ids)] == reward
        groups = [rollouts.prompts[start : start + 3] for start in (0, 3)]
        assert all(len(set(group)) == 1 for group in groups)
        assert groups[0] != groups[1], "no problem twice"
        assert (rollouts.rewards.view(2, 3).std(dim=1) > 0).all()


def test_a_further_round_asks_for_as_many_problems_as_seem_necessary(tmp_path):
    asked = []

    def outcomes(prompts, trainer):
        asked.append(len(prompts) // 3)
        groups = [MIXED, MIXED, MIXED, SOLVED] if len(asked) == 1 else [MIXED] * asked[-1]
        return tiny.generated(trainer, prompts, list(itertools.chain(*groups)))

    trainer = trained(tmp_path, rollout_func=outcomes, settings={"per_device_train_batch_size": 12})
    assert asked == [4, 2], "one group is missing, three of four were mixed"
    assert len(trainer.rollouts[0].ids) == 12


def test_further_problems_are_new_ones_and_the_same_for_the_same_seed_and_step(tmp_path):
    outcomes = [[FAILED, FAILED]] * 3 + [[MIXED, MIXED]]
    asked = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        prompts: list[str] = []
        replay = tiny.replay([list(itertools.chain(*groups)) for groups in outcomes])

        def note(batch, trainer, prompts=prompts, replay=replay):
            prompts += batch[::3]
            return replay(batch, trainer)

        trained(tmp_path / folder, rollout_func=note, settings={"seed": seed})
        assert len(set(prompts)) == len(prompts) == 8
        asked.append(prompts)
    assert asked[0] == asked[1]
    assert asked[0][2:] != asked[2][2:]


def test_short_batches_are_filled(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="ktae"):
        trainer = trained(tmp_path, [[SOLVED, FAILED], [FAILED, MIXED]], max_generation_rounds=2)
    assert trainer.rollouts[0].ids == [*MIXED, *SOLVED]
    assert (metric(trainer, "filled_groups"), metric(trainer, "dropped_groups")) == ([1.0], [2.0])
    assert trainer.rollouts[0].rollout_advantages[3:].tolist() == [0, 0, 0]
    assert "1 of 2 groups are still without reward variance after 2 rounds" in caplog.text
    trainer = trained(tmp_path, [[FAILED, FAILED], [FAILED]], train_dataset=tiny.prompts(3))  # which runs out
    assert (metric(trainer, "rounds"), metric(trainer, "filled_groups")) == ([2.0], [2.0])


def test_only_correctness_makes_a_group_informative(tmp_path):
    """A length penalty varies where the answers are all right; unscored rollouts say nothing."""

    def penalty(completion_ids, **columns):
        return [-len(ids) / 10 for ids in completion_ids]

    def correct(completion_ids, **columns):
        return [None if ids[0] == C else float(A in ids) for ids in completion_ids]

    longer = [[A, EOS], [A, B, EOS], [A, B, B, EOS]]
    unscored = [[C, EOS], [C, C, EOS], RIGHT]
    rewards = {"reward_funcs": [correct, penalty], "correctness_reward": "correct"}
    trainer = trained(tmp_path, [[longer, unscored], [MIXED, MIXED]], **rewards)
    assert trainer.rollouts[0].ids == [*MIXED, *MIXED]


def test_logged_columns_and_environment_masks_stay_with_their_rollouts(tmp_path):
    def correct(completion_ids, log_extra, log_metric, **columns):
        log_extra("length", [len(ids) for ids in completion_ids])
        log_metric("calls", 1.0)
        return tiny.has_a(completion_ids)

    masks = [[0, 1], [1, 0, 1], [1, 1, 1]]
    rounds = [
        ([*SOLVED, *MIXED], [[1] * len(ids) for ids in SOLVED] + masks),
        ([*MIXED, *FAILED], masks + [[1] * len(ids) for ids in FAILED]),
    ]
    trainer = trained(tmp_path, reward_funcs=correct, rollout_func=tiny.replay(rounds))
    assert list(trainer._logs["extra"]["length"]) == [len(ids) for ids in [*MIXED, *MIXED]]
    kept = trainer.rollouts[0].batch["tool_mask"].tolist()
    assert [row[: len(mask)] for row, mask in zip(kept, masks + masks, strict=True)] == masks + masks


def test_evaluation_samples_once(tmp_path):
    settings = {"per_device_eval_batch_size": 6}
    trainer = build(tmp_path, [[FAILED, SOLVED]], settings=settings, eval_dataset=tiny.prompts(2))
    trainer.evaluate()
    assert trainer.rollouts[0].ids == [*FAILED, *SOLVED]


def test_resumed_draws_what_it_would_have_drawn(tmp_path):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}
    whole = trained(tmp_path / "whole", settings=settings)
    assert max(metric(whole, "rounds")) > 1
    resumed = build(tmp_path / "resumed", settings=settings)
    resumed.train(resume_from_checkpoint=os.fspath(tmp_path / "whole" / "checkpoint-2"))
    assert [r.prompts for r in resumed.rollouts] == [r.prompts for r in whole.rollouts[2:]]
    assert [r.ids for r in resumed.rollouts] == [r.ids for r in whole.rollouts[2:]]
    assert torch.equal(tiny.weights(whole), tiny.weights(resumed))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_generation_rounds": 0}, "max_generation_rounds must be at least 1, got 0"),
        ({"train_dataset": tiny.prompts().to_iterable_dataset()}, "train_dataset must not be iterable"),
    ],
)
def test_errors(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **arguments)
