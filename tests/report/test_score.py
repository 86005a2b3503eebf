"""`ktae score` as a command: the same numbers as the library, any order, any format, whole files or none."""

import datetime
import decimal
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

import ktae
from ktae.cli import main

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
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text().splitlines()]


def scored(path, *arguments, out=None):
    out = out or path.with_name("out.parquet")
    assert main(["score", str(path), "--out", str(out), *arguments]) == 0
    return read(out)


def expected(rows, config=None):
    """{index of the row: (rollout advantage, key-token values, token advantages)} of the library, all at once."""
    config = config or ktae.KTAEConfig()
    ids = pad_sequence([torch.tensor(row["token_ids"], dtype=torch.int64) for row in rows], batch_first=True)
    masks = [torch.tensor(row.get("mask", [1] * len(row["token_ids"])), dtype=torch.int64) for row in rows]
    mask = pad_sequence(masks, batch_first=True)
    rewards = torch.tensor([float("nan") if row["reward"] is None else row["reward"] for row in rows]).double()
    groups = {row["uid"]: number for number, row in enumerate(rows)}
    group_ids = torch.tensor([groups[row["uid"]] for row in rows])
    values = ktae.key_token_values(ids, mask, rewards, group_ids, config=config)
    advantages = ktae.ktae_advantages(ids, mask, rewards, group_ids, config=config)
    rollout = ktae.rollout.grpo(rewards, group_ids).float()
    lengths = [len(row["token_ids"]) for row in rows]
    return [(rollout[i].item(), values[i, :n].tolist(), advantages[i, :n].tolist()) for i, n in enumerate(lengths)]


def assert_scores(rows, out, config=None):
    """Every row once, as it was, with the library's numbers to the last bit of a float32."""
    wanted = expected(rows, config)
    assert sorted(row["rollout_row"] for row in out) == list(range(1, len(rows) + 1))
    for row in out:
        i = row["rollout_row"] - 1
        rollout, values, advantages = wanted[i]
        assert row["rollout_group"] == rows[i]["uid"]
        assert row["rollout_reward"] == rows[i]["reward"]
        assert np.float32(row["rollout_advantage"]) == np.float32(rollout)
        assert np.array_equal(np.float32(row["key_token_values"]), np.float32(values))
        assert np.array_equal(np.float32(row["token_advantages"]), np.float32(advantages))
        assert {name: row[name] for name in rows[i]} == rows[i]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("out", ["o.parquet", "o.jsonl"])
def test_scores_are_the_librarys(tmp_path, suffix, out):
    rows = rollouts()
    rows = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    result = scored(write(tmp_path / f"r{suffix}", rows), out=tmp_path / out)
    assert_scores(rows, result)
    assert any(value not in (0, None) for row in result for value in row["key_token_values"])
    # Groups in the order in which they begin, rollouts in their own.
    groups = list(dict.fromkeys(row["uid"] for row in rows))
    order = [(groups.index(row["rollout_group"]), row["rollout_row"]) for row in result]
    assert order == sorted(order)
    assert {path.name for path in tmp_path.iterdir()} == {f"r{suffix}", out}, "nothing temporary is left"


def test_blocks_and_batches_change_nothing_and_the_config_is_used(tmp_path, monkeypatch):
    rows = rollouts(groups=40, longest=200)
    settings = {"correct_above": -0.5, "exclude_token_ids": (3, 4), "fisher": "released", "scale": 0.5}
    options = [f"--set={name}={value}" for name, value in settings.items()]
    monkeypatch.setattr("ktae.report.score._BLOCK", 300)
    monkeypatch.setattr("ktae.report.scoring._PADDED", 500)
    monkeypatch.setattr("ktae.report.score._BATCH", 7)
    assert_scores(rows, scored(write(tmp_path / "r.jsonl", rows), *options), ktae.KTAEConfig(**settings))
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups > 10


def test_columns_of_every_kind(tmp_path):
    """Types that change from row to row, and ones that Parquet lacks, become JSON text; nothing gets lost."""
    kinds = [1, 2.5, 2**53 + 1, "x", None, [1], {"a": 1}, {}, True, 2**70, "\0\N{RIGHT-TO-LEFT MARK}</script>"]
    base = {"uid": "g", "token_ids": [1], "reward": 1.0}
    rows = [{**base, "any": value, "empty": {}, "number": i if i % 2 else i / 2} for i, value in enumerate(kinds)]
    path = write(tmp_path / "r.jsonl", rows)
    as_parquet, as_json = scored(path), scored(path, out=tmp_path / "o.jsonl")
    assert [row["any"] for row in as_json] == kinds
    assert [row["any"] and json.loads(row["any"]) for row in as_parquet] == kinds
    assert [row["empty"] for row in as_parquet] == ["{}"] * len(kinds)
    assert [row["number"] for row in as_parquet] == [row["number"] for row in rows]


