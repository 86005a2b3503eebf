"""`ktae plot`: files of every format, the same each time, and mistakes that leave none."""

import json
import xml.etree.ElementTree

import pytest

from ktae.cli import main

pytest.importorskip("matplotlib")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"group": "g", "completion": f"so it is\n{x}", "reward": float(x == 42)} for x in (42, 43, 42)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "same.jsonl").write_text('{"group": 0, "token_ids": [1, 2], "reward": 1}\n' * 2)
    rows = [{"algorithm": "grpo", "step": step, "accuracy": step / 50, "odd": step} for step in range(1, 51)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("kind", ["heatmap", "keytokens", "curves"])
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_files(folder, kind, suffix):
    arguments = ["."] if kind == "curves" else ["r.jsonl", "--group", "g", "--tokenizer", "words"]
    for i in range(2):
        assert main(["plot", kind, *arguments, "--out", f"{i}.{suffix}"]) == 0
    first, second = ((folder / f"{i}.{suffix}").read_bytes() for i in range(2))
    assert first == second
    assert first.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])
    if suffix == "svg":
        xml.etree.ElementTree.fromstring(first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curves", ".", "--metrics", "loss", "--out", "a.png"], "metrics must be among accuracy, odd, got loss"),
        (["curves", "none", "--out", "a.png"], "none does not exist"),
        (["curves", ".", "--out", "a.jpg"], "--out must end in .png, .svg, .pdf, got a.jpg"),
        (["heatmap", "r.jsonl", "--group", "g", "--lines", "0", "--out", "a.png"], "--lines must be >= 1, got 0"),
        (["keytokens", "same.jsonl", "--group", "0", "--out", "a.png"], "no key tokens: all values are 0"),
    ],
)
def test_mistakes(folder, capsys, arguments, message):
    assert main(["plot", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "a.png").exists()
