"""The experiments' committed tables are those of their committed rows."""

import runpy
import shutil
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    ("name", "scripts", "count"), [("credit", ["tables"], 5), ("replication", ["tables", "predicts"], 3)]
)
def test_the_committed_tables_are_those_of_the_committed_rows(tmp_path, monkeypatch, name, scripts, count):
    monkeypatch.setattr("sys.argv", ["predicts.py"])
    for path in (EXPERIMENTS / name).glob("*.jsonl"):
        shutil.copy(path, tmp_path)
    for script in scripts:
        runpy.run_path(shutil.copy(EXPERIMENTS / name / f"{script}.py", tmp_path), run_name="__main__")
    made = list(tmp_path.glob("*.md"))
    assert len(made) == count
    for path in made:
        assert path.read_text() == (EXPERIMENTS / name / path.name).read_text()
