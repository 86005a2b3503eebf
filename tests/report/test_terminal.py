"""`ktae explain` as people run it: into a pipe, and on a terminal."""

import os
import pty
import re
import subprocess
import sys

import pytest
from page_browser import row
from saved import save

from ktae.cli import main
from ktae.pictures.style import BLAME, CREDIT

pytest.importorskip("rich")

HOSTILE = "\x1b[2Jwipe [bold red]tag[/] \N{RIGHT-TO-LEFT OVERRIDE}back"
ROWS = [*(row("sum", f"it is {x}", float(x == 42), "6 * 7?") for x in (42, 43, 42)), row("bad", HOSTILE, None)]
SUM = [sys.executable, "-m", "ktae.cli", "explain", "r.jsonl", "--tokenizer", "words", "--group", "sum"]


@pytest.fixture
def explained(tmp_path, monkeypatch, capsys):
    """Explains rows; r.jsonl is in the current folder."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "r.jsonl", ROWS)

    def explain(*arguments, path="r.jsonl", tokenizer=("--tokenizer", "words")):
        assert main(["explain", path, *tokenizer, *arguments]) == 0
        return capsys.readouterr().out

    return explain


def test_piped_output_is_plain(explained):
    out = subprocess.run([*SUM, "--top", "3"], capture_output=True, text=True, check=True).stdout
    assert "\x1b" not in out
    assert "row 1: correct, reward 1, rollout advantage +0.58\nit is 42\n" in out
    assert out.index("row 3: correct") < out.index("row 2: incorrect")
    cells = next(line.split() for line in out.splitlines() if line.startswith("' 42'"))
    assert cells[2:7] == ["+1.000", "2/2", "0/1", "2", "0.333"]
    assert "0 of 4 different tokens have an adjusted p of at most 0.05." in out
    assert "1 more; --top 0 shows all" in out
    assert len([line for line in out.splitlines() if line.startswith("'")]) == 3


def test_on_a_terminal_tokens_are_coloured(explained, monkeypatch):
    """Through a real pseudo-terminal."""
    for name, value in {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "100", "LINES": "50"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = b""

    def read(end):
        nonlocal out
        out += (data := os.read(end, 65536))
        return data

    assert pty.spawn(SUM, read) == 0
    for color, token in ((CREDIT, " 42"), (BLAME, " 43")):
        channels = ";".join(str(part) for part in bytes.fromhex(color[1:]))
        assert f"\x1b[1;38;2;{channels}m{token}".encode() in out
    assert b"it is\x1b" in out


def test_groups_are_listed(explained):
    out = explained()
    assert re.search(r"^ +1 +sum +3 +2 +6 \* 7\?", out, re.MULTILINE)
    assert "4 rollouts, 2 groups, 1 groups with both outcomes, 1 unscored" in out


def test_model_output_cannot_steer_the_terminal(explained):
    out = explained("--group", "bad", "--top", "0")
    assert "\x1b" not in out
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in out
    assert "\\x1b[2Jwipe [bold red]tag[/] \\u202eback" in out
    assert "row 4: unscored, reward nan" in out


def test_a_group_that_is_all_correct_has_a_sentence_in_place_of_a_table(explained):
    out = explained("--group", "sum", "--set", "correct_above=-1")
    assert "All 3 scored rollouts are correct: there is nothing to compare" in out
    assert not any(word in out for word in ("Fisher", "shuffled p", "+1.000"))


def test_token_ids_without_a_tokenizer(explained, tmp_path):
    save(tmp_path / "ids.jsonl", [{"group": 1, "token_ids": [5, x], "reward": x} for x in (0, 1)])
    assert "\n<5><1>\n" in explained("--group", "1", path="ids.jsonl", tokenizer=())
