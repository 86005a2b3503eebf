"""Pictures: files of every format, the same each time, with what they are to show."""

import json
import xml.etree.ElementTree

import numpy as np
import pytest

from ktae.cli import main

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from matplotlib import pyplot
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from ktae.config import KTAEConfig
from ktae.files.tokens import Words
from ktae.report.figure_curves import draw_curves, read_curves
from ktae.report.figure_groups import BLAME, CREDIT, draw_heatmap, draw_key_tokens
from ktae.report.groups import load_group

HOSTILE = "$x^2$ \\frac{1 \x1b[2J \N{RIGHT-TO-LEFT OVERRIDE} \N{CJK UNIFIED IDEOGRAPH-6570} <b>&amp; \t\n\n" + "a" * 300


@pytest.fixture
def rollouts(tmp_path):
    texts = ["so it is\n42", "so it is 43", "it is 42", HOSTILE]
    rows = [{"group": "g", "completion": text, "reward": float("42" in text)} for text in texts]
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def group(rollouts):
    return load_group(rollouts, "g", {}, (), KTAEConfig(), Words(), strict=True, permutations=100)


@pytest.fixture
def run(tmp_path):
    rows = [
        {"algorithm": algorithm, "step": step, "accuracy": step / 50, "entropy": float("nan"), "odd": step}
        for algorithm in ("grpo", "grpo_ktae")
        for step in range(1, 51)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("kind", ["heatmap", "keytokens", "curves"])
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_files(tmp_path, rollouts, run, kind, suffix):
    arguments = [str(run)] if kind == "curves" else [str(rollouts), "--group", "g", "--tokenizer", "words"]
    files = [tmp_path / f"{i}.{suffix}" for i in range(2)]
    for file in files:
        assert main(["plot", kind, *arguments, "--out", str(file)]) == 0
    first, second = (file.read_bytes() for file in files)
    assert first == second
    assert first.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])
    if suffix == "svg":
        xml.etree.ElementTree.fromstring(first)
    if suffix == "png" and kind == "heatmap":
        pixels = pyplot.imread(files[0])[..., :3]
        for color in (BLAME, CREDIT):
            assert (np.abs(pixels - to_rgb(color)).max(axis=-1) < 0.01).sum() > 100


def test_heatmap_shows_every_token_on_its_ground(group):
    figure = draw_heatmap(group, shown=8, lines=50)
    axis = figure.axes[0]
    shown = "".join(text.get_text() for text in axis.texts if text.get_fontfamily() == ["DejaVu Sans Mono"])
    for token in ("so", " it", " is", " 43", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}", "\N{RIGHTWARDS ARROW}"):
        assert token in shown
    assert "a" * 90 in shown
    assert "\x1b" not in shown
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in shown
    headings = [text.get_text() for text in axis.texts if text.get_weight() == "bold"]
    assert [heading.split(",")[0] for heading in headings] == ["correct"] * 2 + ["incorrect"] * 2
    grounds = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    valued = sum(value != 0 for values in group.values for value in values)
    assert len(grounds) >= valued > 5
    assert max(patch.get_x() + patch.get_width() for patch in grounds) <= axis.get_xlim()[1]
    pyplot.close(figure)


def test_heatmap_says_what_it_leaves_out(group):
    figure = draw_heatmap(group, shown=2, lines=1)
    headings = [text.get_text() for text in figure.axes[0].texts if text.get_weight() == "bold"]
    assert [heading.split(",")[0] for heading in headings] == ["correct", "incorrect"]
    assert [heading.split(", ")[2:] for heading in headings] == [["1 more token"], []]
    pyplot.close(figure)


def test_key_tokens(group):
    figure = draw_key_tokens(group.table, top=4)
    left, right = figure.axes
    values = [patch.get_width() for patch in left.patches]
    assert values == sorted(values, reverse=True)
    rows = {row["text"].replace(" ", "\N{OPEN BOX}"): row for row in group.table.rows()}
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert len(labels) == 4
    for y, label in enumerate(labels):
        row = next(row for text, row in rows.items() if repr(text)[1:-1][:20] == label[:20])
        assert values[y] == pytest.approx(row["value"])
        marks = sorted(
            line.get_xdata()[0] for line in right.lines if line.get_marker() in "os" and list(line.get_ydata()) == [y]
        )
        assert marks == pytest.approx(sorted((row["a"] / (row["a"] + row["c"]), row["b"] / (row["b"] + row["d"]))))
    pyplot.close(figure)


def test_curves(run):
    curves, last = read_curves(run, None)
    assert list(curves) == ["accuracy"]
    assert last == 50
    figure = draw_curves(curves, last)
    raw, mean = (line for line in figure.axes[0].lines[:2])
    steps = np.arange(1, 51)
    np.testing.assert_allclose(raw.get_ydata(), steps / 50)
    expected = [steps[i : i + 2].mean() / 50 for i in range(50)]  # 50 // 20 updates
    np.testing.assert_allclose(np.asarray(mean.get_ydata()), expected)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["grpo", "grpo_ktae"]
    pyplot.close(figure)
    assert list(read_curves(run, ["odd"])[0]) == ["odd"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curves", ".", "--metrics", "loss", "--out", "a.png"], "--metrics must be among accuracy, odd, got loss"),
        (["curves", "none", "--out", "a.png"], "none does not exist"),
        (["curves", ".", "--out", "a.jpg"], "--out must end in .png, .svg, .pdf, got a.jpg"),
        (["heatmap", "r.jsonl", "--group", "g", "--lines", "0", "--out", "a.png"], "--lines must be >= 1, got 0"),
        (["keytokens", "same.jsonl", "--group", "0", "--out", "a.png"], "no key tokens: all values are 0"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, rollouts, run, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "same.jsonl").write_text('{"group": 0, "token_ids": [1, 2], "reward": 1}\n' * 2)
    assert main(["plot", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
