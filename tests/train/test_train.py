"""`ktae train` from start to end, as a user runs it: real processes, the shipped checkpoint, a few small steps."""

import json
import signal
import subprocess
import sys
import time
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from ktae.cli import main
from ktae.files.json_lines import read
from ktae.train.recipe import load_recipe

SMALL = [
    *("--algorithms", "[grpo, grpo_ktae]"),
    *("--data.train_rows", "64", "--data.test_rows", "20", "--evaluation.samples", "2", "--samples_every", "2"),
    *("--trl.max_steps", "4", "--trl.save_steps", "2", "--trl.max_completion_length", "40"),
    *("--batch.prompts", "2", "--batch.mini_batch", "2", "--batch.per_device", "16"),
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


def without_times(path):
    """The rows of a file of records; how long things took differs from run to run."""
    timed = ("time", "second", "step_share")
    return [{key: value for key, value in row.items() if not any(word in key for word in timed)} for row in read(path)]


def test_killed_at_three_random_moments_and_resumed_is_the_same_as_uninterrupted(finished, tmp_path):
    uninterrupted, _ = finished
    out = tmp_path / "runs" / "quickstart"
    # After so many rows of metrics, and then at any point of the next update: generating, updating or saving.
    random = Random(time.time_ns())
    kills = sorted(random.sample(range(1, 8), k=3))
    for resume, rows in zip((False, True, True), kills, strict=True):
        arguments = [*SMALL, *(["--resume"] if resume else [])]
        process = subprocess.Popen(
            command(*arguments), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while len(read(out / "provenance.jsonl")) <= kills.index(rows) or len(read(out / "metrics.jsonl")) < rows:
            assert process.poll() is None, f"{kills}: {process.stderr.read()}"
            time.sleep(0.01)
        time.sleep(random.uniform(0, 2))
        process.send_signal(signal.SIGKILL)
        process.communicate()

    other = run(*SMALL, "--seed", "1", "--resume", cwd=tmp_path)
    assert other.returncode == 2
    assert "the recipe differs" in other.stderr
    result = run(*SMALL, "--resume", cwd=tmp_path)
    assert result.returncode == 0, f"{kills}: {result.stderr}"

    evaluations = [path.name for path in (uninterrupted / "evaluation").iterdir()]
    assert len(evaluations) == 6
    for name in ("metrics.jsonl", "samples.jsonl", *(f"evaluation/{file}" for file in evaluations)):
        assert without_times(out / name) == without_times(uninterrupted / name), kills
    for algorithm in ("grpo", "grpo_ktae"):
        expected = weights(uninterrupted, algorithm)
        assert all(torch.equal(value, expected[name]) for name, value in weights(out, algorithm).items())
    assert len(read(out / "provenance.jsonl")) == 4


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
        (["--data.train_rows", "15"], "modchain leaves 15 problems to train on, fewer than batch.prompts 16"),
        (["--trl.save_steps", "6"], "trl.save_steps must be a multiple of the 4 updates"),
        (["--trl.save_total_limit", "1"], "trl.save_total_limit must be at least 2"),
        (["--trl.num_generations", "4"], "trl.num_generations is set by ktae; set batch.rollouts"),
        (["--batch.per_device", "24"], "does not divide into passes of batch.per_device 24 rollouts on 1 process"),
        (["--algorithms", "[dapo]", "--overlong.buffer", "65"], "overlong.buffer must be at most"),
        (["--rewards", "[exact_match, math_answer]"], "correctness_reward must name one of"),
        (["--data.prompt", "'{promt}'"], "data.prompt names the column 'promt'"),
        (["--trl.report_to", "wandb"], "wandb, which the recipe's trl section asks for, is not installed"),
        (["--push-to-hub", "me"], "--push-to-hub must be OWNER/NAME, got 'me'"),
        (["--model.path", "python:no_such_package/model"], "the Python package 'no_such_package' is not installed"),
    ],
)
@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning:transformers")
def test_mistakes_are_one_line(tmp_path, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "quickstart", *arguments]) == 2
    stderr = capsys.readouterr().err
    assert message in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "runs").exists(), "refused before anything is written"
