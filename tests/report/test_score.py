"""`ktae score` as a command: the same numbers as the library, any order, any format, whole files or none."""

import datetime
import decimal
import json

import pytest
from page_browser import save

import ktae
from ktae.cli import main
from ktae.integrations import lists
from ktae.integrations.credit import TokenCredit

pytest.importorskip("pyarrow")
pytest.importorskip("rich")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def rollouts(groups=6, seed=0, longest=30):
    """Rows of several groups: unequal lengths, masks, an unscored rollout and an empty one."""
    rng = np.random.default_rng(seed)
    rows = []
    for group in range(groups):
        for i in range(int(rng.integers(2, 7))):
            ids = rng.integers(0, 12, rng.integers(1, longest)).tolist()
            mask = (rng.random(len(ids)) < 0.9).astype(int).tolist()
            reward = None if rng.random() < 0.1 else float(rng.integers(0, 2))
            row = {"uid": f"g{group}", "token_ids": ids, "mask": mask, "reward": reward}
            rows.append({**row, "note": {"seen": i, "tags": ["x"] * (i % 3)}, "late": None if group < 3 else "yes"})
    rows.append({**rows[0], "token_ids": [], "mask": []})
    return rows


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    return save(path, rows)


def scored(path, *arguments, out=None):
    out = out or path.with_name("out.jsonl")
    assert main(["score", str(path), "--out", str(out), *arguments]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def assert_scores(rows, out, config):
    """Every row once, as it was, with the library's numbers."""
    given = [[row[name] for row in rows] for name in ("token_ids", "mask", "reward", "uid")]
    values, advantages = (of(*given, credit=TokenCredit(config)) for of in (lists.values, lists.advantages))
    assert sorted(row["rollout_row"] for row in out) == list(range(1, len(rows) + 1))
    for row in out:
        i = row["rollout_row"] - 1
        assert (row["rollout_group"], row["rollout_reward"]) == (rows[i]["uid"], rows[i]["reward"])
        assert np.array_equal(np.float32(row["key_token_values"]), np.float32(values[i]))
        assert row["token_advantages"] == pytest.approx(advantages[i], abs=1e-6)
        both = (np.array(values[i]) + row["rollout_advantage"]) * rows[i]["mask"]
        assert advantages[i] == pytest.approx(both, abs=1e-6)
        assert {name: row[name] for name in rows[i]} == rows[i]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("settings", [{}, {"correct_above": -0.5, "exclude_token_ids": (3, 4), "fisher": "released"}])
def test_scores_are_the_librarys(tmp_path, suffix, settings):
    rows = rollouts(groups=9, longest=60)
    rows = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    path = write(tmp_path / f"r{suffix}", rows)
    result = scored(path, *(f"--set={name}={value}" for name, value in settings.items()))
    assert_scores(rows, result, ktae.KTAEConfig(**settings))
    # Groups in the order in which they begin, rollouts in their own.
    groups = list(dict.fromkeys(row["uid"] for row in rows))
    order = [(groups.index(row["rollout_group"]), row["rollout_row"]) for row in result]
    assert order == sorted(order)
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "out.jsonl"}, "nothing temporary is left"


def test_columns_of_every_kind(tmp_path):
    """JSON lines take every row as it is; what JSON has no value for is text."""
    kinds = [1, 2.5, 2**53 + 1, "x", None, [1], {"a": 1}, {}, True, 2**70, "\0\N{RIGHT-TO-LEFT MARK}</script>"]
    rows = [{"uid": "g", "token_ids": [1], "reward": 1.0, "any": value} for value in kinds]
    assert [row["any"] for row in scored(write(tmp_path / "r.jsonl", rows))] == kinds
    kinds = {
        "day": pa.array([datetime.date(2026, 11, 24)]),
        "price": pa.array([decimal.Decimal("1.10")], pa.decimal128(7, 2)),
        "single": pa.array([0.1], pa.float32()),
        "late": pa.array([3_000_000], pa.date32()),
        "Reward": pa.array([7]),
        "a\"b'c": pa.array([1]),
        "big": pa.array([2**64 - 1], pa.uint64()),
    }
    pq.write_table(pa.table({"uid": ["a"], "token_ids": [[1]], "reward": [1.0], **kinds}), tmp_path / "p.parquet")
    (row,) = scored(tmp_path / "p.parquet", out=tmp_path / "o.jsonl")
    expected = ["2026-11-24", "1.10", 0.1, "10183-09-21", 7, 1, 2**64 - 1]
    assert [row[name] for name in kinds] == expected


def test_only_what_the_policy_says_counts(tmp_path):
    said = [[{"role": "assistant", "content": f"it is {x}"}, {"role": "tool", "content": "no 7"}] for x in (7, 8)]
    rows = [{"group": 0, "completion": turns, "reward": 1.0 - i} for i, turns in enumerate(said)]
    path = write(tmp_path / "r.jsonl", rows)
    result = scored(path, "--tokenizer", "words")
    assert [row["token_texts"] for row in result] == [["it", " is", f" {x}", "\nno", " 7"] for x in (7, 8)]
    assert [row["key_token_values"] for row in result] == [[0, 0, 1, 0, 0], [0, 0, -1, 0, 0]]
    assert [row["token_advantages"][3:] for row in result] == [[0, 0]] * 2


def test_what_is_there_is_not_overwritten(tmp_path, capsys):
    """Names with dots in them make outputs of their own."""
    for name in ("qwen2.5_a", "qwen2.5_b"):
        assert main(["score", str(write(tmp_path / f"{name}.jsonl", rollouts()))]) == 0
        assert (tmp_path / f"{name}.scores.jsonl").exists()
    assert main(["score", str(tmp_path / "qwen2.5_a.jsonl")]) == 2
    assert "qwen2.5_a.scores.jsonl exists: delete it, or give another --out" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "qwen2.5_a.scores.jsonl")]) == 2
    assert "the rollouts already have rollout_row, rollout_group" in capsys.readouterr().err
    path = write(tmp_path / "ids.jsonl", [{"uid": 0, "ids": [1], "reward": 1.0, "token_ids": 1}])
    assert main(["score", str(path), "--tokens-column", "ids"]) == 2
    assert "the rollouts already have token_ids" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*"))


def test_a_threshold_that_splits_nothing_is_said_and_what_to_do_then(tmp_path, capsys):
    path = write(tmp_path / "r.jsonl", [{"uid": 0, "token_ids": [i], "reward": float(i - 1)} for i in range(2)])
    scored(path)
    assert "every rollout counts as incorrect" in (said := capsys.readouterr().err)
    assert "--set correct_above=NUMBER changes it" in said
    scored(path, "--set", "correct_above=-0.5", out=tmp_path / "p.jsonl")
    assert "counts as" not in capsys.readouterr().err
    scored(path, "--group-columns", "reward", out=tmp_path / "q.jsonl")
    assert "every group has one rollout" in capsys.readouterr().err
