"""Mistakes in what the commands for saved rollouts are given: named in a line, and nothing is left behind."""

import json

import pytest
from saved import save

from ktae.cli import main

TEXTS = [{"group": "g", "completion": f"it is {x}", "reward": float(x == 42)} for x in (42, 43, 42)]
IDS = [{"group": 1, "token_ids": [1, 2], "reward": 1.0}] * 2
NO_TEXTS = "group 1 must have token_texts, one for each of its token ids"
METRICS = [{"algorithm": "grpo", "step": step, "accuracy": step / 50, "odd": step} for step in range(1, 3)]


@pytest.mark.parametrize(
    ("arguments", "rows", "message"),
    [
        ("score r.jsonl --set scales=1", TEXTS, "--set must be NAME=VALUE with a name among fisher_weight"),
        ("report r.jsonl --set scale='x'", [], "scale must be a finite number"),  # before anything is read
        ("report r.jsonl", [], "holds no usable rows"),
        ("score r.jsonl --reward-column r", TEXTS, "reward names the column 'r', and the first rows have only group, "),
        ("score r.jsonl", TEXTS, "row 1 has no token ids: give the model's tokenizer"),
        ("explain r.jsonl --tokenizer words --group 1", IDS, "row 1 has token ids: --tokenizer must be"),
        ("report r.jsonl --tokenizer ./nowhere", TEXTS, "--tokenizer must be words or a tokenizer's name or path"),
        ("score r.jsonl --tokenizer words --out s.csv", TEXTS, "--out must end in .jsonl, got s.csv"),
        ("report r.jsonl", IDS, NO_TEXTS),
        ("report r.jsonl", [{**IDS[0], "token_texts": ["a"]}], NO_TEXTS),
        ("report r.jsonl --tokenizer words --out no/a.html", TEXTS, "--out must be in a folder that exists"),
        ("explain r.jsonl --tokenizer words --group none", TEXTS, "--group must be the label of a group in r.jsonl"),
        ("explain r.jsonl --tokenizer words --top -1", TEXTS, "--top must be >= 0, got -1"),
        ("explain r.jsonl --tokenizer words --group g --permutations -1", TEXTS, "permutations must be an integer"),
        ("plot curves r.jsonl --out a.png", [{"step": 1, "odd": 2}], "there are no curves to draw"),
        ("plot curves none --out a.png", TEXTS, "none does not exist"),
        ("plot curves r.jsonl --out a.jpg", METRICS, "--out must end in .png, .svg, .pdf, got a.jpg"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, arguments, rows, message):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "r.jsonl", rows)
    assert main(arguments.replace("'", '"').split()) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


def test_a_tokenizer_that_cannot_be_the_right_one(tmp_path, capsys):
    import tiny_model

    tiny_model.tokenizer().save_pretrained(tmp_path / "tokenizer")
    path = save(tmp_path / "r.jsonl", [{**IDS[0], "token_ids": [1, 10**6]}])
    assert main(["score", str(path), "--tokenizer", str(tmp_path / "tokenizer")]) == 2
    assert "got 1000000: name the tokenizer that made them" in capsys.readouterr().err


def test_malformed_rows_are_counted_and_named(tmp_path, capsys):
    path, out = save(tmp_path / "r.jsonl", [TEXTS[0], "{", '{"group": "g", "completion": "x"}', "", *TEXTS[1:]]), []
    for command, suffix in (("score", "jsonl"), ("report", "html")):
        out.append(tmp_path / f"out.{suffix}")
        assert main([command, str(path), "--tokenizer", "words", "--out", str(out[-1])]) == 0
        shown = capsys.readouterr()
        assert "2 malformed rows left out" in shown.err
    assert [json.loads(line)["rollout_row"] for line in out[0].read_text().splitlines()] == [1, 5, 6]
    assert f"Malformed rows left out: 2. The first is {path}:2: not valid JSON" in shown.out
