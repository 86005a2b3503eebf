"""TRL's trainers of the tiny model."""

import gc
import os
import random
from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

import ktae

pytest.importorskip("trl")

import tiny_model
from datasets import Dataset
from tiny_model import EOS, IDS, PAD, STOP, VOCABULARY, model, tokenizer  # noqa: F401 (for the tests)
from trl import GRPOConfig, GRPOTrainer

from ktae.integrations.trl import KTAETrainer

LENGTH = 10
# For `pytestmark` of the modules that train.
WARNINGS = [
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore:You are using 'rollout_func', which is an experimental feature:UserWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """The trainer collects garbage once a training; most of a test's time would go into looking at all modules."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


def prompts(count=16):
    return Dataset.from_dict({"prompt": tiny_model.prompts(count)})


def has_a(completion_ids, **columns):
    """Correct when the completion holds the word a."""
    return [float(IDS["a"] in ids) for ids in completion_ids]


@dataclass
class Rollouts:
    """What one generation came to, on this process.

    `ids` are the completions as they came out of generation, `batch` is what the trainer goes on with. `rewards`
    has a column a reward function, `rollout_advantages` are TRL's own; both have the rows of all processes.
    """

    prompts: list
    ids: list[list[int]]
    rewards: torch.Tensor
    rollout_advantages: torch.Tensor
    batch: dict[str, torch.Tensor]


class Recorder:
    """Mixed in before a trainer: notes the rollouts and the microbatches that pass through it."""

    def __init__(self, *args, **kwargs):
        self.rollouts: list[Rollouts] = []
        self.microbatches: list[dict[str, torch.Tensor]] = []
        super().__init__(*args, **kwargs)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._noted = list(prompts), [list(ids) for ids in completion_ids_list], rewards.clone()
        return rewards

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        prompts, ids, rewards = self._noted
        advantages = torch.tensor(list(self._logs["advantages"])[-len(rewards) :])
        self.rollouts.append(Rollouts(prompts, ids, rewards, advantages, _copy(batch)))
        return batch

    def _compute_loss(self, model, inputs):
        self.microbatches.append(_copy(inputs))
        return super()._compute_loss(model, inputs)


class RecordedGRPO(Recorder, GRPOTrainer):
    pass


class RecordedKTAE(Recorder, KTAETrainer):
    pass


def build(folder, trainer=RecordedKTAE, *, reward_funcs=has_a, settings=None, processing_class=None, **kwargs):
    """A trainer of the tiny model; `settings` go to GRPOConfig, the other keyword arguments to the trainer."""
    defaults = {
        "output_dir": os.fspath(folder),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "per_device_train_batch_size": 12,
        "num_generations": 6,
        "max_completion_length": LENGTH,
        "max_steps": 1,
    }
    return trainer(
        model=model(),
        reward_funcs=reward_funcs,
        args=GRPOConfig(**(defaults | (settings or {}))),
        train_dataset=kwargs.pop("train_dataset", None) or prompts(),
        processing_class=processing_class or tokenizer(),
        **kwargs,
    )


def replay(generations):
    """A `rollout_func` that hands out these completions, one list a generation, instead of sampling.

    A generation may be a pair as well: completions and their `env_mask`, 0 for tokens from outside the model.
    """
    left = iter(generations)

    def rollout_func(prompts, trainer):
        generation = next(left)
        ids, *env_mask = generation if isinstance(generation, tuple) else (generation,)
        return generated(trainer, prompts, ids) | dict(zip(["env_mask"], env_mask, strict=False))

    return rollout_func


def generated(trainer, prompts, ids):
    """What a `rollout_func` returns."""
    assert len(ids) == len(prompts)
    prompt_ids = trainer.processing_class(text=prompts)["input_ids"]
    return {"prompt_ids": prompt_ids, "completion_ids": ids, "logprobs": None}


def hashed(prompts, trainer):
    """A `rollout_func` of completions that depend on prompt, place in the group and step, not on the process."""
    first = trainer.accelerator.process_index * len(prompts)
    size = trainer.num_generations
    completions = []
    for row, prompt in enumerate(prompts, start=first):
        draw = random.Random(f"{prompt} {row % size} {trainer.state.global_step}")
        length = draw.randint(1, 8)
        completions.append([draw.randint(3, 12) for _ in range(length)] + [IDS[EOS]])
    return generated(trainer, prompts, completions)


def key_values(ids, rewards, group_size, *, counted=None, config=None):
    """`ktae.key_token_values` of whole groups, given as lists: (N, T), T the longest completion's length."""
    padded = pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
    counted = [[1] * len(row) for row in ids] if counted is None else counted
    mask = pad_sequence([torch.tensor(row) for row in counted], batch_first=True)
    groups = torch.arange(len(ids)) // group_size
    return ktae.key_token_values(padded, mask, rewards, groups, config=config or ktae.KTAEConfig())


def expected(rollouts, key_NT):
    """TRL's rollout advantage plus the key-token value, 0 where TRL's own mask is 0."""
    mask = rollouts.batch["completion_mask"]
    return (rollouts.rollout_advantages[:, None] + pad(key_NT, (0, mask.shape[1] - key_NT.shape[1]))) * mask


def check(rollouts, size, *, rewards=None, **how):
    """That the advantages are TRL's plus the public function's values, which come back; tool output aside."""
    key_NT = key_values(rollouts.ids, rollouts.rewards[:, 0] if rewards is None else rewards, size, **how)
    own = rollouts.batch.get("tool_mask", 1)
    torch.testing.assert_close(rollouts.batch["advantages"] * own, expected(rollouts, key_NT) * own, rtol=0, atol=1e-6)
    return key_NT


def weights(trainer):
    return flat(trainer.accelerator.unwrap_model(trainer.model).parameters())


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _copy(batch):
    return {name: value.clone() for name, value in batch.items() if isinstance(value, torch.Tensor)}
