"""`ktae score` as a command: the same numbers as the library, any order, any format, whole files or none."""

import datetime
import decimal
import json

import numpy as np
import pytest
from saved import save

import ktae
from ktae.cli import main
from ktae.integrations import lists
from ktae.integrations.credit import TokenCredit

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("rich")


def rollouts():
    """Rows of several groups, shuffled: unequal lengths, masks, unscored rollouts and an empty one."""
    rng = np.random.default_rng(0)
    rows = []
    for group in range(9):
        for i in range(int(rng.integers(2, 7))):
            ids = rng.integers(0, 12, rng.integers(1, 60)).tolist()
            mask = (rng.random(len(ids)) < 0.9).astype(int).tolist()
            reward = None if rng.random() < 0.1 else float(rng.integers(0, 2))
            row = {"uid": f"g{group}", "token_ids": ids, "mask": mask, "reward": reward}
            rows.append({**row, "note": {"seen": i, "tags": ["x"] * (i % 3)}, "late": None if group < 3 else "yes"})
    rows.append({**rows[0], "token_ids": [], "mask": []})
    return [rows[i] for i in rng.permutation(len(rows))]


def scored(path, *arguments, out=None):
    out = out or path.with_name("out.jsonl")
    assert main(["score", str(path), "--out", str(out), *arguments]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("settings", [{}, {"correct_above": -0.5, "exclude_token_ids": (3, 4), "fisher": "released"}])
def test_scores_are_the_librarys(tmp_path, suffix, settings):
    """Every row once, as it was, groups in the order in which they begin."""
    rows = rollouts()
    path = save(tmp_path / f"r{suffix}", rows)
    out = scored(path, *(f"--set={name}={value}" for name, value in settings.items()))
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "out.jsonl"}, "nothing temporary is left"
    given = [[row[name] for row in rows] for name in ("token_ids", "mask", "reward", "uid")]
    credit = TokenCredit(ktae.KTAEConfig(**settings))
    values, advantages = (of(*given, credit=credit) for of in (lists.values, lists.advantages))
    assert sorted(row["rollout_row"] for row in out) == list(range(1, len(rows) + 1))
    for row in out:
        i = row["rollout_row"] - 1
        assert (row["rollout_group"], row["rollout_reward"]) == (rows[i]["uid"], rows[i]["reward"])
        assert np.array_equal(np.float32(row["key_token_values"]), np.float32(values[i]))
        assert row["token_advantages"] == pytest.approx(advantages[i], abs=1e-6)
        both = (np.array(values[i]) + row["rollout_advantage"]) * rows[i]["mask"]
        assert advantages[i] == pytest.approx(both, abs=1e-6)
        assert {name: row[name] for name in rows[i]} == rows[i]
    groups = list(dict.fromkeys(row["uid"] for row in rows))
    order = [(groups.index(row["rollout_group"]), row["rollout_row"]) for row in out]
    assert order == sorted(order)


def test_columns_of_every_kind(tmp_path):
    """JSON lines take every row as it is; what JSON has no value for is text."""
    kinds = [1, 2.5, 2**53 + 1, "x", None, [1], {"a": 1}, {}, True, 2**70, "\0\N{RIGHT-TO-LEFT MARK}</script>"]
    rows = [{"uid": "g", "token_ids": [1], "reward": 1.0, "any": value} for value in kinds]
    assert [row["any"] for row in scored(save(tmp_path / "r.jsonl", rows))] == kinds
    kinds = {
        "day": pa.array([datetime.date(2026, 11, 24)]),
        "price": pa.array([decimal.Decimal("1.10")], pa.decimal128(7, 2)),
        "late": pa.array([3_000_000], pa.date32()),
        "Reward": pa.array([7]),
        "a\"b'c": pa.array([1]),
        "big": pa.array([2**64 - 1], pa.uint64()),
    }
    pq.write_table(pa.table({"uid": ["a"], "token_ids": [[1]], "reward": [1.0], **kinds}), tmp_path / "p.parquet")
    (row,) = scored(tmp_path / "p.parquet", out=tmp_path / "o.jsonl")
    assert [row[name] for name in kinds] == ["2026-11-24", "1.10", "10183-09-21", 7, 1, 2**64 - 1]


def test_what_is_there_is_not_overwritten(tmp_path, monkeypatch, capsys):
    """Names with dots in them make outputs of their own."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "ids.jsonl", [{"uid": 0, "ids": [1], "reward": 1.0, "token_ids": 1}])
    for name in ("qwen2.5_a", "qwen2.5_b"):
        assert main(["score", str(save(tmp_path / f"{name}.jsonl", rollouts()))]) == 0
        assert (tmp_path / f"{name}.scores.jsonl").exists()
    for arguments, message in (
        (["qwen2.5_a.jsonl"], "qwen2.5_a.scores.jsonl exists: delete it, or give another --out"),
        (["qwen2.5_a.scores.jsonl"], "the rollouts already have rollout_row, rollout_group"),
        (["ids.jsonl", "--tokens-column", "ids"], "the rollouts already have token_ids"),
    ):
        assert main(["score", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob(".*"))


def test_a_threshold_that_splits_nothing_is_said_and_what_to_do_then(tmp_path, capsys):
    path = save(tmp_path / "r.jsonl", [{"uid": 0, "token_ids": [i], "reward": float(i - 1)} for i in range(2)])
    scored(path)
    assert "so all count as incorrect; -0.5 would split them (--set correct_above=NUMBER)" in capsys.readouterr().err
    scored(path, "--set", "correct_above=-0.5", out=tmp_path / "p.jsonl")
    assert "all count as" not in capsys.readouterr().err
    scored(path, "--group-columns", "reward", out=tmp_path / "q.jsonl")
    assert "every group has one rollout" in capsys.readouterr().err
