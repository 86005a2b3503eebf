"""One of the processes that train together; test_trl_processes.py starts two of them.

    torchrun --nproc-per-node 2 tests/integrations/trl_worker.py FOLDER

Each of them writes FOLDER/RANK.pt: for each case what it generated, the advantages and the metrics.
"""

import sys
from pathlib import Path

# In each of them some group has rows on both processes.
CASES = {
    "groups of 2": {"per_device_train_batch_size": 3, "num_generations": 2, "max_steps": 4},
    "groups of 6": {"per_device_train_batch_size": 3, "num_generations": 6, "max_steps": 4, "log_completions": True},
    "groups of 4, two steps a generation": {
        "per_device_train_batch_size": 3,
        "steps_per_generation": 2,
        "num_generations": 4,
        "max_steps": 4,
        "mask_truncated_completions": True,
    },
    "evaluation in groups of 4": {
        "per_device_train_batch_size": 6,
        "num_generations": 6,
        "num_generations_eval": 4,
        "per_device_eval_batch_size": 6,
    },
}
# The same with an estimator that looks at what is gathered only for it.
OWN = "groups of 4, an estimator of one's own"
CASES[OWN] = {"per_device_train_batch_size": 6, "num_generations": 4, "max_steps": 1}


def own(rollouts):
    """A token's entropy beside the mean over all rollouts' tokens, and its state."""
    [rollouts.require(name) for name in ("entropies", "states")]
    mean = (rollouts.entropies * rollouts.mask).sum() / rollouts.mask.sum()
    return (rollouts.entropies - mean + 0.01 * rollouts.states) * rollouts.mask


def place(rollout):
    return range(len(rollout["token_ids"]))


def train(folder, case, settings, **kwargs):
    """Runs a case, with an evaluation if it has one, and returns the trainer."""
    import tiny

    from ktae.integrations.trl import TokenAdvantageTrainer

    if case == OWN:
        kwargs |= {"advantages": own, "states": place}
        kwargs["trainer"] = type("RecordedToken", (tiny.Recorder, TokenAdvantageTrainer), {})
    trainer = tiny.build(folder, settings=settings, eval_dataset=tiny.prompts(6), **kwargs)
    trainer.train()
    if "num_generations_eval" in settings:
        trainer.evaluate()
    return trainer


def main():
    import torch

    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    written = {}
    for number, (name, settings) in enumerate(CASES.items()):
        trainer = train(folder / str(number), name, settings)
        assert trainer.accelerator.num_processes == 2
        rollouts = [vars(generation) for generation in trainer.rollouts]
        written[name] = {"rollouts": rollouts, "log": trainer.state.log_history}
    rank = trainer.accelerator.process_index
    torch.distributed.destroy_process_group()
    torch.save(written, folder / f"{rank}.pt")


if __name__ == "__main__":
    main()
