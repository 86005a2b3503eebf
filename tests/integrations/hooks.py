"""A batch as each trainer lays it out, through the trainer's hook and back; for test_hooks.py.

Run as one of several processes, it takes its share of a batch through slime's hook.

Each function takes a batch, and an estimator or None for the trainer's own advantages, and returns a row of advantages
a rollout, 0 where the trainer has none. The trainer is a stand-in here, whose classes a test may replace by the
framework's own.
"""

import asyncio
import sys
from argparse import Namespace
from dataclasses import dataclass, field
from itertools import groupby
from types import SimpleNamespace

import torch
from torch.distributed import destroy_process_group, get_rank, init_process_group
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

import ktae
from ktae.estimators import Rollouts, load_estimator
from ktae.estimators.key_tokens import key_tokens
from ktae.integrations import ms_swift, nemo_rl, openrlhf, prime_rl, skyrl, slime
from ktae.integrations.credit import TokenCredit

GROUP, PROMPT = 4, 3
CORRECT_ABOVE = 0.5


def everything(rollouts):
    """An estimator that reads all that each hook hands on."""
    value_NT = key_tokens(ktae.KTAEConfig())(rollouts) + 0.1 * rollouts.rollout_advantages[:, None]
    return (value_NT * rollouts.mask).float()


def likely(rollouts):
    return rollouts.require("log_probs") * rollouts.mask


