"""The credit benchmark's committed tables are those of its committed rows."""

import runpy
import shutil
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "experiments" / "credit"


def test_the_committed_tables_are_those_of_the_committed_rows(tmp_path):
    rows = sorted(FOLDER.glob("*.jsonl"))
    assert rows
    (tmp_path / "credit").mkdir()
    (tmp_path / "replication").mkdir()
    shutil.copy(FOLDER.parent / "replication" / "first_runs.jsonl", tmp_path / "replication")
    for path in (*rows, *FOLDER.glob("*.py")):
        shutil.copy(path, tmp_path / "credit")
    for script in ("tables.py", "predicts.py"):
        runpy.run_path(str(tmp_path / "credit" / script), run_name="__main__")
    for committed in (*(path.with_suffix(".md") for path in rows), FOLDER / "predicts.md"):
        assert (tmp_path / "credit" / committed.name).read_text() == committed.read_text()
