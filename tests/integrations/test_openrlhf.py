"""OpenRLHF's hook: inside its own experience maker where that imports, and on its data structures everywhere."""

import sys
from argparse import Namespace
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pytest
import torch

import ktae
from ktae.integrations.credit import TokenCredit
from ktae.integrations.openrlhf import with_credit

CONFIG = ktae.KTAEConfig(scale=0.5)
GROUP = 4
PROMPT = 3


def arguments(estimator="group_norm", samples=GROUP, loss="ppo"):
    return Namespace(
        algo=Namespace(advantage=Namespace(estimator=estimator, gamma=1.0, no_std_norm=False)),
        rollout=Namespace(n_samples_per_prompt=samples, max_new_tokens=8),
        reward=Namespace(
            clip_range=None, overlong_buffer_len=4, overlong_penalty_factor=1.0, stop_properly_penalty_coef=None
        ),
        actor=Namespace(policy_loss_type=loss),
    )


def batch(make, micro_sizes=(3, 5, 4)):
    """Three groups, their rollouts shuffled over micro-batches of different widths, as balanced by length.

    A rollout is prompt, response, padding; the action mask belongs to all tokens but the first, with holes where a tool
    answered.
    """
    seeded = torch.Generator().manual_seed(1)
    order = torch.randperm(sum(micro_sizes), generator=seeded).tolist()
    experiences = []
    for size in micro_sizes:
        index, order = order[:size], order[size:]
        lengths = torch.randint(1, 8, (size,), generator=seeded)
        width = PROMPT + int(lengths.max())
        place = torch.arange(width)
        response = (place >= PROMPT) & (place < PROMPT + lengths[:, None])
        tool = torch.rand(size, width, generator=seeded) < 0.2
        rewards = torch.randint(0, 2, (size,), generator=seeded).float()
        experiences.append(
            make(
                sequences=torch.randint(0, 6, (size, width), generator=seeded),
                action_mask=(response & ~tool)[:, 1:],
                rewards=rewards,
                response_length=lengths.float(),
                truncated=torch.zeros(size, dtype=torch.bool),
                kl=torch.zeros(size, width - 1),
                index=index,
                info={},
            )
        )
    return experiences


def values_by_hand(experiences, rewards):
    """The tensor function on one padded batch, sorted into the experiences again."""
    widest = max(experience.action_mask.shape[1] for experience in experiences)

    def padded(rows):
        return torch.cat([torch.nn.functional.pad(row, (0, widest - row.shape[1])) for row in rows])

    value_NT = ktae.key_token_values(
        padded([experience.sequences[:, 1:] for experience in experiences]),
        padded([experience.action_mask for experience in experiences]),
        torch.cat(rewards),
        torch.tensor([place for experience in experiences for place in experience.index]) // GROUP,
        config=CONFIG,
    )
    parts = value_NT.split([len(experience.index) for experience in experiences])
    return [part[:, : experience.action_mask.shape[1]] for part, experience in zip(parts, experiences, strict=True)]


class Maker:
    """In place of OpenRLHF's, where it is not installed: every rollout's advantage is 0.25."""

    def __init__(self, args):
        self.args = args

    def compute_advantages_and_returns(self, experiences):
        for experience in experiences:
            experience.advantages = torch.full(experience.action_mask.shape, 0.25)
            experience.rewards -= 1  # as a length penalty does
        return experiences


def test_values_are_added_where_the_action_mask_is_one():
    rewards = [experience.rewards for experience in batch(SimpleNamespace)]
    experiences = with_credit(Maker, TokenCredit(CONFIG))(arguments()).compute_advantages_and_returns(
        batch(SimpleNamespace)
    )
    wanted = values_by_hand(experiences, rewards)
    assert (torch.cat([value.flatten() for value in wanted]).abs() > 0.2).any()
    for experience, value in zip(experiences, wanted, strict=True):
        torch.testing.assert_close(experience.advantages, 0.25 + value, rtol=0, atol=1e-6)


class NoGPU(MetaPathFinder, Loader):
    """Empty modules for what OpenRLHF imports at its top and has no CPU build; nothing here uses it."""

    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] in ("flash_attn", "vllm"):
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def exec_module(self, module):
        module.__getattr__ = self.attribute

    @staticmethod
    def attribute(name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@pytest.fixture
def openrlhf():
    """OpenRLHF's experience maker."""
    pytest.importorskip("openrlhf", reason="needs openrlhf 0.11, which pins other versions of ray and transformers")
    import peft  # noqa: F401 (these look for the true flash-attn)
    from transformers import AutoModelForCausalLM, Trainer  # noqa: F401

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "meta_path", [*sys.meta_path, NoGPU()])  # last: true packages come first
        from openrlhf.trainer.ppo_utils import experience_maker

        yield experience_maker


def made(openrlhf, maker, estimator):
    strategy = Namespace(args=arguments(estimator))
    experiences = batch(openrlhf.Experience)
    return maker(None, None, None, None, Namespace(value=0.0), strategy, None).compute_advantages_and_returns(
        experiences
    )


@pytest.mark.parametrize("estimator", ["group_norm", "rloo", "dr_grpo", "reinforce_baseline"])
def test_through_openrlhfs_own_computation(openrlhf, estimator):
    rewards = [experience.rewards for experience in batch(openrlhf.Experience)]
    plain = made(openrlhf, openrlhf.RemoteExperienceMaker, estimator)
    token_level = made(openrlhf, with_credit(openrlhf.RemoteExperienceMaker, TokenCredit(CONFIG)), estimator)
    for before, after, value in zip(plain, token_level, values_by_hand(plain, rewards), strict=True):
        assert before.advantages.any()
        torch.testing.assert_close(after.advantages, before.advantages + value, rtol=0, atol=1e-6)
        torch.testing.assert_close(after.returns, before.returns)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimator": "gae"}, "--algo.advantage.estimator must be one of .* got 'gae'"),
        ({"samples": 1}, "--rollout.n_samples_per_prompt must be another .* got 1: it needs several"),
        ({"loss": "gspo"}, "--actor.policy_loss_type must be ppo .* got 'gspo'"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        with_credit(Maker, TokenCredit())(arguments(**changes))
