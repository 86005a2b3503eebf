"""`ktae train` from start to end, as a user runs it: real processes, the shipped checkpoint, a few small steps."""

import json
import re
import shlex
import shutil
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
    *("--algorithms", "[grpo, grpo+ktae]"),
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
        (algorithm, step) for algorithm in ("grpo", "grpo+ktae") for step in (1, 2, 3, 4)
    ]
    samples = read(out / "samples.jsonl")
    assert len(samples) == 2 * 2 * 16
    assert {(row["step"], row["group"]) for row in samples} == {(2, 0), (2, 1), (4, 0), (4, 1)}
    for row in samples:
        assert row["completion"]
        assert row["exact_match"] in (0.0, 1.0)
        assert ("key_token_value" in row) == (row["algorithm"] == "grpo+ktae")
    by_group = {(row["algorithm"], row["step"], row["group"], row["prompt"]) for row in samples}
    assert len(by_group) == 8, "a group has one prompt"
    for who in ("start", "grpo", "grpo+ktae"):
        assert len(read(out / "evaluation" / f"{who}_sampled.jsonl")) == 40
        assert len(read(out / "evaluation" / f"{who}_greedy.jsonl")) == 20
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert load_recipe(str(out / "config.yaml")) == load_recipe("quickstart", SMALL)


def test_the_algorithms_start_alike_and_part(finished):
    out, _ = finished
    first = {row["algorithm"]: row for row in read(out / "metrics.jsonl") if row["step"] == 1}
    for key in ("reward", "completions/mean_length"):
        assert first["grpo"][key] == first["grpo+ktae"][key]
    grpo, ktae = weights(out, "grpo"), weights(out, "grpo+ktae")
    assert any(not torch.equal(grpo[name], ktae[name]) for name in grpo)


def test_table(finished):
    out, stdout = finished
    results = json.loads((out / "results.json").read_text())
    assert results["problems"] == 20
    for who in ("start", "grpo", "grpo+ktae"):
        answers = read(out / "evaluation" / f"{who}_sampled.jsonl")
        score = results["policies"][who]["sampled"]
        assert score["accuracy"] == pytest.approx(sum(row["reward"] for row in answers) / 40)
        assert score["mean_length"] == pytest.approx(sum(row["length"] for row in answers) / 40)
        assert score["low"] <= score["accuracy"] <= score["high"]
    for words in ("One seed", "left", "before training", "GRPO+KTAE minus GRPO, sampled"):
        assert words in stdout


def without_times(path):
    """The rows of a file of records; how long things took differs from run to run."""
    timed = ("time", "second", "step_share")
    return [{key: value for key, value in row.items() if not any(word in key for word in timed)} for row in read(path)]


def assert_same(out, uninterrupted):
    evaluations = [f"evaluation/{path.name}" for path in (uninterrupted / "evaluation").iterdir()]
    assert len(evaluations) == 6
    for name in ("metrics.jsonl", "samples.jsonl", *evaluations):
        assert without_times(out / name) == without_times(uninterrupted / name), name
    for algorithm in ("grpo", "grpo+ktae"):
        expected = weights(uninterrupted, algorithm)
        assert all(torch.equal(value, expected[name]) for name, value in weights(out, algorithm).items())


def started(folder, *arguments, until, timeout=240):
    """A process that trains in `folder`, which has come so far that `until` gives true for the run's folder."""
    process = subprocess.Popen(
        command(*SMALL, *arguments), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + timeout
    while not until(folder / "runs" / "quickstart"):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)
    return process


@pytest.mark.slow
def test_killed_at_three_random_moments_and_resumed_is_the_same_as_uninterrupted(finished, tmp_path):
    out = tmp_path / "runs" / "quickstart"
    # After so many rows of metrics, and then at any point of the next update: generating, updating or saving.
    random = Random(time.time_ns())
    kills = sorted(random.sample(range(1, 8), k=3))
    print(kills)
    for starts, rows in enumerate(kills):

        def reached(out, starts=starts, rows=rows):
            return len(read(out / "provenance.jsonl")) > starts and len(read(out / "metrics.jsonl")) >= rows

        process = started(tmp_path, *(["--resume"] if starts else []), until=reached)
        time.sleep(random.uniform(0, 2))
        process.send_signal(signal.SIGKILL)
        process.communicate()

    other = run(*SMALL, "--seed", "1", "--resume", cwd=tmp_path)
    assert other.returncode == 2
    assert "the recipe differs" in other.stderr
    result = run(*SMALL, "--resume", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert_same(out, finished[0])
    assert len(read(out / "provenance.jsonl")) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning:transformers")
def test_a_resumed_run_says_from_where_and_drops_what_came_later(finished, tmp_path, monkeypatch, capsys):
    uninterrupted, _ = finished
    out = tmp_path / "runs" / "quickstart"
    shutil.copytree(uninterrupted, out)
    monkeypatch.chdir(tmp_path)
    (out / "evaluation" / "start_greedy.jsonl").unlink()
    (out / "evaluation" / "grpo+ktae_sampled.jsonl").unlink()
    shutil.rmtree(out / "grpo+ktae" / "model")
    (out / "grpo+ktae" / "checkpoint-4" / "complete").unlink()
    (out / "grpo+ktae" / "unfinished").mkdir()
    assert main(["train", "quickstart", *SMALL, "--resume"]) == 0
    said = capsys.readouterr().out
    assert "GRPO       is finished\n" in said
    assert "GRPO+KTAE  goes on from runs/quickstart/grpo+ktae/checkpoint-2\n" in said
    assert_same(out, uninterrupted)
    whole, resumed = (json.loads((folder / "results.json").read_text()) for folder in (uninterrupted, out))
    assert resumed["policies"]["start"] == whole["policies"]["start"]


@pytest.mark.slow
def test_one_writer_at_a_time(tmp_path):
    first = started(tmp_path, until=lambda out: (out / "metrics.jsonl").exists())
    first.send_signal(signal.SIGSTOP)
    second = run(*SMALL, "--resume", cwd=tmp_path)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert f"ktae: runs/quickstart is being written to by process {first.pid} on " in second.stderr
    assert second.stderr.count("\n") == 1
    _, stderr = first.communicate(timeout=600)
    assert first.returncode == 0, stderr


@pytest.mark.slow
def test_an_interrupt_ends_in_one_line(tmp_path):
    process = started(tmp_path, until=lambda out: (out / "grpo" / "checkpoint-2" / "complete").exists())
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = stderr.splitlines()
    assert re.match(r"ktae: interrupted\. In runs/quickstart, grpo is (safe up to update [24]|finished)", line)
    assert line.endswith(f"; go on with: ktae train quickstart {shlex.join(SMALL)} --resume")


@pytest.mark.slow
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
        (["--resume"], "--resume: runs/quickstart/config.yaml does not exist"),
        (["--trl.report_to", "wandb"], "wandb, which the recipe's trl section asks for, is not installed"),
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