@dataclass
class Batch:
    """Rollouts of three prompts, neighbours in a group: ragged ids, 0 in the mask where a tool answered."""

    ids: list[torch.Tensor]
    masks: list[torch.Tensor]
    log_probs: list[torch.Tensor]
    rewards: list[float]
    own: torch.Tensor
    """The advantages that a stand-in gives, one a rollout."""
    groups: list[int] = field(default_factory=lambda: [place // GROUP for place in range(12)])
    correct_above: float = CORRECT_ABOVE

    @classmethod
    def random(cls):
        seeded = torch.Generator().manual_seed(1)
        lengths = torch.randint(1, 8, (12,), generator=seeded).tolist()
        masks = [(torch.rand(length, generator=seeded) > 0.2).long() for length in lengths]
        for mask in masks:
            mask[0] = 1
        return cls(
            [torch.randint(0, 6, (length,), generator=seeded) for length in lengths],
            masks,
            [-torch.rand(length, generator=seeded) for length in lengths],
            [(0.3, 1.0)[right] for right in torch.randint(0, 2, (12,), generator=seeded).tolist()],
            torch.rand(12, generator=seeded) - 0.5,
        )

    def values(self, plain, estimator):
        """What the estimator gives these rollouts, a row each, from padded tensors; `plain` are the own advantages."""
        mask_NT = pad_sequence(self.masks, batch_first=True)
        rollouts = Rollouts(
            pad_sequence(self.ids, batch_first=True),
            mask_NT,
            torch.tensor(self.rewards),
            torch.tensor(self.groups),
            (pad_sequence(plain, batch_first=True) * mask_NT).sum(dim=1) / mask_NT.sum(dim=1),
            log_probs=pad_sequence(self.log_probs, batch_first=True),
            correct_above=self.correct_above,
        )
        value_NT = load_estimator(estimator)(rollouts)
        return [row[: len(ids)] for row, ids in zip(value_NT, self.ids, strict=True)]

    def right_aligned(self, rows):
        width = max(map(len, rows))
        return torch.stack([pad(row, (width - len(row), 0)) for row in rows])


def hooked(with_credit, base, estimator, *more):
    return with_credit(base, TokenCredit(estimator, CORRECT_ABOVE), *more) if estimator else base


def of_openrlhf(batch, estimator=None, *, maker=None, experience=SimpleNamespace, algorithm="group_norm", **changes):
    """Rollouts shuffled over micro-batches of different widths; the action mask belongs to all tokens but the first."""

    class Maker:
        def __init__(self, *given):
            self.args = given[5].args

        def compute_advantages_and_returns(self, experiences):
            for part in experiences:
                part.advantages = batch.own[part.index][:, None].expand(part.action_mask.shape)
                part.rewards -= 1  # as a length penalty does
            return experiences

    order, parts = torch.randperm(12, generator=torch.Generator().manual_seed(2)).tolist(), []
    for index in (order[:3], order[3:8], order[8:]):
        ids, masks, log_probs = (
            pad_sequence([rows[row] for row in index], batch_first=True)
            for rows in (batch.ids, batch.masks, batch.log_probs)
        )
        parts.append(
            experience(
                sequences=pad(ids, (PROMPT, 0), value=9),
                action_mask=pad(masks, (PROMPT - 1, 0)).bool(),
                action_log_probs=pad(log_probs, (PROMPT - 1, 0), value=-9.0),
                rewards=torch.tensor([batch.rewards[row] for row in index]),
                response_length=torch.tensor([float(len(batch.ids[row])) for row in index]),
                truncated=torch.zeros(len(index), dtype=torch.bool),
                kl=torch.zeros(len(index), PROMPT - 1 + ids.shape[1]),
                index=index,
                info={},
            )
        )
    settings = {"samples": GROUP, "loss": "ppo"} | changes
    overlong = {"clip_range": None, "overlong_buffer_len": 4, "overlong_penalty_factor": 1.0}
    args = Namespace(
        algo=Namespace(advantage=Namespace(estimator=algorithm, gamma=1.0, no_std_norm=False)),
        rollout=Namespace(n_samples_per_prompt=settings["samples"], max_new_tokens=8),
        reward=Namespace(stop_properly_penalty_coef=None, **overlong),
        actor=Namespace(policy_loss_type=settings["loss"]),
    )
    built = hooked(openrlhf.with_credit, maker or Maker, estimator)
    built = built(None, None, None, None, Namespace(value=0.0), Namespace(args=args), None)
    rows = {}
    for part in built.compute_advantages_and_returns(parts):
        rows |= dict(zip(part.index, part.advantages[:, PROMPT - 1 :], strict=True))
    return [rows[place][: len(ids)] for place, ids in enumerate(batch.ids)]


def of_skyrl(batch, estimator=None, *, trainer=None, data=None, config=None, algorithm="grpo", **changes):
    """Everything ends at the right, and masked copies of the first row fill the batch up for the ranks."""

    class Trainer:
        def __init__(self, cfg, **nothing):
            pass

        def compute_advantages_and_returns(self, data):
            own = torch.cat([batch.own, batch.own[[0] * 2]])
            data["advantages"] = own[:, None].expand(data["loss_mask"].shape)
            return data

    class Data(dict):
        """With metadata."""

    loss_mask, log_probs = batch.right_aligned(batch.masks), batch.right_aligned(batch.log_probs)
    rewards = torch.zeros(loss_mask.shape)
    rewards[:, -1], rewards[:, 0] = torch.tensor(batch.rewards) + 0.25, -0.25
    tensors = {
        "sequences": pad(batch.right_aligned(batch.ids), (PROMPT, 0), value=9),
        "response_mask": batch.right_aligned([torch.ones_like(ids) for ids in batch.ids]),
        "loss_mask": loss_mask,
        "rewards": rewards,
        "action_log_probs": log_probs,
    }
    tensors = {name: torch.cat([tensor, tensor[[0] * 2]]) for name, tensor in tensors.items()}
    tensors["loss_mask"][-2:] = 0
    given = (data or Data)(tensors | {"values": None})
    uids = [f"prompt {group}" for group in batch.groups]
    given.metadata = {"uids": [*uids, "pad0", "pad1"], "pad_size": 2, "avg_response_length": 4.0}
    cfg = config or SimpleNamespace(
        trainer=SimpleNamespace(algorithm=SimpleNamespace(policy_loss_type="regular", use_kl_in_reward=False)),
        generator=SimpleNamespace(step_wise_trajectories=False),
    )
    for name, value in ({"advantage_estimator": algorithm} | changes).items():
        setattr(cfg.generator if name == "step_wise_trajectories" else cfg.trainer.algorithm, name, value)
    nothing = ("tracker", "tokenizer", "train_dataset", "eval_dataset", "inference_engine_client", "generator")
    built = hooked(skyrl.with_credit, trainer or Trainer, estimator)
    built = built(cfg=cfg, colocate_pg=None, **dict.fromkeys(nothing))
    advantages = built.compute_advantages_and_returns(given)["advantages"]
    return [row[-len(ids) :] for row, ids in zip(advantages, batch.ids, strict=False)]


def node_of(token_ids, mask):
    return SimpleNamespace(token_ids=token_ids, mask=mask, advantages=None)


def trace_of(nodes, reward):
    return SimpleNamespace(nodes=nodes, reward=reward)


def of_prime_rl(batch, estimator=None, *, node=node_of, trace=trace_of, score=None):
    """A group at a time: a prompt, then a node a turn, with a token of scaffold before what was sampled."""

    class GRPO:
        async def score_group(self, episodes):
            for episode in episodes:
                for trace in episode.traces:
                    for part in trace.nodes:
                        if any(part.mask):
                            part.advantages = [trace.reward - 0.55] * sum(part.mask)

    rows = []
    for group in range(3):
        traces = []
        for place in range(group * GROUP, (group + 1) * GROUP):
            nodes, ids = [node([90, 91], [False] * 2)], iter(batch.ids[place].tolist())
            for sampled, turn in groupby(batch.masks[place].bool().tolist()):
                turn = [next(ids) for _ in turn]
                nodes.append(node([99, *turn], [False] + [sampled] * len(turn)))
            traces.append(trace(nodes, batch.rewards[place]))
        untrained = trace([node([90], [False])], 1.0)
        episodes = [SimpleNamespace(traces=[traces[0], untrained]), SimpleNamespace(traces=traces[1:])]
        asyncio.run((score or hooked(prime_rl.with_credit, GRPO, estimator)().score_group)(episodes))
        assert untrained.nodes[0].advantages is None
        for place, result in enumerate(traces, group * GROUP):
            found = [value for part in result.nodes for value in part.advantages or ()]
            row = torch.zeros(len(batch.ids[place]))
            row[batch.masks[place].bool()] = torch.tensor(found)
            rows.append(row)
    return rows


def of_nemo_rl(batch, estimator=None, *, dropped=(), logs=True):
    """Prompt, answer, tool output, answer, joined; the mask drops some rollouts, truncated ones for instance."""

    class Plain:
        def compute_advantage(self, prompt_ids, rewards, mask, logprobs_policy, **kwargs):
            assert logprobs_policy == "passed on"
            return batch.own[:, None].expand(mask.shape)

    messages, width = [], 16
    for ids, mask in zip(batch.ids, batch.masks, strict=True):
        parts = [torch.tensor([[9] * PROMPT, [0] * PROMPT])]
        parts += torch.stack([ids, mask]).tensor_split(mask.diff().nonzero().flatten() + 1, dim=1)
        messages.append([{"token_ids": part[0], "token_loss_mask": part[1]} for part in parts])
    mask = torch.stack([pad(row, (PROMPT, width - PROMPT - len(row))) for row in batch.masks]).float()
    mask[list(dropped)] = 0
    built = nemo_rl.TokenAdvantages(Plain(), TokenCredit(estimator, CORRECT_ABOVE)) if estimator else Plain()
    advantages = built.compute_advantage(
        prompt_ids=torch.tensor([[9, 9, group] for group in batch.groups]),
        rewards=torch.tensor(batch.rewards),
        mask=mask,
        repeated_batch={"message_log": messages} if logs else {},
        logprobs_policy="passed on",
    )
    return [row[PROMPT : PROMPT + len(ids)] for row, ids in zip(advantages, batch.ids, strict=True)]


def of_ms_swift(batch, estimator=None, *, correctness_reward="HasA", by_prompt=False, extra_mask=0, **changes):
    """The sampled tokens have labels; two batches of padded rows."""

    class Trainer:
        def __init__(self):
            settings = {
                "importance_sampling_level": "token",
                "loss_type": "grpo",
                "use_liger_loss": False,
                "off_policy_sequence_mask_delta": None,
                "template": SimpleNamespace(sequence_parallel_size=1),
                "reward_func_names": ["Length", "HasA"],
                "dynamic_num_samples": by_prompt,
                "model": SimpleNamespace(training=True),
                "num_generations": GROUP,
                "accelerator": SimpleNamespace(process_index=0),
            }
            vars(self).update(settings | changes)

        def _postprocess_batch(self, samples, batch_encoded_inputs):
            rewards = torch.tensor([batch.rewards[sample.place] for sample in samples])
            columns = [rewards if name == "HasA" else -rewards for name in self.reward_func_names]
            self._rewards_per_func = torch.stack(columns, dim=1)
            own = iter(batch.own[[sample.place for sample in samples]])
            for encoded in batch_encoded_inputs:
                part = encoded["grpo_batch"]
                part.advantages = torch.stack([next(own) * row for row in torch.ones(part.completion_mask.shape)])

    order = torch.randperm(12, generator=torch.Generator().manual_seed(3)).tolist() if by_prompt else list(range(12))
    samples = [
        SimpleNamespace(
            encoded={"labels": [[-100] * PROMPT + torch.where(batch.masks[i] == 1, batch.ids[i], -100).tolist()]},
            prompt_id=f"prompt {batch.groups[i]}",
            place=i,
        )
        for i in order
    ]
    parts = []
    for index in (order[:5], order[5:]):
        mask_BT = pad(pad_sequence([batch.masks[row] for row in index], batch_first=True), (2, 0))
        mask_BT[0, :extra_mask] = 1
        parts.append(SimpleNamespace(completion_mask=mask_BT))
    built = hooked(ms_swift.with_credit, Trainer, estimator, *([correctness_reward] if estimator else []))()
    built._postprocess_batch(samples, [{"grpo_batch": part} for part in parts])
    rows = dict(zip(order, [row[2:] for part in parts for row in part.advantages], strict=True))
    return [rows[place][: len(ids)] for place, ids in enumerate(batch.ids)]


def slime_data(batch, places=range(12)):
    """slime's lists of the samples at these places."""
    return {
        "tokens": [pad(batch.ids[place], (PROMPT, 0), value=9) for place in places],
        "response_lengths": [len(batch.ids[place]) for place in places],
        "loss_masks": [batch.masks[place].int() for place in places],
        "rewards": [batch.rewards[place] for place in places],
        "sample_indices": [40 + place for place in places],
    }


def slime_arguments(estimator="hooks:everything", **changes):
    defaults = {
        "advantage_estimator": "grpo",
        "n_samples_per_prompt": GROUP,
        "context_parallel_size": 1,
        "rewards_normalization": False,
        "ktae": {"estimator": estimator, "correct_above": CORRECT_ABOVE},
    }
    return Namespace(**defaults | changes)


def of_slime(batch, estimator=None, **changes):
    data = slime_data(batch)
    slime.set_advantages(slime_arguments(estimator or "hooks:everything", **changes), data, None)
    return data["advantages" if estimator else "returns"]


HOOKS = {
    **{"openrlhf": of_openrlhf, "skyrl": of_skyrl, "prime_rl": of_prime_rl},
    **{"nemo_rl": of_nemo_rl, "ms_swift": of_ms_swift, "slime": of_slime},
}
GIVE_LOG_PROBS = {"openrlhf", "skyrl"}


def normalised():
    """The batch with slime's normalised rewards: less the group's mean, by the deviation; the threshold is 0."""
    batch = Batch.random()
    rewards_GN = torch.tensor(batch.rewards).view(3, -1)
    rewards_GN = rewards_GN - rewards_GN.mean(dim=1, keepdim=True)
    batch.rewards = (rewards_GN / (rewards_GN.std(dim=1, keepdim=True) + 1e-6)).flatten().tolist()
    batch.correct_above = 0.0
    return batch


if __name__ == "__main__":
    init_process_group("gloo")
    # Neighbours on different ranks, as slime deals them; the first rank gets more than the other.
    places = [0, 2, 4, 6, 8, 9, 10, 11] if get_rank() == 0 else [1, 3, 5, 7]
    data = slime_data(normalised(), places)
    arguments = slime_arguments(rewards_normalization=True, ktae={"estimator": "hooks:everything"})
    slime.set_advantages(arguments, data, None)
    torch.save({"places": places, **data}, f"{sys.argv[1]}/{get_rank()}.pt")
    destroy_process_group()
