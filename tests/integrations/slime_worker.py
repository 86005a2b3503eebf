"""What each of several processes does in test_slime.py: its share of a batch through the hook."""

import sys
from argparse import Namespace

import torch
from torch.distributed import destroy_process_group, get_rank, get_world_size, init_process_group

SAMPLES, PROMPT, PER_PROMPT = 22, 3, 4  # the last group is short by two


def arguments(**changes):
    defaults = {
        "advantage_estimator": "grpo",
        "n_samples_per_prompt": PER_PROMPT,
        "context_parallel_size": 1,
        "rewards_normalization": True,
    }
    return Namespace(**defaults | changes)


def batch():
    """slime's lists for a whole batch, with its normalised rewards: r minus the group's mean, by the deviation."""
    seeded = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 9, (SAMPLES,), generator=seeded).tolist()
    raw = torch.randint(0, 2, (SAMPLES,), generator=seeded).float()
    index = torch.arange(SAMPLES) + 40
    rewards = torch.zeros(SAMPLES)
    for group in (index // PER_PROMPT).unique():
        mine = index // PER_PROMPT == group
        rewards[mine] = (raw[mine] - raw[mine].mean()) / (raw[mine].std() + 1e-6)
    return {
        "tokens": [torch.randint(0, 6, (PROMPT + length,), generator=seeded) for length in lengths],
        "response_lengths": lengths,
        "loss_masks": [torch.randint(0, 2, (length,), generator=seeded).int() for length in lengths],
        "rewards": rewards.tolist(),
        "sample_indices": index.tolist(),
        "raw": raw.tolist(),
    }


def share(whole, rank, size):
    """Neighbours on different ranks, as slime deals them; the first rank gets more than the others."""
    mine = [*range(rank, SAMPLES - 4, size), *(range(SAMPLES - 4, SAMPLES) if rank == 0 else ())]
    return mine, {name: [values[index] for index in mine] for name, values in whole.items()}


if __name__ == "__main__":
    from ktae.integrations.slime import set_advantages

    init_process_group("gloo")
    mine, rollout_data = share(batch(), get_rank(), get_world_size())
    set_advantages(arguments(ktae={"scale": 0.5}), rollout_data, None)
    torch.save((mine, rollout_data), f"{sys.argv[1]}/{get_rank()}.pt")
    destroy_process_group()
