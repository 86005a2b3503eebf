"""The command line as a whole; what each command does is tested with its module."""

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import ktae
from ktae.chain.problems import test_problems
from ktae.cli import COMMANDS, build_parser, main

DOCS = Path(__file__).parents[1] / "docs"
# A folder that cannot be made: there is a file where a folder of its path should be.
IMPOSSIBLE = f"{__file__}/out"


def test_python_m_ktae():
    result = subprocess.run([sys.executable, "-m", "ktae", "--version"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"ktae {ktae.__version__}\n")
    (script,) = entry_points(group="console_scripts", name="ktae")
    assert script.load() is main
    assert set(ktae.__all__) <= set(dir(ktae))


def test_help_loads_no_torch():
    """One process builds the parsers in turn and says which was the first with torch."""
    code = (
        "import sys; from ktae.cli import build_parser\n"
        "for command in sys.argv[1:]:\n"
        "    build_parser(command)\n"
        "    assert 'torch' not in sys.modules, command"
    )
    subprocess.run([sys.executable, "-c", code, "", *COMMANDS], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_parse_and_a_page_to_read(command, capsys):
    module, page, _ = COMMANDS[command]
    assert (DOCS / page).is_file()
    parser, text = build_parser(command), importlib.import_module(module).__doc__
    for example in re.findall(r"^ *ktae (.*)", text, re.MULTILINE):
        parser.parse_known_args(shlex.split(example))
    with pytest.raises(SystemExit, match="0"):
        parser.parse_args([command, "--help"])
    shown = capsys.readouterr().out
    assert f"`ktae {command}" in shown or command == "bench"
    assert shown.endswith(f"read on: docs/{page}\n")


@pytest.fixture
def rows(tmp_path):
    problem = test_problems()[0]
    row = {"problem": problem["prompt"], "answer": problem["answers"], "answers": problem["answers"]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    return str(tmp_path / "rows.jsonl")


def test_what_the_system_refuses_is_one_line_with_the_path(rows, capsys):
    prepare, evaluate = ["data", "prepare", rows], ["eval", "python:ktae/chain/weights", "--tasks", rows]
    for arguments in ([*prepare, "--out", f"{IMPOSSIBLE}/x.jsonl"], [*evaluate, "--out", IMPOSSIBLE]):
        assert main(arguments) == 2
        shown = capsys.readouterr().err
        assert shown.splitlines()[-1] == f"ktae: {IMPOSSIBLE}: Not a directory"
        assert "Traceback" not in shown


def test_our_own_faults_keep_their_traceback(monkeypatch, rows):
    monkeypatch.setattr("ktae.evaluation.grade.grade_rows", lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["eval", "python:ktae/chain/weights", "--tasks", rows, "--out", f"{rows}-out", "--max-tokens", "1"])


def test_a_reader_that_has_seen_enough(rows):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ktae", "data", "prepare", rows, "--out", f"{rows}.out.jsonl"]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert result.returncode == 128 + signal.SIGPIPE
    assert "BrokenPipe" not in result.stderr


def complete(line):
    """What the shell would offer at the end of a line."""
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    read, write = os.pipe()
    code = f"import os; os.dup2({write}, 8); os.dup2({write}, 9); from ktae.cli import main; main()"
    subprocess.run([sys.executable, "-c", code], env=os.environ | asked, pass_fds=[write], check=True)
    os.close(write)
    with os.fdopen(read) as offered:
        return {word.strip() for word in offered.read().split("\n")}


def test_completion():
    pytest.importorskip("argcomplete")
    assert {"train", "eval", "report"} <= complete("ktae ")
    assert complete("ktae ev") == {"eval"}
    assert {"--tasks", "--temperature"} <= complete("ktae eval --t")
