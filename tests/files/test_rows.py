"""Files as others leave them: every layout and compression gives the same rows, damage costs the rows it hits."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saved import save

from ktae.files.rows import Malformed, files_of, read_rows, stem, without_malformed

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = [
    {"prompt": 'a "quoted" [bracket] {brace} \\', "reward": 1.0, "ids": [1, 2]},
    {"prompt": "\u2028 ünï\n", "reward": None, "ids": []},
    {"prompt": "", "reward": 0.5, "ids": [3]},
]


def as_lines(rows, end="\n"):
    return "".join(json.dumps(row) + end for row in rows)


LAYOUTS = {
    "r.jsonl": as_lines(ROWS),
    "crlf.jsonl": as_lines(ROWS, "\r\n"),
    "blank.jsonl": "\n" + as_lines(ROWS, "\n\n"),
    "no_end.jsonl": as_lines(ROWS)[:-1],
    "lines.json": as_lines(ROWS),
    "array.json": json.dumps(ROWS),
    "indented.json": json.dumps(ROWS, indent=2, ensure_ascii=False),
    "array.jsonl": json.dumps(ROWS),
    "under.json": json.dumps({"rows": ROWS}),
    "under_indented.json": json.dumps({"samples": ROWS}, indent=1),
    "under.jsonl": json.dumps({"data": ROWS[:2]}) + "\n" + json.dumps({"data": ROWS[2:]}) + "\n",
}
PACKED = {"plain": ("", bytes), "bom": ("", b"\xef\xbb\xbf".__add__), "gz": (".gz", gzip.compress)}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("packed", PACKED)
def test_every_layout(tmp_path, name, packed):
    suffix, pack = PACKED[packed]
    path = tmp_path / (name + suffix)
    path.write_bytes(pack(LAYOUTS[name].encode()))
    assert [row.data for row in read_rows(path)] == ROWS


def test_parquet(tmp_path):
    """A float32 is the decimal that was meant."""
    path = save(tmp_path / "r.parquet", ROWS)
    assert [(row.row, row.data) for row in read_rows(path)] == list(enumerate(ROWS, 1))
    pq.write_table(pa.table({"reward": pa.array([0.1], pa.float32())}), path)
    assert [row.data for row in read_rows(path)] == [{"reward": 0.1}]


@pytest.mark.parametrize(
    ("row", "rows"),
    [
        ({"prompt": "p", "completion": [{"role": "assistant", "content": "c"}]}, None),
        ({"prompt": "p", "completion": [{"from": "gpt", "value": "c"}]}, None),
        ({"prompt": "p", "calls": [{"name": "f"}]}, None),
        ({"rows": []}, None),
        (
            {"rollout_id": 3, "samples": [{"tokens": [1]}, {"rollout_id": 4}]},
            [{"rollout_id": 3, "tokens": [1]}, {"rollout_id": 4}],
        ),
    ],
)
def test_rows_in_a_row(tmp_path, row, rows):
    assert [found.data for found in read_rows(save(tmp_path / "r.jsonl", [row]))] == (rows or [row])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "not valid JSON: "),
        (b'{"a": tru}', "not valid JSON: "),
        pytest.param(b'{"a":' * 100_000, "not valid JSON: maximum recursion", id="deep"),
        (b"5", "must be a JSON object, got int"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a": "\xff"}', "a byte that is not UTF-8"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_row_costs_itself_only(tmp_path, bad, reason, place):
    """An array that is no JSON as a whole is one bad row."""
    texts = [json.dumps(ROWS[0]).encode()] * 2
    texts.insert(place, bad)
    for name, text in (("r.jsonl", b"\n".join(texts)), ("r.json", b"[" + b",\n".join(texts) + b"]")):
        (tmp_path / name).write_bytes(text)
        found = list(read_rows(tmp_path / name))
        is_lost = name == "r.json" and reason.startswith("not valid JSON")
        assert [isinstance(row, Malformed) for row in found] == ([True] if is_lost else [i == place for i in range(3)])
        bad_row = found[0 if is_lost else place]
        assert reason in bad_row.reason
        assert bad_row.row == (1 if is_lost else place + 1)


@pytest.mark.parametrize("damage", ["truncated", "corrupt", "checksum", "none"])
def test_a_damaged_archive(tmp_path, damage):
    data, path = bytearray(gzip.compress(as_lines(ROWS * 99).encode())), tmp_path / "r.jsonl.gz"
    if damage == "truncated":
        del data[-20:]
    else:
        place = {"corrupt": len(data) // 2, "checksum": len(data) - 8, "none": 0}[damage]
        data[place : place + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"r\.jsonl\.gz is damaged: [^\n]+$"):
        list(read_rows(path))


def test_parquet_that_is_none_or_damaged(tmp_path):
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"a": [str(i) for i in range(10_000)]}), path, row_group_size=1000, compression="snappy")
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 4000] = b"\xff" * 4000
    for data in (b"", b"PAR1", b"text", b"PAR1" + b"\0" * 100 + b"PAR1", damaged):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"r\.parquet cannot be read as Parquet: [^\n]+$"):
            list(read_rows(path))
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    with pytest.raises(ValueError, match="columns with different names, got a, a"):
        list(read_rows(path))


@settings(max_examples=300)
@given(
    st.binary(max_size=300) | st.text(max_size=100).map(str.encode),
    st.sampled_from([".jsonl", ".json", ".parquet", ".json.gz"]),
)
def test_any_bytes_give_rows_or_one_line(tmp_path_factory, data, suffix):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(data)
    said = []
    try:
        said = [str(row) for row in read_rows(path) if isinstance(row, Malformed)]
    except ValueError as error:
        said.append(str(error))
    assert all(line.startswith(str(path)) and "\n" not in line for line in said)


def test_malformed_rows_are_told_counted_and_stopped_at(tmp_path, capsys):
    rows = [Malformed(tmp_path / "r", i, "bad") for i in range(12)]
    found = []
    assert list(without_malformed([1, *rows, 2], tmp_path, strict=False, found=found)) == [1, 2]
    error = capsys.readouterr().err
    assert error.count("malformed, ") == 10
    assert f"12 malformed rows left out of {tmp_path}" in error
    assert found == rows
    with pytest.raises(ValueError, match="r:0: bad"):
        list(without_malformed([1, *rows], tmp_path, strict=True))
    with pytest.raises(ValueError, match="holds no usable rows: 12 malformed, the first since bad"):
        list(without_malformed(rows, tmp_path, strict=False))


def test_which_files(tmp_path):
    for name in ("c_10.jsonl", "c_9.jsonl.gz", "a.txt", "b_2.parquet", "b_10.parquet"):
        (tmp_path / name).touch()
    assert [file.name for file in files_of(tmp_path)] == ["b_2.parquet", "b_10.parquet", "c_9.jsonl.gz", "c_10.jsonl"]
    assert [stem(file) for file in files_of(tmp_path)] == ["b_2", "b_10", "c_9", "c_10"]
    (tmp_path / "empty").mkdir()
    for name, error, message in (
        ("a.txt", ValueError, r"must be in a file that ends in \.jsonl, .*got a\.txt"),
        ("none.jsonl", FileNotFoundError, "does not exist"),
        ("empty", FileNotFoundError, r"holds no rollouts: no file ends in \.jsonl"),
    ):
        with pytest.raises(error, match=message):
            files_of(tmp_path / name)
