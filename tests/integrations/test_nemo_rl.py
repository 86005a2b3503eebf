"""NeMo-RL's hook on its data structures. NeMo-RL itself is not on PyPI and not run."""

import pytest
import torch

import ktae
from ktae.integrations.credit import TokenCredit
from ktae.integrations.nemo_rl import TokenAdvantages

CONFIG = ktae.KTAEConfig(scale=0.5)
WIDTH = 16
PROMPTS = torch.tensor([[3, 9, 0]] * 2 + [[4, 8, 8]] * 3 + [[3, 9, 0]] * 2)  # padded to the longest
REWARDS = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
DROPPED = 3  # a rollout that the mask drops as a whole, such as a truncated one


class Plain:
    """Reward minus the batch's mean, spread over all positions, and what it was called with."""

    def compute_advantage(self, prompt_ids, rewards, mask, **kwargs):
        self.kwargs = kwargs
        return (rewards - rewards.mean())[:, None].expand(mask.shape)


def message(role, ids):
    flag = int(role == "assistant")
    return {"role": role, "token_ids": torch.tensor(ids), "token_loss_mask": torch.full((len(ids),), flag)}


def logs():
    """Prompt, answer, tool output, answer; rollouts of different lengths."""
    seeded = torch.Generator().manual_seed(2)
    result = []
    for prompt in PROMPTS.tolist():
        lengths = torch.randint(1, 5, (3,), generator=seeded).tolist()
        parts = [torch.randint(0, 9, (length,), generator=seeded).tolist() for length in lengths]
        roles = ("assistant", "environment", "assistant")
        prompt_ids = [token for token in prompt if token]
        result.append([message("user", prompt_ids), *map(message, roles, parts)])
    return result


def flat(messages, name):
    """(N, WIDTH) joined and padded on the right, as NeMo-RL flattens message logs."""
    rows = torch.zeros(len(messages), WIDTH, dtype=torch.long)
    for row, log in enumerate(messages):
        joined = torch.cat([part[name] for part in log])
        rows[row, : len(joined)] = joined
    return rows


def test_values_are_added_where_the_mask_is_one():
    messages = logs()
    generated = flat(messages, "token_loss_mask")
    mask = generated.clone().float()
    mask[DROPPED] = 0
    plain = Plain()
    advantages = TokenAdvantages(plain, TokenCredit(CONFIG)).compute_advantage(
        prompt_ids=PROMPTS,
        rewards=REWARDS,
        mask=mask,
        repeated_batch={"message_log": messages},
        logprobs_policy="passed on",
    )
    groups = torch.tensor([0, 0, 1, 1, 1, 0, 0])
    value_NT = ktae.key_token_values(flat(messages, "token_ids"), generated, REWARDS, groups, config=CONFIG)
    assert value_NT[DROPPED].any()
    assert (value_NT > 0.1).any()
    wanted = (REWARDS - REWARDS.mean())[:, None] + value_NT * mask
    torch.testing.assert_close(advantages, wanted, rtol=0, atol=1e-6)
    assert plain.kwargs["logprobs_policy"] == "passed on"


@pytest.mark.parametrize("batch", [None, {"total_reward": REWARDS}])
def test_a_loop_without_token_ids_is_refused(batch):
    with pytest.raises(ValueError, match="grpo_train does"):
        TokenAdvantages(Plain(), TokenCredit()).compute_advantage(
            PROMPTS, REWARDS, torch.ones(7, WIDTH), repeated_batch=batch
        )
