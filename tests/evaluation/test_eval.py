"""`ktae eval` and `ktae grade` as a user runs them."""

import json
import shutil
import signal
import subprocess
import sys
import time

import documented_vllm
import pytest
from graded import row

from ktae.chain import problems as chain
from ktae.cli import main
from ktae.evaluation.evaluate import EvalSettings, evaluate
from ktae.evaluation.tasks import TASKS
from ktae.files.json_lines import read, write
from ktae.models.generate import Sampling

MODEL = "python:ktae/chain/weights"
SAMPLED = ["-n", "3", "--temperature", "1", "--max-tokens", "64", "--batch-tokens", "600"]


def ktae(*arguments, cwd, **options):
    command = [sys.executable, "-m", "ktae", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, **options)


def chains(path, count=24):
    rows = [{"problem": row["prompt"], "answers": row["answers"]} for row in chain.test_problems()[:count]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    chains(folder / "chains.jsonl")
    result = ktae("eval", MODEL, "--tasks", "chains.jsonl", *SAMPLED, "--out", "whole", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


@pytest.mark.slow
def test_what_it_leaves(finished):
    folder, stdout = finished
    rows = read(folder / "whole" / "samples.jsonl")
    assert [row["sample"] for row in rows] == [0, 1, 2] * 24
    assert len({row["id"] for row in rows}) == 24
    right = chain.exact_match([], [row["completion"] for row in rows], [row["answers"] for row in rows])
    ended = [not row["truncated"] for row in rows]
    agree = [(row["status"] == "correct") == bool(r) for row, r, e in zip(rows, right, ended, strict=True) if e]
    assert sum(agree) >= 0.95 * len(agree), "the last number is nearly always the answer"
    results = json.loads((folder / "whole" / "results.json").read_text())
    task = results["tasks"]["chains"]
    assert (task["problems"], task["samples_per_problem"]) == (24, 3)
    assert task["accuracy"] == pytest.approx(sum(row["status"] == "correct" for row in rows) / 72)
    assert results["about"]["versions"]["torch"]
    assert results["about"]["model"] == MODEL
    generation = results["about"]["generation"]
    assert generation == {"end_ids": [2], "not_used": {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}}
    assert "72/72" in stdout


def test_vllm_answers_every_sample_anew(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", documented_vllm)
    monkeypatch.setattr("ktae.models.generate.choose_backend", lambda *asked: "vllm")
    tasks = (str(chains(tmp_path / "chains.jsonl", 2)),)
    answers = {}
    for samples in (8, 32):
        out = tmp_path / str(samples)
        evaluate(EvalSettings(MODEL, tasks, out, Sampling(1.0), samples=samples))
        answers[samples] = {(row["id"], row["sample"]): row["completion"] for row in read(out / "samples.jsonl")}
    assert len(set(answers[32].values())) == 64
    assert answers[8].items() < answers[32].items(), "more samples begin with the same ones"


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_cut_off_and_run_again_is_the_same(finished, sent):
    folder, _ = finished
    out = f"cut-off-{sent}"
    command = ["eval", MODEL, "--tasks", "chains.jsonl", *SAMPLED, "--out", out]
    options = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-m", "ktae", *command], **options)
    generations = folder / out / "generations.jsonl"
    while len(read(generations)) < 8:
        assert process.poll() is None, "ended before it could be stopped"
        time.sleep(0.01)
    process.send_signal(sent)
    _, stderr = process.communicate()
    if sent == signal.SIGINT:
        assert (process.returncode, stderr.splitlines()[-1]) == (130, "ktae: interrupted")
        assert "Traceback" not in stderr
    with generations.open("a") as file:
        file.write('{"task": "chai')
    again = ktae(*command, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "of 72 completions are there already" in again.stdout
    assert read(folder / out / "samples.jsonl") == read(folder / "whole" / "samples.jsonl")


@pytest.mark.slow
def test_folders_that_are_not_gone_on_with(finished, monkeypatch, capsys):
    folder, _ = finished
    monkeypatch.chdir(folder)
    (folder / "broken").mkdir()
    shutil.copy(folder / "whole" / "about.json", folder / "broken")
    (folder / "broken" / "generations.jsonl").write_text('{"task": "chains", "id": "99", "sample": 0}\n')
    for settings, out, message in (
        ([], "whole", "holds an evaluation with other settings (batch_tokens, samples, sampling)"),
        (SAMPLED, "broken", "broken/generations.jsonl, line 1, is no completion of these tasks"),
    ):
        assert main(["eval", MODEL, "--tasks", "chains.jsonl", *settings, "--out", out]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "math5000"], "unknown task 'math5000'"),
        (["--tasks", "none.jsonl"], "none.jsonl does not exist"),
        (["-n", "2"], "-n 2 needs a --temperature above 0"),
        (["--temperature", "-1"], "temperature must be at least 0"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--backend", "vllm"], "vLLM is not installed"),
        (["--data-dir", "none"], "aime24.jsonl does not exist"),
        (["--tasks", ","], "--tasks names no task"),
        (["runs/mistyped/model", "--tasks", "chains.jsonl"], "ktae: the model runs/mistyped/model does not exist"),
        (["mistyped", "--tasks", "chains.jsonl"], "ktae: the model mistyped is no local folder"),
        (["--tasks", "chains.jsonl", "--out", "other"], "other is not an empty folder and holds no evaluation"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_folder(tmp_path, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    chains(tmp_path / "chains.jsonl")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    assert main(["eval", *arguments] if "mistyped" in arguments[0] else ["eval", MODEL, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chains.jsonl", "other"]


def test_tasks_from_a_folder(tmp_path):
    for name in ("aime24", "minerva"):
        rows = [{"problem": f"{n % 97} S1 +{1 + n // 97} ?", "answers": [n + 1]} for n in range(TASKS[name].size)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = EvalSettings(MODEL, ("aime24", "minerva"), tmp_path / "out", Sampling(), data_dir=tmp_path, limit=4)
    results = evaluate(settings)
    assert results["about"]["known_defects"] == {"minerva": 30}
    assert results["tasks"]["aime24"]["problems"] == results["tasks"]["minerva"]["problems"] == 4
    assert results["macro"]


def test_grade(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    row = {"task_name": "minerva", "reward": 1.0}
    rows = [{**row, "prompt": f"{n}?", "gt": [f"{n}.0\n"], "model_output": rf"\boxed{{{n}}}"} for n in range(6)]
    rows[2]["model_output"] = r"\boxed{7}"
    rows[3]["reward"] = None
    (tmp_path / "outputs.json").write_text(json.dumps(rows))
    assert main(["grade", "outputs.json"]) == 0
    shown = capsys.readouterr().out
    results = json.loads((tmp_path / "outputs-graded" / "results.json").read_text())
    task = results["tasks"]["minerva"]
    assert (task["accuracy"], task["compared"], task["disagreements"]) == (pytest.approx(5 / 6), 5, 1)
    assert task["agreement"] == pytest.approx(4 / 5)
    (differing,) = read(tmp_path / "outputs-graded" / "disagreements.jsonl")
    assert (differing["id"], differing["stored"], differing["extracted"]) == ("2?", True, "7")
    assert "4 of 5 verdicts are as stored (80.0%)" in shown
    assert main(["grade", "outputs.json"]) == 2
    assert "outputs-graded is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["base", "base/", "."])
def test_grade_a_folder(tmp_path, monkeypatch, capsys, named):
    """An evaluation's folder, also the current one, stands for its samples.jsonl."""
    write(tmp_path / "base" / "samples.jsonl", [row(), row(id="1", status="incorrect")])
    monkeypatch.chdir(tmp_path / "base" if named == "." else tmp_path)
    assert main(["grade", named]) == 0
    assert "2 of 2 verdicts are as stored" in capsys.readouterr().out
    assert [row["status"] for row in read(tmp_path / "base-graded" / "samples.jsonl")] == ["correct", "incorrect"]


def test_grade_a_folder_without_outputs(tmp_path, capsys):
    (tmp_path / "base").mkdir()
    assert main(["grade", str(tmp_path / "base")]) == 2
    said = capsys.readouterr().err
    assert "base holds no rollouts: no file ends in .jsonl" in said
    assert "does not exist" not in said


def test_one_model_greedy_and_sampled(tmp_path, capsys):
    """Two real results: the comparison speaks of decoding first, and nowhere of models."""
    tasks = (str(chains(tmp_path / "chains.jsonl", 6)),)
    for name, sampling in (("greedy", Sampling(0.0, max_tokens=32)), ("sampled", Sampling(1.0, max_tokens=32))):
        evaluate(EvalSettings(MODEL, tasks, tmp_path / name, sampling))
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "greedy"), str(tmp_path / "sampled")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    first, colon, rest = said.partition(": ")
    assert first + colon == "A and B are one model, decoded differently (temperature 0.0 and 1.0): "
    assert rest.startswith("what follows is about decoding, not models. A is ")
    assert rest.count("models") == 1


@pytest.mark.slow
def test_the_papers_outputs(shared, tmp_path):
    outputs = shared / "data" / "graders" / "model_outputs_visible.jsonl.gz"
    result = ktae("grade", outputs, "--out", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    tasks = json.loads((tmp_path / "out" / "results.json").read_text())["tasks"]
    sizes = {"aime24": 15, "amc23": 42, "math500": 250, "minerva": 136, "olympiadbench": 337}
    assert {task: entry["problems"] for task, entry in tasks.items()} == sizes
    for task in ("aime24", "amc23", "math500", "olympiadbench"):
        assert tasks[task]["agreement"] > 0.99
    total = sum(entry["disagreements"] for entry in tasks.values())
    assert total == len(read(tmp_path / "out" / "disagreements.jsonl"))
