"""The report's file: what is embedded and how, and which groups are kept when not all fit."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_browser import save

from ktae.cli import main
from ktae.report.page_groups import PackedGroup, Sample
from ktae.report.page_html import embedded

WORDS = ("--tokenizer", "words")


class Scripts(HTMLParser):
    """The contents of a page's script elements by id, as a browser's parser takes them apart."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.found, self.tags, self._id = {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "script":
            self._id = dict(attrs).get("id", "code")

    def handle_endtag(self, tag):
        if tag == "script":
            self._id = None

    def handle_data(self, data):
        if self._id:
            self.found[self._id] = self.found.get(self._id, "") + data


def report(path, *arguments, out):
    assert main(["report", str(path), *WORDS, "--out", str(out), *arguments]) == 0
    return Scripts(out.read_text())


def data_of(page):
    groups = [json.loads(gzip.decompress(base64.b64decode(group))) for group in json.loads(page.found["groups"])]
    return json.loads(page.found["report"]), groups


def rows_of(groups, rollouts=4):
    return [
        {"group": f"g{g}", "prompt": f"prompt {g}", "completion": f"so {g} and {r} is {g * r}", "reward": float(r % 2)}
        for g in range(groups)
        for r in range(rollouts)
    ]


@given(st.recursive(st.text() | st.none() | st.integers(), st.lists))
def test_embedded_data_is_inert_and_comes_back(value):
    text = embedded(value)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == value


def packed(name, size):
    return PackedGroup({"id": name}, "x" * size, 1)


@given(
    st.lists(st.tuples(st.text(max_size=5), st.integers(0, 400)), unique_by=lambda item: item[0]),
    st.integers(0, 2000),
    st.randoms(),
)
def test_a_sample_fits_and_does_not_depend_on_the_order(items, limit, random):
    kept = []
    for _ in range(2):
        sample = Sample(limit)
        for name, size in items:
            sample.add(packed(name, size))
        groups = sample.groups()
        assert sum(group.size for group in groups) <= limit
        order = [name for name, _ in items]
        assert [group.entry["id"] for group in groups] == sorted((g.entry["id"] for g in groups), key=order.index)
        kept.append({group.entry["id"] for group in groups})
        random.shuffle(items)
    assert kept[0] == kept[1]
    if sum(packed(*item).size for item in items) <= limit:
        assert len(kept[0]) == len(items)


def test_a_page_that_would_be_too_large_holds_a_sample_and_says_so(tmp_path, monkeypatch):
    path = save(tmp_path / "rollouts.jsonl", rows_of(60))
    whole = tmp_path / "whole.html"
    shown, groups = data_of(report(path, out=whole))
    assert len(groups) == len(shown["prompts"]) == 60
    assert not any("prompts are shown" in note for note in shown["notes"])

    limit = whole.stat().st_size - 10_000
    monkeypatch.setattr("ktae.report.page_write.LIMIT", limit)
    part = tmp_path / "part.html"
    shown, groups = data_of(report(path, out=part))
    assert part.stat().st_size <= limit
    assert 0 < len(groups) == len(shown["prompts"]) < 60
    assert any(note.startswith(f"{len(groups)} of 60 prompts are shown") for note in shown["notes"])
    assert dict(shown["summary"])["prompts"] == "60"
    assert dict(shown["summary"])["rollouts"] == "240"

    monkeypatch.setattr("ktae.report.page_write.LIMIT", 50_000)
    assert main(["report", str(path), *WORDS, "--out", str(tmp_path / "none.html")]) == 2
    assert not (tmp_path / "none.html").exists()


