"""What `ktae train` adds to TRL's trainer: strict rewards, checked losses, marked checkpoints, phases."""

import math

import pytest
import tiny
import torch
from safetensors.torch import load_file
from tiny import IDS, Recorder, quick  # noqa: F401 (quick is a fixture)
from transformers import TrainerCallback
from trl.rewards import get_soft_overlong_punishment

from ktae.integrations.trl import KTAETrainer
from ktae.train.folder import COMPLETE, newest
from ktae.train.trainer import RunTrainer

pytestmark = tiny.WARNINGS

A, B, EOS = IDS["a"], IDS["b"], IDS["<eos>"]


class RecordedKTAE(Recorder, KTAETrainer, RunTrainer):
    pass


class BadLoss(RunTrainer):
    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        return loss * (math.nan if self.state.global_step == 2 else 1)


class BadGradient(RunTrainer):
    def _clip_grad_norm(self, model):
        next(model.parameters()).grad[0, 0] = math.inf
        return super()._clip_grad_norm(model)


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_rollout_that_one_function_cannot_score_is_unscored_as_a_whole(tmp_path, value):
    """Otherwise a right answer whose check failed would be punished for its length."""

    def correct(completion_ids, **columns):
        return [value if len(ids) == 3 else float(A in ids) for ids in completion_ids]

    ids = [[A, EOS], [B, EOS], [A, B, EOS], [A] * 9 + [EOS], [B] * 9 + [EOS], [A, EOS]]
    trainer = tiny.build(
        tmp_path,
        RecordedKTAE,
        reward_funcs=[correct, get_soft_overlong_punishment(10, 4)],
        correctness_reward="correct",
        rollout_func=tiny.replay([ids]),
        settings={"per_device_train_batch_size": 6},
    )
    trainer.train()
    (rollouts,) = trainer.rollouts
    assert rollouts.rewards[2].isnan().all()
    assert not rollouts.rewards[[0, 1, 3, 4, 5]].isnan().any()
    advantages = rollouts.rollout_advantages
    assert advantages[2] == 0
    scored = torch.tensor([1.0, 0.0, 0.0, -1.0, 1.0])
    wanted = (scored - scored.mean()) / (scored.std() + 1e-4)
    torch.testing.assert_close(advantages[[0, 1, 3, 4, 5]], wanted)
    assert not rollouts.batch["advantages"][2].any()
    log = trainer.state.log_history[0]
    assert log["unscored"] == pytest.approx(1 / 6)
    assert log["accuracy"] == pytest.approx(3 / 5), "the long right answer is right"
    tiny.check(rollouts, 6)


@pytest.mark.parametrize("trainer_class", [BadLoss, BadGradient])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_weights_change(tmp_path, trainer_class):
    trainer = tiny.build(tmp_path, trainer_class, settings={"max_steps": 4, "max_grad_norm": 1.0})
    before = []

    class Note(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            before.append(tiny.weights(trainer))

    trainer.add_callback(Note())
    with pytest.raises(FloatingPointError, match=r"(loss|gradient norm) of update [13] is (nan|inf); the weights were"):
        trainer.train()
    assert torch.equal(before[-1], tiny.weights(trainer))


def test_checkpoints_rotate_a_users_folder_stays_and_resuming_from_the_last_update_trains_nothing(tmp_path):
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-best" / COMPLETE).touch()
    settings = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
    settings["optim"] = "adamw_torch"
    tiny.build(tmp_path, RunTrainer, settings=settings).train()
    there = {path.parent.name for path in tmp_path.glob(f"checkpoint-*/{COMPLETE}")}
    assert there == {"checkpoint-2", "checkpoint-3", "checkpoint-best"}
    assert newest(tmp_path) == (3, tmp_path / "checkpoint-3")
    trainer = tiny.build(tmp_path, RunTrainer, settings=settings)
    kept = load_file(tmp_path / "checkpoint-3" / "model.safetensors")
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert trainer.state.global_step == 3
    state = trainer.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in kept.items())
    (tmp_path / "checkpoint-3" / COMPLETE).unlink()
    assert newest(tmp_path) == (2, tmp_path / "checkpoint-2")
    assert newest(tmp_path / "nothing") == (0, None)


def test_empty_answers_train(tmp_path):
    """A policy that ends at once."""
    ids = [[EOS]] * 5 + [[A, EOS]]
    trainer = tiny.build(
        tmp_path, RecordedKTAE, rollout_func=tiny.replay([ids]), settings={"per_device_train_batch_size": 6}
    )
    trainer.train()
    assert trainer.rollouts[0].batch["advantages"].isfinite().all()
    assert math.isfinite(trainer.state.log_history[0]["loss"])


def test_evaluations_do_not_pass_for_rollouts_trained_on(tmp_path):
    """Between two updates on the same rollouts there is an evaluation, larger than a generation."""
    seen = []

    class Watch(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" in logs or "eval_loss" in logs:
                seen.append((logs.get("eval_accuracy"), [row["completion"] for row in trainer.latest_rollouts]))

    ids = [[A, EOS], [B, EOS]] * 3
    evaluated = [[A, EOS]] * 6 + [[B, EOS]] * 2
    evaluation = {"eval_strategy": "steps", "eval_steps": 1, "num_generations_eval": 1, "per_device_eval_batch_size": 8}
    trainer = tiny.build(
        tmp_path,
        RecordedKTAE,
        rollout_func=tiny.replay([ids, evaluated, evaluated]),
        eval_dataset=tiny.prompts(8),
        settings={"per_device_train_batch_size": 6, "num_iterations": 2, "max_steps": 2} | evaluation,
    )
    trainer.add_callback(Watch())
    trainer.train()
    assert seen == [(accuracy, ["a", "b"] * 3) for accuracy in (None, 0.75, None, 0.75)]
