"""The credit benchmark's committed tables are those of its committed rows."""

import runpy
import shutil
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "experiments" / "credit"


def test_the_committed_tables_are_those_of_the_committed_rows(tmp_path):
    rows = sorted(FOLDER.glob("*.jsonl"))
    assert rows
    for path in (*rows, FOLDER / "tables.py"):
        shutil.copy(path, tmp_path)
    runpy.run_path(str(tmp_path / "tables.py"), run_name="__main__")
    for path in rows:
        assert (tmp_path / path.with_suffix(".md").name).read_text() == path.with_suffix(".md").read_text()
