"""Training on two processes comes to the same weights as on one: dynamic sampling, KTAE, penalty and all.

Run as a program, alone or as one of several processes, it trains and writes FOLDER/RANK.pt: the weights and the log.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")

import tiny
from processes import ONE, TWO, start
from trl.rewards import get_soft_overlong_punishment

from ktae.files.json_lines import read
from ktae.integrations.trl import KTAETrainer
from ktae.integrations.trl_dynamic_sampling import DynamicSamplingTrainer
from ktae.train.trainer import RunTrainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs the gloo backend"),
]


def correct(completion_ids, **columns):
    """Some cannot be scored, and hardly any group of the first problems is mixed."""
    letters = [set(ids) & {tiny.IDS["a"], tiny.IDS["b"]} for ids in completion_ids]
    return [
        None if ids[0] == tiny.IDS["j"] else float(len(both) == 2)
        for ids, both in zip(completion_ids, letters, strict=True)
    ]


def main():
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What each process ended with: alone, and the first and the second of two."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    for launch, folder in zip((ONE, TWO), folders, strict=True):
        start([*launch, __file__, folder])
    alone, pair = folders
    return torch.load(alone / "0.pt"), torch.load(pair / "0.pt"), torch.load(pair / "1.pt")


def test_weights(trained):
    alone, first, second = (part["weights"] for part in trained)
    for name, value in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)


def test_decisions_and_metrics(trained):
    alone, first, second = (part["log"] for part in trained)
    chosen = ("reward", "accuracy", "unscored", "num_tokens", "dynamic_sampling/", "ktae/", "clip_ratio/region")
    timed = ("seconds", "step_share")

    def metrics(log):
        return [
            {key: row[key] for key in row if key.startswith(chosen) and not any(word in key for word in timed)}
            for row in log
            if "loss" in row
        ]

    assert metrics(first) == metrics(second)
    assert len(metrics(alone)) == 8
    for row, other in zip(metrics(alone), metrics(first), strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-5)
    generations = [row for row in alone if "dynamic_sampling/rounds" in row]
    assert len(generations) == 8
    assert max(row["dynamic_sampling/rounds"] for row in generations) > 1
    assert max(row["unscored"] for row in generations) > 0


def test_the_command_line(tmp_path):
    """Both processes train, one writes."""
    command = ["-m", "ktae.cli", "train", "quickstart", "--out", "run", "--algorithms", "[dapo+ktae]"]
    command += ["--data.train_rows", "40", "--data.test_rows", "10"]
    command += ["--trl.eval_strategy", "steps", "--trl.eval_steps", "2"]
    command += ["--batch.prompts", "4", "--batch.mini_batch", "2", "--batch.per_device", "8", "--trl.max_steps", "4"]
    command += ["--trl.save_steps", "2", "--samples_every", "2"]
    output = start([*TWO, *command], cwd=tmp_path)
    run = tmp_path / "run"
    assert output.count("sampled accuracy") == 2 + 1, "before and after, and in the table's header"
    assert output.count("DAPO+KTAE  step 4/4") == 1
    metrics = read(run / "metrics.jsonl")
    assert [row["step"] for row in metrics if "loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in metrics if "eval_loss" in row] == [2, 4]
    samples = read(run / "samples.jsonl")
    assert len(samples) == 2 * 4 * 8
    assert len({row["prompt"] for row in samples if row["group"] == 3}) <= 2, "a group has one prompt a generation"
    (made,) = read(run / "provenance.jsonl")
    assert made["processes"] == 2
    assert (run / "dapo+ktae" / "model" / "model.safetensors").exists()
    weights = (run / "dapo+ktae" / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(run / "dapo+ktae" / "model")
    resumed = start([*TWO, *command, "--resume"], cwd=tmp_path)
    assert resumed.count("goes on from run/dapo+ktae/checkpoint-4") == 1
    assert "step 4/4" not in resumed, "all is done"
    assert (run / "dapo+ktae" / "model" / "model.safetensors").read_bytes() == weights
    assert len(read(run / "samples.jsonl")) == 2 * 4 * 8


if __name__ == "__main__":
    main()
