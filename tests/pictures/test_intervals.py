"""Marks and bars stand at the estimates."""

import pytest

pytest.importorskip("matplotlib")

from ktae.pictures.intervals import draw_intervals


def test_estimates():
    rows = {"amc": {"a": (50.0, 40.0, 65.0), "b": (0.0, 0.0, 3.0)}, "average": {"b": (100.0, 90.0, 100.0)}}
    axis = draw_intervals(rows, ["a", "b"], "accuracy, %", limit=100, total="average").axes[0]
    bars = [
        tuple(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2 and line.get_clip_on() is False
    ]
    marks = [line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 1]
    assert bars == [(40.0, 65.0), (0.0, 3.0), (90.0, 100.0)]
    assert marks == [50.0, 0.0, 100.0]
    assert [text.get_text() for text in axis.texts] == ["50.0", "0.0", "100.0"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["amc", "average"]
    names = [str(k) for k in range(8)]
    with pytest.raises(ValueError, match="7 lines can be told apart"):
        draw_intervals({"amc": dict.fromkeys(names, (1.0, 0.0, 2.0))}, names, "")
