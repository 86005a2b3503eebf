"""Curves of a run: read once, smoothed once, drawn by one function."""

import numpy as np
import pytest
from saved import save

pytest.importorskip("matplotlib")

from ktae.pictures.curves import SMOOTHED, draw_curves, read_curves, running_mean
from ktae.pictures.style import SERIES


@pytest.fixture
def metrics(tmp_path):
    def write(steps):
        logged = [{"step": k, "accuracy": (k % 7) / 50, "entropy": float("nan"), "kl": k, "odd": k} for k in steps]
        save(tmp_path / "metrics.jsonl", [{"algorithm": a, **row} for a in ("grpo", "grpo_ktae") for row in logged])
        return tmp_path

    return write


def test_reading(metrics):
    run = metrics(range(1, 4))
    assert list(read_curves(run)) == ["accuracy", "kl"]
    assert read_curves(run / "metrics.jsonl")["kl"] == dict.fromkeys(("grpo", "grpo_ktae"), ([1, 2, 3],) * 2)
    for text in ('{"step": 4, "algo', 'rithm": "x"}\n{"loss": 1}\n'):  # the first is being written
        assert read_curves(run)["accuracy"]["grpo"][0] == [1, 2, 3]
        with (run / "metrics.jsonl").open("a") as file:
            file.write(text)
    with pytest.raises(ValueError, match=r"metrics.jsonl:8: not a row of metrics, which has a step"):
        read_curves(run)
    with pytest.raises(ValueError, match="no curves to draw"):
        draw_curves({})


@pytest.mark.parametrize("steps", [1, 19, 20, 50, 333])
def test_the_line_is_a_centred_mean_over_a_tenth(steps):
    values = np.random.default_rng(0).random(steps)
    half = steps // 20
    expected = [np.mean([values[j] for j in range(steps) if abs(j - k) <= half]) for k in range(steps)]
    np.testing.assert_allclose(running_mean(values.tolist()), expected)


def test_drawing(metrics):
    figure = draw_curves(read_curves(metrics(range(1, 51))), {"grpo": "GRPO"}, "a run")
    accuracy, kl = figure.axes
    titles = accuracy.get_title("left"), kl.get_title("left")
    assert titles == ("Accuracy of the training rollouts", "KL from the reference, nats")
    raw, mean = accuracy.lines[:2]
    np.testing.assert_allclose(raw.get_ydata(), [step % 7 / 50 for step in range(1, 51)])
    np.testing.assert_allclose(mean.get_ydata(), running_mean(raw.get_ydata()))
    assert (raw.get_color(), mean.get_color()) == (SERIES[0], SERIES[0])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["GRPO", "grpo_ktae"]


@pytest.mark.parametrize("steps", [1, 2, 3, 15])
def test_short_runs_have_ticks_at_whole_updates_and_nothing_faint(metrics, steps):
    figure = draw_curves(read_curves(metrics(range(1, steps + 1))))
    figure.canvas.draw()
    axis = figure.axes[0]
    assert [tick % 1 for tick in axis.get_xticks()] == [0] * len(axis.get_xticks())
    assert all(line.get_alpha() is None for line in axis.lines)
    assert SMOOTHED not in figure.get_supxlabel()
