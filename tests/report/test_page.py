"""The report's file: what is embedded and how."""

import base64
import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saved import save

from ktae.cli import main
from ktae.report.page import embedded

WORDS = ("--tokenizer", "words")
SYSTEM = {"role": "system", "content": "Be brief."}


def report(path, *arguments, out):
    """Writes a page; what it holds: the report and its groups, taken apart at the ends of the script elements."""
    assert main(["report", str(path), *arguments, "--out", str(out)]) == 0
    held = dict(re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', out.read_text()))
    groups = [json.loads(gzip.decompress(base64.b64decode(group))) for group in json.loads(held["groups"])]
    return json.loads(held["report"]), groups


@pytest.fixture
def rollouts(tmp_path):
    """A file of three groups of four rollouts."""
    rows = [(g, r, [SYSTEM, {"role": "user", "content": f"6 * {g}?"}]) for g in range(3) for r in range(4)]
    rows = [{"group": g, "prompt": p, "completion": f"so {g} and {r} is {g * r}", "reward": r % 2} for g, r, p in rows]
    return save(tmp_path / "r.jsonl", rows)


@given(st.recursive(st.text() | st.none() | st.integers(), st.lists))
def test_embedded_data_is_inert_and_comes_back(value):
    text = embedded(value)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == value


def test_the_same_rollouts_make_the_same_page(rollouts, tmp_path):
    first, second = tmp_path / "first.html", tmp_path / "second.html"
    shown, groups = report(rollouts, *WORDS, out=first)
    assert len(groups) == len(shown["prompts"]) == 3
    assert shown["notes"] == ["The tokens here are words and punctuation marks, not those of a model."]
    assert dict(shown["summary"]).items() >= {"prompts": "3", "rollouts": "12"}.items()
    report(rollouts, *WORDS, out=second)
    assert first.read_bytes() == second.read_bytes()


def test_the_title_stands_once_and_prompts_are_listed_without_what_all_begin_with(rollouts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, source in (("r.jsonl", ""), (rollouts, str(tmp_path))):
        shown, (_, group, _) = report(path, *WORDS, out=tmp_path / "a.html")
        assert (shown["title"], shown["source"]) == ("r.jsonl", source)
        assert (shown["prompts"][1]["prompt"], group["prompt"]) == ("6 * 1?", "Be brief.\n6 * 1?")


def test_saved_rollout_advantages_are_shown_and_otherwise_grpos(tmp_path):
    rows = [{"group": 1, "completion": str(r), "reward": float(r % 2)} for r in range(2)]
    saved = [{**row, "rollout_advantage": 3 - row["reward"]} for row in rows]
    for of_rows, expected in ((rows, [-0.707106, 0.707106]), (saved, [3.0, 2.0])):
        _, (group,) = report(save(tmp_path / "r.jsonl", of_rows), *WORDS, out=tmp_path / "a.html")
        assert [rollout["advantage"] for rollout in group["rollouts"]] == pytest.approx(expected, abs=1e-5)


def test_scores_are_reported_as_they_were_scored(rollouts, tmp_path, capsys):
    scores, out, setting = tmp_path / "s.jsonl", tmp_path / "a.html", ("--set", "term_frequency_weight=0.0")
    assert main(["score", str(rollouts), "--out", str(scores), *WORDS, *setting]) == 0
    assert main(["report", str(scores), "--out", str(out)]) == 2
    assert "key_token_values must be those of the settings" in capsys.readouterr().err
    assert report(scores, *setting, out=out)[1] == report(rollouts, *WORDS, *setting, out=out)[1]


def test_centred_values_are_those_of_the_tokens(rollouts, tmp_path):
    _, groups = report(rollouts, *WORDS, "--set", "centered=True", out=tmp_path / "a.html")
    moved = []
    for group in groups:
        assert group["scale"] == 2
        for rollout in group["rollouts"]:
            plain = [group["units"]["value"][unit] for unit in rollout["units"]]
            moved.append(sum(plain) / len(plain))
            assert rollout["values"] == pytest.approx([value - moved[-1] for value in plain], abs=1e-5)
    assert any(moved)


def test_the_gallerys_pages_name_no_folder_of_one_machine():
    pages = sorted((Path(__file__).parents[2] / "docs" / "gallery").glob("*.html"))
    assert len(pages) >= 3
    for page in pages:
        (source,) = re.findall(r'"source":"([^"]*)"', page.read_text())
        assert not Path(source).is_absolute(), page
