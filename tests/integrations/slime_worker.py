"""What each of several processes does in test_hooks.py: its share of a batch through slime's hook."""

import sys

import torch
from hooks import Batch, slime_arguments, slime_data
from torch.distributed import destroy_process_group, get_rank, init_process_group

from ktae.integrations.slime import set_advantages


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
    set_advantages(arguments, data, None)
    torch.save({"places": places, **data}, f"{sys.argv[1]}/{get_rank()}.pt")
    destroy_process_group()
