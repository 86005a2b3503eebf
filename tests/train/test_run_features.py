"""`ktae train` with its options on: adapters, evaluation during training, other loggers, model cards, export."""

import resource
import shlex
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

import ktae
from ktae import KTAEConfig
from ktae.files.json_lines import append, read
from ktae.models.load import Model, load_model
from ktae.train.folder import newest

pytestmark = pytest.mark.slow  # whole runs in processes of their own

SMALL = [
    *("--data.train_rows", "24", "--data.test_rows", "10", "--samples_every", "0"),
    *("--trl.max_steps", "4", "--trl.save_steps", "2", "--trl.max_completion_length", "40"),
    *("--batch.prompts", "4", "--batch.mini_batch", "2", "--batch.per_device", "16"),
]
LORA = ["--lora.r", "4", "--lora.lora_alpha", "8"]


def cli(*arguments, cwd):
    command = [sys.executable, "-m", "ktae.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run and what it printed."""
    folder = tmp_path_factory.mktemp("features")
    options = ["--algorithms", "[dapo+ktae]", "--trl.eval_strategy", "steps", "--trl.eval_steps", "2", *LORA]
    options += ["--trl.report_to", "tensorboard", "--trl.log_completions", "true"]
    result = cli("train", "quickstart", *SMALL, *options, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "runs" / "quickstart", result.stdout


def test_evaluation_during_training(run):
    evaluations = [row for row in read(run[0] / "metrics.jsonl") if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [2, 4]
    for row in evaluations:
        assert 0 <= row["eval_accuracy"] <= 1
        assert row["eval_completions/mean_length"] > 0


def test_trls_table_of_completions_is_shown(run):
    _, stdout = run
    assert "─ Step 2 ─" in stdout


def test_tensorboard_gets_the_same_figures(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = run[0].rglob("events.out.tfevents*")
    accumulator = EventAccumulator(str(events.parent))
    accumulator.Reload()
    logged = {event.step: event.value for event in accumulator.Scalars("train/dynamic_sampling/rounds")}
    rows = {row["step"]: row for row in read(run[0] / "metrics.jsonl") if "dynamic_sampling/rounds" in row}
    assert logged == {step: row["dynamic_sampling/rounds"] for step, row in rows.items()}
    tags = accumulator.Tags()["scalars"]
    for tag in ("train/accuracy", "train/ktae/seconds", "eval/accuracy"):
        assert tag in tags


def test_provenance_and_model_card(run):
    (made,) = read(run[0] / "provenance.jsonl")
    assert made["command"].split()[1:3] == ["train", "quickstart"]
    assert made["versions"]["trl"].startswith("1.16")
    _, front, card = (run[0] / "dapo+ktae" / "model" / "README.md").read_text().split("---\n")
    assert yaml.safe_load(front) == {"library_name": "transformers", "tags": ["trl", "dapo", "ktae"]}
    assert card == (
        "\n# quickstart-dapo+ktae\n\n`python:ktae/chain/weights`, trained with DAPO+KTAE on `modchain` by `ktae train` "
        f"(ktae {ktae.__version__}): algorithm `dapo+ktae`, key tokens (https://arxiv.org/abs/2505.16826) by "
        f"`{KTAEConfig()}`, seed 0.\n"
    )


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers")
def test_adapters_are_saved_alone_and_can_be_merged(run, tmp_path):
    """As docs/training.md says."""
    final = run[0] / "dapo+ktae" / "model"
    assert (final / "adapter_model.safetensors").exists()
    assert not (final / "model.safetensors").exists()
    policy, tokenizer = load_model(Model("python:ktae/chain/weights"), final)
    ids = torch.arange(3, 40)[None]
    adapted = policy.eval()(ids).logits
    merged = policy.merge_and_unload()
    merged.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    paths = (str(tmp_path), "python:ktae/chain/weights")
    again, base = (load_model(Model(path))[0].eval()(ids).logits for path in paths)
    torch.testing.assert_close(again, adapted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(again, base, atol=1e-6)


def test_what_was_trained_before_makes_no_difference(tmp_path):
    """Neither to the adapters' first weights nor to what is sampled."""
    options = [*SMALL, *LORA, "--evaluation.samples", "0", "--evaluation.greedy", "false", "--trl.max_steps", "2"]
    for name, algorithms in (("alone", "[grpo+ktae]"), ("second", "[grpo, grpo+ktae]")):
        result = cli("train", "quickstart", *options, "--algorithms", algorithms, "--out", name, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    alone, second = (
        load_file(tmp_path / name / "grpo+ktae" / "model" / "adapter_model.safetensors") for name in ("alone", "second")
    )
    assert all(torch.equal(value, second[name]) for name, value in alone.items())


def test_a_disk_that_is_full_while_a_checkpoint_is_saved(tmp_path):
    """Files may not grow beyond 2 MB: the weights fit, the optimizer's state does not."""
    options = [*SMALL, "--algorithms", "[grpo]", "--evaluation.samples", "0"]
    stopped = subprocess.run(
        [sys.executable, "-m", "ktae.cli", "train", "quickstart", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)),
    )
    assert stopped.returncode == 1
    line = stopped.stderr.splitlines()[-1]
    assert "In runs/quickstart, no update is saved yet; " in line
    assert line.endswith(f"go on with: ktae train quickstart {shlex.join(options)} --resume")
    out = tmp_path / "runs" / "quickstart"
    assert (out / "grpo" / "checkpoint-2").is_dir()
    assert newest(out / "grpo") == (0, None), "it is not whole"
    resumed = cli("train", "quickstart", *options, "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "GRPO       starts from update 0: no checkpoint is whole" in resumed.stdout
    assert [row["step"] for row in read(out / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_full_disk_is_named(tmp_path):
    full = tmp_path / "metrics.jsonl"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
        append(full, [{"step": 1}])


def test_an_estimator_that_needs_states_gets_the_calculation_so_far(tmp_path):
    result = cli("train", "quickstart", *SMALL, "--algorithms", "[grpo+ktae_calculation]", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = read(tmp_path / "runs" / "quickstart" / "metrics.jsonl")
    assert any(row.get("ktae/abs_value_correct", 0) > 0 for row in rows)