def test_text_needs_a_tokenizer_and_only_the_policys_counts(tmp_path, capsys):
    said = [[{"role": "assistant", "content": f"it is {x}"}, {"role": "tool", "content": "no 7"}] for x in (7, 8)]
    rows = [{"group": 0, "completion": turns, "reward": 1.0 - i} for i, turns in enumerate(said)]
    path = write(tmp_path / "r.jsonl", rows)
    assert main(["score", str(path), "--out", str(tmp_path / "out.parquet")]) == 2
    assert "row 1 has no token ids: give the model's tokenizer" in capsys.readouterr().err
    result = scored(path, "--tokenizer", "words", out=tmp_path / "o.parquet")
    assert [row["token_texts"] for row in result] == [["it", " is", f" {x}", "\nno", " 7"] for x in (7, 8)]
    assert [row["key_token_values"] for row in result] == [[0, 0, 1, 0, 0], [0, 0, -1, 0, 0]]
    assert [row["token_advantages"][3:] for row in result] == [[0, 0]] * 2


def test_a_tokenizer_that_cannot_be_the_right_one(tmp_path, capsys):
    import tiny

    tiny.tokenizer().save_pretrained(tmp_path / "tokenizer")
    rows = [{"group": 0, "token_ids": [1, 10**6], "reward": 1}]
    path = write(tmp_path / "r.jsonl", rows)
    for name, message in (
        ("words", "row 1 has token ids: --tokenizer must be the one they are from, not words"),
        (str(tmp_path / "tokenizer"), "got 1000000: name the tokenizer that made them"),
    ):
        assert main(["score", str(path), "--out", str(tmp_path / name / "o.parquet"), "--tokenizer", name]) == 2
        assert message in capsys.readouterr().err


def test_malformed_rows_are_counted_and_listed(tmp_path, capsys):
    rows = rollouts()
    path = write(tmp_path / "r.jsonl", rows)
    lines = path.read_text().splitlines()
    lines[3:3] = ["{", '{"uid": "g0", "token_ids": [1]}', ""]
    path.write_text("\n".join(lines))
    result = scored(path)
    error = capsys.readouterr().err
    assert f"malformed, {path}:4: not valid JSON" in error
    assert f"malformed, {path}:5: there is no reward" in error
    assert "2 malformed rows left out" in error
    listed = read(tmp_path / "out.parquet.malformed.jsonl")
    assert [(row["file"], row["row"]) for row in listed] == [(str(path), 4), (str(path), 5)]
    assert sorted(row["rollout_row"] for row in result) == [1, 2, 3, *range(7, len(rows) + 4)]
    assert main(["score", str(path), "--out", str(tmp_path / "s.parquet"), "--strict"]) == 2
    assert f"{path}:4: not valid JSON" in capsys.readouterr().err
    assert not list(tmp_path.glob("s.parquet*"))


def test_a_folder_of_parquet_files_with_other_columns(tmp_path):
    folder = tmp_path / "completions"
    folder.mkdir()
    rows = rollouts()
    for row in rows:
        row["note"] = "n"
    write(folder / "completions_2.parquet", [{**row, "extra": 1} for row in rows[10:]])
    write(folder / "completions_1.parquet", rows[:10])
    result = scored(folder, out=tmp_path / "o.parquet")
    assert_scores(rows, result)
    assert {row["extra"] for row in result} == {None, 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "scales=1"], "--set must be NAME=VALUE with a name among fisher_weight"),
        (["--set", "scale='x'"], "scale must be a finite number"),
        (["--reward-column", "r"], "reward names the column 'r', and the first rows have only uid, token_ids"),
        (["--out", "scores.csv"], "--out must end in .parquet or .jsonl, got scores.csv"),
        (["--unnest", "uid"], "r.jsonl holds no usable rows: 29 malformed, the first since uid must be an object"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "r.jsonl", rollouts())
    assert main(["score", "r.jsonl", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


def test_what_is_there_is_not_overwritten(tmp_path, capsys):
    path = write(tmp_path / "r.jsonl", rollouts())
    scored(path)
    assert main(["score", str(path), "--out", str(tmp_path / "out.parquet")]) == 2
    assert "exists: delete it, or give another --out" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "out.parquet")]) == 2
    assert "the rollouts already have rollout_row, rollout_group" in capsys.readouterr().err


def test_names_with_dots_are_kept_apart(tmp_path):
    for name in ("qwen2.5_a", "qwen2.5_b"):
        assert main(["score", str(write(tmp_path / f"{name}.jsonl", rollouts()))]) == 0
        assert (tmp_path / f"{name}.scores.parquet").exists()