def test_same_rollouts_same_page(tmp_path):
    path = save(tmp_path / "rollouts.jsonl", rows_of(3))
    report(path, out=tmp_path / "a.html")
    report(path, out=tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_saved_rollout_advantages_are_shown_and_otherwise_grpos(tmp_path):
    rows = [{"group": 1, "completion": str(r), "reward": float(r % 2)} for r in range(2)]
    _, (group,) = data_of(report(save(tmp_path / "a.jsonl", rows), out=tmp_path / "a.html"))
    assert [rollout["advantage"] for rollout in group["rollouts"]] == pytest.approx([-0.707106, 0.707106], abs=1e-5)
    for row in rows:
        row["rollout_advantage"] = 3 - row["reward"]
    _, (group,) = data_of(report(save(tmp_path / "b.jsonl", rows), out=tmp_path / "b.html"))
    assert [rollout["advantage"] for rollout in group["rollouts"]] == [3.0, 2.0]


def test_malformed_rows_are_counted_on_the_page_or_stop_the_report(tmp_path, capsys):
    path = save(tmp_path / "rollouts.jsonl", [*rows_of(1), {"group": "g0", "completion": "x", "reward": "high"}])
    shown, (group,) = data_of(report(path, out=tmp_path / "a.html"))
    assert len(group["rollouts"]) == 4
    assert any(f"1 malformed row is left out: {path}:5:" in note for note in shown["notes"])
    assert main(["report", str(path), "--out", str(tmp_path / "b.html"), *WORDS, "--strict"]) == 2
    assert f"{path}:5:" in capsys.readouterr().err
    assert not (tmp_path / "b.html").exists()


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([], (), "holds no usable rows"),
        (rows_of(1), (), "give the model's tokenizer"),
        (
            [{"group": 1, "token_ids": [1, 2], "reward": 1.0}],
            (),
            "group 1 must have token_texts, one for each of its token ids",
        ),
        ([{"group": 1, "token_ids": [1, 2], "reward": 1.0}], WORDS, "--tokenizer must be the one they are from"),
        (
            [{"group": 1, "token_ids": [1], "token_texts": ["a", "b"], "reward": 1.0}],
            (),
            "group 1 must have token_texts, one for each of its token ids",
        ),
        (rows_of(1), ("--tokenizer", "./nowhere"), "--tokenizer must be"),
        (rows_of(1), (*WORDS, "--reward-column", "marks"), "reward names the column 'marks'"),
        (rows_of(1), (*WORDS, "--out", "nowhere/report.html"), "--out must be in a folder that exists"),
    ],
)
def test_mistakes_are_named_and_leave_no_file(tmp_path, monkeypatch, capsys, rows, arguments, message):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "rollouts.jsonl", rows)
    assert main(["report", str(path), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("**/*.html*"))


def test_scores_are_reported_as_they_were_scored(tmp_path, capsys):
    path = save(tmp_path / "rollouts.jsonl", rows_of(3))
    scores = tmp_path / "scores.jsonl"
    setting = ("--set", "term_frequency_weight=0.0")
    assert main(["score", str(path), "--out", str(scores), *WORDS, *setting]) == 0
    assert main(["report", str(scores), "--out", str(tmp_path / "a.html")]) == 2
    assert "key_token_values must be those of the settings" in capsys.readouterr().err
    assert main(["report", str(scores), "--out", str(tmp_path / "a.html"), *setting]) == 0
    report(path, *setting, out=tmp_path / "b.html")
    (_, of_scores), (_, of_rollouts) = (
        data_of(Scripts((tmp_path / name).read_text())) for name in ("a.html", "b.html")
    )
    assert of_scores == of_rollouts


def test_centred_values_are_those_of_the_tokens(tmp_path):
    setting = ("--set", "centered=True")
    _, groups = data_of(report(save(tmp_path / "a.jsonl", rows_of(2)), *setting, out=tmp_path / "a.html"))
    assert [group["scale"] for group in groups] == [2, 2]
    moved = []
    for group in groups:
        for rollout in group["rollouts"]:
            plain = [group["units"]["value"][unit] for unit in rollout["units"]]
            mean = sum(plain) / len(plain)
            moved.append(mean)
            assert rollout["values"] == pytest.approx([value - mean for value in plain], abs=1e-5)
    assert any(moved)
