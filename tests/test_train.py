"""`ktae train` from start to end, as a user runs it: real processes, the shipped checkpoint, a few small steps."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from ktae.train.recipe import load_recipe
from ktae.train.records import read

SMALL = [
    *("--data.train_rows", "64", "--data.test_rows", "20", "--evaluation.samples", "2", "--samples_every", "2"),
    *("--trl.max_steps", "4", "--trl.save_steps", "2", "--trl.max_completion_length", "40"),
    *("--trl.per_device_train_batch_size", "16", "--trl.steps_per_generation", "1", "--trl.num_generations", "8"),
]


def command(*arguments):
    return [sys.executable, "-m", "ktae.cli", "train", "quickstart", *arguments]


def run(*arguments, cwd):
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=600)


def weights(out, algorithm):
    return load_file(out / algorithm / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    result = run(*SMALL, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "runs" / "quickstart", result.stdout


def test_files(finished):
    out, _ = finished
    metrics = read(out / "metrics.jsonl")
    assert [(row["algorithm"], row["step"]) for row in metrics] == [
        (algorithm, step) for algorithm in ("grpo", "grpo_ktae") for step in (1, 2, 3, 4)
    ]
    samples = read(out / "samples.jsonl")
    assert len(samples) == 2 * 2 * 16
    assert {(row["step"], row["group"]) for row in samples} == {(2, 0), (2, 1), (4, 0), (4, 1)}
    for row in samples:
        assert row["completion"]
        assert row["exact_match"] in (0.0, 1.0)
        assert ("key_token_value" in row) == (row["algorithm"] == "grpo_ktae")
    by_group = {(row["algorithm"], row["step"], row["group"], row["prompt"]) for row in samples}
    assert len(by_group) == 8, "a group has one prompt"
    for who in ("start", "grpo", "grpo_ktae"):
        assert len(read(out / "evaluation" / f"{who}_sampled.jsonl")) == 40
        assert len(read(out / "evaluation" / f"{who}_greedy.jsonl")) == 20
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert load_recipe(str(out / "config.yaml")) == load_recipe("quickstart", SMALL)


def test_the_algorithms_start_alike_and_part(finished):
    out, _ = finished
    first = {row["algorithm"]: row for row in read(out / "metrics.jsonl") if row["step"] == 1}
    for key in ("reward", "completions/mean_length"):
        assert first["grpo"][key] == first["grpo_ktae"][key]
    grpo, ktae = weights(out, "grpo"), weights(out, "grpo_ktae")
    assert any(not torch.equal(grpo[name], ktae[name]) for name in grpo)


def test_table(finished):
    out, stdout = finished
    results = json.loads((out / "results.json").read_text())
    assert results["problems"] == 20
    for who in ("start", "grpo", "grpo_ktae"):
        answers = read(out / "evaluation" / f"{who}_sampled.jsonl")
        score = results["policies"][who]["sampled"]
        assert score["accuracy"] == pytest.approx(sum(row["reward"] for row in answers) / 40)
        assert score["mean_length"] == pytest.approx(sum(row["length"] for row in answers) / 40)
        assert score["low"] <= score["accuracy"] <= score["high"]
    summary = (out / "summary.md").read_text()
    assert "| before training |" in summary
    assert "| GRPO+KTAE |" in summary
    for words in ("One seed", "left", "GRPO+KTAE minus GRPO, sampled"):
        assert words in stdout


def test_interrupted_and_resumed_is_the_same_as_uninterrupted(finished, tmp_path):
    uninterrupted, _ = finished
    out = tmp_path / "runs" / "quickstart"
    process = subprocess.Popen(command(*SMALL), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(read(out / "metrics.jsonl")) < 7:  # in the second algorithm's third step or later
        assert process.poll() is None, "ended before it could be interrupted"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "grpo_ktae" / "model").exists()

    other = run(*SMALL, "--seed", "1", "--resume", cwd=tmp_path)
    assert other.returncode == 2
    assert "the recipe differs" in other.stderr
    result = run(*SMALL, "--resume", cwd=tmp_path)
    assert result.returncode == 0, result.stderr

    def without_times(path):
        return [
            {key: value for key, value in row.items() if "time" not in key and "seconds" not in key}
            for row in read(path)
        ]

    for name in (
        "metrics.jsonl",
        "samples.jsonl",
        "evaluation/start_sampled.jsonl",
        "evaluation/grpo_ktae_greedy.jsonl",
    ):
        assert without_times(out / name) == without_times(uninterrupted / name)
    for algorithm in ("grpo", "grpo_ktae"):
        expected = weights(uninterrupted, algorithm)
        assert all(torch.equal(value, expected[name]) for name, value in weights(out, algorithm).items())


def test_a_second_run_does_not_touch_the_first(finished):
    out, _ = finished
    before = (out / "metrics.jsonl").read_bytes()
    refused = run(*SMALL, "--out", str(out), cwd=out.parents[1])
    assert refused.returncode == 2
    assert f"{out} is not empty; give --resume" in refused.stderr
    again = run(
        *SMALL, "--algorithms", "[grpo]", "--trl.max_steps", "1", "--evaluation.samples", "0", cwd=out.parents[1]
    )
    assert again.returncode == 0, again.stderr
    assert (out.parent / "quickstart-2" / "grpo" / "model").is_dir()
    assert (out / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trl.learning_rat", "1"], "ktae: unknown key 'trl.learning_rat'; did you mean 'trl.learning_rate'?"),
        (["--resume"], "does not exist"),
        (["--rewards", "[exact_mtch]"], "exact_match"),
        (["--model.path", "python:no_such_package/model"], "the Python package 'no_such_package' is not installed"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, message):
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists(), "refused before anything is written"
