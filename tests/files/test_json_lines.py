"""JSON lines that survive a kill."""

from pathlib import Path

from ktae.files.json_lines import append, read, write
from ktae.train.folder import forget_after


def test_rows_come_back(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    assert read(path) == []
    write(path, [{"a": 1}])
    append(path, [{"a": "zwei\n"}, {"a": None}])
    assert read(path) == [{"a": 1}, {"a": "zwei\n"}, {"a": None}]
    write(path, [{"b": 2}])
    assert read(path) == [{"b": 2}]
    assert list(path.parent.iterdir()) == [path], "nothing temporary is left"


def test_resuming_forgets_later_steps_and_a_line_cut_off(tmp_path):
    rows = [{"algorithm": name, "step": step} for name in ("grpo", "grpo_ktae") for step in (1, 2, 3)]
    for name in ("metrics.jsonl", "samples.jsonl"):
        append(tmp_path / name, rows)
        with (tmp_path / name).open("a") as file:
            file.write('{"algorithm": "grpo_k')
    forget_after(Path("runs/x/grpo_ktae/checkpoint-2"), "grpo_ktae", tmp_path)
    append(tmp_path / "metrics.jsonl", [{"algorithm": "grpo_ktae", "step": 3, "again": True}])
    assert read(tmp_path / "metrics.jsonl") == [*rows[:5], {"algorithm": "grpo_ktae", "step": 3, "again": True}]
    assert read(tmp_path / "samples.jsonl") == rows[:5]
    forget_after(None, "grpo_ktae", tmp_path)
    assert read(tmp_path / "metrics.jsonl") == rows[:3]
