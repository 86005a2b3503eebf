"""`ktae train` with its options on: adapters, evaluation during training, other loggers, model cards, export."""

import os
import re
import resource
import shlex
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ktae.files.json_lines import append, read
from ktae.train.checkpoints import latest
from ktae.train.export import export

pytestmark = pytest.mark.slow  # whole runs in processes of their own

SMALL = [
    *("--data.train_rows", "24", "--data.test_rows", "10", "--samples_every", "0"),
    *("--trl.max_steps", "4", "--trl.save_steps", "2", "--trl.max_completion_length", "40"),
    *("--batch.prompts", "4", "--batch.mini_batch", "2", "--batch.per_device", "16"),
]
LORA = ["--lora.rank", "4", "--lora.alpha", "8"]


def ktae(*arguments, cwd):
    command = [sys.executable, "-m", "ktae.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run and what it printed."""
    folder = tmp_path_factory.mktemp("features")
    options = ["--algorithms", "[dapo+ktae]", "--evaluation.every", "2", "--show_every", "2", *LORA]
    result = ktae("train", "quickstart", *SMALL, *options, "--trl.report_to", "tensorboard", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "runs" / "quickstart", result.stdout


def test_evaluation_during_training(run):
    evaluations = [row for row in read(run[0] / "metrics.jsonl") if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [2, 4]
    for row in evaluations:
        assert 0 <= row["eval_accuracy"] <= 1
        assert row["eval_completions/mean_length"] > 0


def test_rollouts_are_shown_with_their_key_tokens(run):
    _, stdout = run
    assert re.search(r"DAPO\+KTAE, update 2 \d+ S1 ", stdout)
    assert re.search(r"reward 1, rollout advantage \+\d", stdout)
    assert re.search(r"reward 0, rollout advantage -\d", stdout)
    assert re.search(r"key tokens: [+-][01]\.\d\d '", stdout)


def test_tensorboard_gets_the_same_figures(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = run[0].rglob("events.out.tfevents*")
    accumulator = EventAccumulator(str(events.parent))
    accumulator.Reload()
    logged = {event.step: event.value for event in accumulator.Scalars("train/dynamic_sampling/rounds")}
    rows = {row["step"]: row for row in read(run[0] / "metrics.jsonl") if "dynamic_sampling/rounds" in row}
    assert logged == {step: row["dynamic_sampling/rounds"] for step, row in rows.items()}
    tags = accumulator.Tags()["scalars"]
    for tag in ("train/accuracy", "train/ktae/step_share", "train/seconds/generation", "eval/accuracy"):
        assert tag in tags


def test_provenance(run):
    (made,) = read(run[0] / "provenance.jsonl")
    assert made["command"].split()[1:3] == ["train", "quickstart"]
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", made["ktae_commit"])
    assert made["commit"] is None, "not run in a repository"
    assert made["versions"]["trl"].startswith("1.16")
    assert made["hardware"]["cpus"] >= 1
    assert made["hardware"]["memory_gib"] > 0


def test_model_card(run):
    card = (run[0] / "dapo+ktae" / "model" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert {"trl", "dapo", "ktae"} <= set(front["tags"])
    assert "# Model Card for quickstart-dapo+ktae" in card
    assert "fine-tuned version of `python:ktae/chain/weights`" in card
    assert "trained with DAPO+KTAE" in card


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning:transformers")
def test_adapters_are_saved_alone_and_merged_on_export(run, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    out, _ = run
    final = out / "dapo+ktae" / "model"
    assert (final / "adapter_model.safetensors").exists()
    assert not (final / "model.safetensors").exists()
    export(out, tmp_path / "merged", merge_lora=True)
    result = ktae("export", str(out), "--step", "2", "--merge-lora", "--out", str(tmp_path / "step2"), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    export(out, tmp_path / "adapters")

    base = AutoModelForCausalLM.from_pretrained("src/ktae/chain/weights")
    policy = PeftModel.from_pretrained(base, str(tmp_path / "adapters"))
    ids = torch.arange(3, 40)[None]
    logits = {name: _logits(AutoModelForCausalLM.from_pretrained(tmp_path / name), ids) for name in ("merged", "step2")}
    torch.testing.assert_close(logits["merged"], _logits(policy, ids), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits["merged"], logits["step2"], atol=1e-6)
    assert not {"optimizer.pt", "trainer_state.json", "complete"} & {path.name for path in tmp_path.rglob("*")}


def test_what_was_trained_before_makes_no_difference(tmp_path):
    """Neither to the adapters' first weights nor to what is sampled."""
    options = [*SMALL, *LORA, "--evaluation.samples", "0", "--evaluation.greedy", "false", "--trl.max_steps", "2"]
    for name, algorithms in (("alone", "[grpo+ktae]"), ("second", "[grpo, grpo+ktae]")):
        result = ktae("train", "quickstart", *options, "--algorithms", algorithms, "--out", name, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    alone, second = (
        load_file(tmp_path / name / "grpo+ktae" / "model" / "adapter_model.safetensors") for name in ("alone", "second")
    )
    assert all(torch.equal(value, second[name]) for name, value in alone.items())


@torch.no_grad()
def _logits(model, ids):
    return model.eval()(ids).logits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--algorithm", "grpo"], r"--algorithm must be one of \['dapo\+ktae'\], got 'grpo'"),
        (["--step", "3"], r"--step must be a checkpoint of dapo\+ktae, one of \[2, 4\], got 3"),
        (["--out", "."], r"\. exists; give another --out"),
    ],
)
def test_export_errors(run, tmp_path, options, message):
    result = ktae("export", str(run[0]), "--out", "new", *options, cwd=tmp_path)
    assert result.returncode == 2
    assert re.search(message, result.stderr)
    assert not (tmp_path / "new").exists()


def test_export_of_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not the folder of a run: it has no config\.yaml"):
        export(tmp_path, tmp_path / "new")


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
    (line,) = stopped.stderr.splitlines()
    assert line.startswith("ktae: no room on the disk, or over a limit on file sizes (")
    assert "In runs/quickstart, no update is saved yet; " in line
    assert line.endswith(f"go on with: ktae train quickstart {shlex.join(options)} --resume")
    out = tmp_path / "runs" / "quickstart"
    assert (out / "grpo" / "checkpoint-2").is_dir()
    assert latest(out / "grpo", pytest.fail) is None, "it is not whole"
    resumed = ktae("train", "quickstart", *options, "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert [row["step"] for row in read(out / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_full_disk_is_named(tmp_path):
    full = tmp_path / "metrics.jsonl"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
        append(full, [{"step": 1}])


def test_compiling_the_estimator_is_timed_apart(tmp_path):
    pytest.importorskip("numba")
    code = """
from numba.core.event import install_timer
from ktae import KTAEConfig, key_token_values
from ktae.train.run import compile_estimator
import torch
config = KTAEConfig.recommended()
took = [compile_estimator(config), compile_estimator(config)]
ids = torch.randint(5, (8, 600))
with install_timer("numba:compile", took.append):
    key_token_values(ids, torch.ones_like(ids), torch.arange(8) % 2.0, torch.arange(8) // 4, config=config)
print(*took)
"""
    for first in (True, False):  # the second process finds the code on disk
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600
        )
        seconds = [float(number) for number in done.stdout.split()]
        assert (seconds[0] > 0) == first, done.stderr
        assert not any(seconds[1:])
