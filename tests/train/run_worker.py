"""Trains with everything on, alone or as one of several processes; test_run_processes.py starts it.

    torchrun --nproc-per-node 2 tests/train/run_worker.py FOLDER

Each process writes FOLDER/RANK.pt: the weights and the log.
"""

import os
import sys
from pathlib import Path


def correct(completion_ids, **columns):
    """Some cannot be scored, and hardly any group of the first problems is mixed."""
    import tiny

    letters = [set(ids) & {tiny.IDS["a"], tiny.IDS["b"]} for ids in completion_ids]
    return [
        None if ids[0] == tiny.IDS["j"] else float(len(both) == 2)
        for ids, both in zip(completion_ids, letters, strict=True)
    ]


def main():
    import tiny
    import torch
    from trl.rewards import get_soft_overlong_punishment

    from ktae.integrations.trl import KTAETrainer
    from ktae.integrations.trl_dynamic_sampling import DynamicSamplingTrainer
    from ktae.train.trainer import RunTrainer

    folder, processes = Path(sys.argv[1]), int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(1)
    trainer = tiny.build(
        folder,
        type("Trainer", (KTAETrainer, DynamicSamplingTrainer, RunTrainer), {}),
        reward_funcs=[correct, get_soft_overlong_punishment(tiny.LENGTH, 4)],
        correctness_reward="correct",
        rollout_func=tiny.hashed,
        settings={
            "loss_type": "dapo",
            "epsilon_high": 0.28,
            "optim": "adamw_torch",
            "learning_rate": 0.001,
            "max_grad_norm": 1.0,
            "num_generations": 4,
            "per_device_train_batch_size": 12 // processes,
            "gradient_accumulation_steps": 2,
            "steps_per_generation": 2,  # one update a generation: TRL draws mini-batches per process
            "max_steps": 8,
            "shuffle_dataset": False,
        },
    )
    assert trainer.accelerator.num_processes == processes
    rank = trainer.accelerator.process_index
    trainer.train()
    weights = {
        name: value.detach() for name, value in trainer.accelerator.unwrap_model(trainer.model).named_parameters()
    }
    torch.save({"weights": weights, "log": trainer.state.log_history}, folder / f"{rank}.pt")


if __name__ == "__main__":
    main()