@pytest.mark.slow
def test_two_at_once_and_one_killed(tmp_path, capsys):
    """The second of two writers stops; after a kill the next one writes the whole file."""
    rows = rollouts(groups=40, longest=2000)
    path, out = write(tmp_path / "r.jsonl", rows), tmp_path / "out.parquet"
    command = [sys.executable, "-m", "ktae.cli", "score", str(path), "--out", str(out)]
    lock = tmp_path / ".out.parquet.lock"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        try:
            while not (lock.exists() and lock.stat().st_size):
                assert first.poll() is None, "it ended before it could be met"
                time.sleep(0.001)
            first.send_signal(signal.SIGSTOP)
            assert main(["score", str(path), "--out", str(out)]) == 2
        finally:
            first.kill()
        assert f"out.parquet is being written to by process {first.pid}" in capsys.readouterr().err
    assert not out.exists()
    (tmp_path / ".out.parquet.0123abcd.tmp").touch()  # killed while it wrote
    assert_scores(rows, scored(path, out=out))
    assert {file.name for file in tmp_path.iterdir()} == {"r.jsonl", "out.parquet"}


@pytest.mark.parametrize("out", ["o.parquet", "o.jsonl"])
def test_columns_that_arrow_and_python_disagree_about(tmp_path, out):
    """Every column comes out, whatever its type and name; what Python has no value for is text."""
    kinds = {
        "key": pa.array(["x", "y"], pa.dictionary(pa.int8(), pa.string())),
        "day": pa.array([datetime.date(2026, 11, 24)] * 2),
        "price": pa.array([decimal.Decimal("1.10")] * 2, pa.decimal128(7, 2)),
        "raw": pa.array([b"\xff"] * 2),
        "when": pa.array([1, 2], pa.timestamp("us", "UTC")),
        "single": pa.array([0.1, 0.2], pa.float32()),
        "view": pa.array(["x", None], pa.string_view()),
        "half": pa.array([1.5, 2.5], pa.float16()),
        "wide": pa.array([decimal.Decimal("1.10")] * 2, pa.decimal256(50, 2)),
        "took": pa.array([5, 7], pa.duration("ns")),
        "at": pa.array([5, 7], pa.time64("ns")),
        "never": pa.array([10**7] * 2, pa.int32()).cast(pa.date32()),
        "map": pa.array([[("a", 1), ("a", 2)], []], pa.map_(pa.string(), pa.int64())),
        "list view": pa.array([[1], []], pa.list_view(pa.int64())),
        "Reward": pa.array([7, 8]),
        "a\"b'c": pa.array([1, 2]),
        "big": pa.array([2**64 - 1, 0], pa.uint64()),
    }
    table = pa.table({"uid": ["a", "a"], "token_ids": [[1], [2]], "reward": [1.0, 0.0], **kinds})
    pq.write_table(table, tmp_path / "r.parquet")
    result = scored(tmp_path / "r.parquet", out=tmp_path / out)
    assert kinds.keys() <= result[0].keys()
    assert [row["Reward"] for row in result] == [7, 8]
    assert [row["key_token_values"] for row in result] == [[1.0], [-1.0]]
    assert "00:00:00.000000005" in str(result[0]["at"])
    if out == "o.parquet":
        types = pq.read_schema(tmp_path / out)
        for name in ("day", "price", "raw", "when", "single", "half", "wide", "took", "map", "Reward", "big"):
            assert types.field(name).type == table.schema.field(name).type
            assert result[0][name] == table[name][0].as_py()


@pytest.mark.parametrize("name", ["rollout_row", "token_texts", "token_advantages", "token_ids"])
def test_a_column_named_like_one_of_ours(tmp_path, capsys, name):
    rows = [{"uid": 0, "ids": [1], "reward": 1.0}] * 300 + [{"uid": 0, "ids": [1], "reward": 0.0, name: 1}]
    path = write(tmp_path / "r.jsonl", rows)
    assert main(["score", str(path), "--tokens-column", "ids"]) == 2
    assert f"the rollouts already have {name}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_rewards_that_never_count_as_correct_are_pointed_out(tmp_path, capsys):
    rows = [{"uid": 0, "token_ids": [i], "reward": float(i - 1)} for i in range(2)]
    scored(write(tmp_path / "r.jsonl", rows))
    assert "every rollout counts as incorrect" in capsys.readouterr().err
    scored(write(tmp_path / "r.jsonl", rows), "--set", "correct_above=-0.5", out=tmp_path / "p.parquet")
    assert "counts as" not in capsys.readouterr().err
    scored(write(tmp_path / "r.jsonl", [{**row, "uid": row["reward"]} for row in rows]), out=tmp_path / "q.parquet")
    assert "every group has one rollout" in capsys.readouterr().err


@pytest.mark.slow
def test_gsm8k_example_solutions(shared, tmp_path):
    path = shared / "data" / "groups" / "gsm8k_example_model_solutions.jsonl.gz"
    models = ["6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"]
    result = scored(path, "--tokenizer", "words", "--unnest", *models, out=tmp_path / "o.parquet")
    assert len(result) == 4 * 1319
    for row in result[:40]:
        assert "".join(row["token_texts"]) == row["solution"]
        assert len(row["token_texts"]) == len(row["token_advantages"])
    assert len({row["rollout_group"] for row in result if any(row["key_token_values"])}) == 731
