"""`ktae eval` and `ktae grade` as a user runs them."""

import json
import signal
import subprocess
import sys
import time

import documented_vllm
import pytest
from graded import row
from saved import save

from ktae.chain import problems as chain
from ktae.cli import main
from ktae.files.json_lines import read, write

MODEL = "python:ktae/chain/weights"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with 24 problems in chains.jsonl."""
    monkeypatch.chdir(tmp_path)
    rows = [{"problem": row["prompt"], "answers": row["answers"]} for row in chain.test_problems()[:24]]
    save(tmp_path / "chains.jsonl", rows)
    return tmp_path


def evaluate(*arguments, tasks="chains.jsonl", out="out"):
    """What results.json holds, and the samples."""
    assert main(["eval", MODEL, "--tasks", tasks, "--out", out, *arguments]) == 0
    with open(f"{out}/results.json") as file:
        return json.load(file)


def test_what_it_leaves_and_what_reads_it(here, capsys):
    results = evaluate("-n", "3", "--temperature", "1", "--max-tokens", "64", "--batch-tokens", "600")
    assert "72/72" in capsys.readouterr().out
    assert sorted(path.name for path in (here / "out").iterdir()) == ["results.json", "samples.jsonl", "summary.md"]
    rows = read(here / "out" / "samples.jsonl")
    assert [row["sample"] for row in rows] == [0, 1, 2] * 24
    right = chain.exact_match([], [row["completion"] for row in rows], [row["answers"] for row in rows])
    agree = [row["reward"] == r for row, r in zip(rows, right, strict=True) if not row["truncated"]]
    assert sum(agree) >= 0.95 * len(agree), "the last number is nearly always the answer"
    task = results["tasks"]["chains"]
    assert (task["problems"], task["samples_per_problem"]) == (24, 3)
    assert task["accuracy"] == pytest.approx(sum(row["status"] == "correct" for row in rows) / 72)
    assert results["about"]["versions"]["torch"]
    assert results["about"]["model"] == MODEL
    generation = results["about"]["generation"]
    assert generation == {"end_ids": [2], "not_used": {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}}

    # The samples are rollouts with rewards, a group a problem.
    shown = ["--tokenizer", "words", "--permutations", "0"]
    assert main(["report", "out", *shown, "--out", "out.html"]) == 0
    assert "out.html: 24 prompts" in capsys.readouterr().out
    assert main(["explain", "out/samples.jsonl", *shown, "--group", f"chains/{rows[0]['id']}"]) == 0
    assert rows[0]["prompt"] in capsys.readouterr().out


def test_vllm_answers_every_sample_anew(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", documented_vllm)
    monkeypatch.setattr("ktae.models.generate.choose_backend", lambda *asked: "vllm")
    answers = {}
    for samples in ("8", "32"):
        evaluate("-n", samples, "--temperature", "1", "--limit", "2", out=samples)
        rows = read(here / samples / "samples.jsonl")
        answers[samples] = {(row["id"], row["sample"]): row["completion"] for row in rows}
    assert len(set(answers["32"].values())) == 64
    assert answers["8"].items() < answers["32"].items(), "more samples begin with the same ones"


@pytest.mark.slow
def test_what_an_interrupted_one_leaves_can_be_graded(here):
    command = ["eval", MODEL, "--tasks", "chains.jsonl", "--batch-tokens", "600", "--max-tokens", "64", "--out", "out"]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-m", "ktae", *command], **options)
    generations = here / "out" / "generations.jsonl"
    while len(read(generations)) < 8:
        assert process.poll() is None, "ended before it could be stopped"
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert (process.returncode, stderr.splitlines()[-1]) == (130, "ktae: interrupted")
    assert "Traceback" not in stderr
    assert main(["grade", str(generations), "--out", "graded"]) == 0
    assert len(read(here / "graded" / "samples.jsonl")) == len(read(generations)) < 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "none.jsonl"], "none.jsonl does not exist"),
        (["--tasks", ","], "--tasks names no task"),
        (["-n", "2"], "-n 2 needs a --temperature above 0"),
        (["--temperature", "-1"], "temperature must be at least 0"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--backend", "vllm"], "vLLM is not installed"),
        (["--data-dir", "none"], "aime24.jsonl does not exist"),
        (["runs/mistyped/model", "--tasks", "chains.jsonl"], "ktae: the model runs/mistyped/model does not exist"),
        (["mistyped", "--tasks", "chains.jsonl"], "ktae: the model mistyped is no local folder"),
        (["--tasks", "chains.jsonl", "--out", "other"], "other is not an empty folder; give another --out"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_folder(here, arguments, message, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (here / "other").mkdir()
    (here / "other" / "notes.txt").touch()
    assert main(["eval", *arguments] if "mistyped" in arguments[0] else ["eval", MODEL, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert sorted(path.name for path in here.iterdir()) == ["chains.jsonl", "other"]


def test_grade(here, capsys):
    row = {"task_name": "minerva", "reward": 1.0}
    rows = [{**row, "prompt": f"{n}?", "gt": [f"{n}.0\n"], "model_output": rf"\boxed{{{n}}}"} for n in range(100, 106)]
    rows[2]["model_output"] = r"\boxed{107}"
    rows[3]["reward"] = None
    rows[4]["model_output"] = r"\boxed{104.9}"  # within 1 %
    save(here / "outputs.json", rows)
    assert main(["grade", "outputs.json"]) == 0
    shown = capsys.readouterr().out
    task = json.loads((here / "outputs-graded" / "results.json").read_text())["tasks"]["minerva"]
    assert (task["accuracy"], task["agreement"]) == (pytest.approx(5 / 6), pytest.approx(4 / 5))
    (differing,) = read(here / "outputs-graded" / "disagreements.jsonl")
    assert (differing["id"], differing["stored"], differing["extracted"]) == ("102?", True, "107")
    assert " 80.0% |" in shown
    assert main(["grade", "outputs.json"]) == 2
    assert "outputs-graded is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["base/", "."])
def test_grade_a_folder(tmp_path, monkeypatch, capsys, named):
    """An evaluation's folder, also the current one, stands for its samples.jsonl."""
    write(tmp_path / "base" / "samples.jsonl", [row(), row(id="1", status="incorrect")])
    monkeypatch.chdir(tmp_path / "base" if named == "." else tmp_path)
    assert main(["grade", named]) == 0
    assert " 100.0% |" in capsys.readouterr().out
    assert [row["status"] for row in read(tmp_path / "base-graded" / "samples.jsonl")] == ["correct", "incorrect"]


@pytest.mark.slow
def test_the_papers_outputs(shared, tmp_path):
    outputs = shared / "data" / "graders" / "model_outputs_visible.jsonl.gz"
    assert main(["grade", str(outputs), "--out", str(tmp_path / "out")]) == 0
    tasks = json.loads((tmp_path / "out" / "results.json").read_text())["tasks"]
    sizes = {"aime24": 15, "amc23": 42, "math500": 250, "minerva": 136, "olympiadbench": 337}
    assert {task: entry["problems"] for task, entry in tasks.items()} == sizes
    assert all(tasks[task]["agreement"] > 0.99 for task in sizes if task != "minerva")
