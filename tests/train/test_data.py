"""Reading problems: files and the split."""

from pathlib import Path

import pytest

from ktae.files.json_lines import write
from ktae.train.data import load_data
from ktae.train.recipe import Data

ROWS = [{"prompt": f"{i} apples?", "answers": [str(i)], "N": i} for i in range(20)]


@pytest.fixture(autouse=True)
def rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("rows.jsonl"), ROWS)


def test_split_is_disjoint_and_does_not_depend_on_the_seed():
    data = Data("rows.jsonl", test_rows=5, train_rows=8)
    train, test = load_data(data, seed=0)
    again_train, again_test = load_data(data, seed=1)
    assert (len(train), len(test)) == (8, 5)
    assert not set(train["N"]) & set(test["N"])
    assert (test["N"], train["N"]) == (again_test["N"], again_train["N"])
    assert all(row == ROWS[row["N"]] for row in [*train, *test])


def test_modchain_splits():
    data = Data("modchain", train_rows=50, test_rows=10)
    train, test = load_data(data, seed=0)
    other, same = load_data(data, seed=1)
    assert (len(train), len(test)) == (50, 10)
    assert train["prompt"] != other["prompt"]
    assert test["prompt"] == same["prompt"]


def test_a_row_that_cannot_be_read_is_named():
    Path("rows.jsonl").write_text('{"prompt": "a", "answers": ["b"]}\n{"prompt": "a", \n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: "):
        load_data(Data("rows.jsonl", test_rows=0), seed=0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": ""}, "prompt must be a text or a list of chat messages, got ''"),
        ({"prompt": 3}, "prompt must be a text or a list of chat messages, got 3"),
        ({"answers": ["1", ""]}, r"answers must be a list of texts, none blank; got \['1', ''\] in {'prompt': '0 ap"),
        ({"answers": []}, r"answers must be a list of texts, none blank; got \[\] in"),
        ({"prompt": [{"role": "user"}]}, r"prompt must be .* got \[{'role': 'user'}\]"),
    ],
)
def test_wrong_rows(row, message):
    write(Path("rows.jsonl"), [ROWS[0] | row])
    with pytest.raises(ValueError, match=f"^rows.jsonl: {message}"):
        load_data(Data("rows.jsonl", test_rows=0), seed=0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"test_rows": 20}, ValueError, "has 20 rows, fewer than data.test_rows 20 and data.train_rows at least 1"),
        ({"train_rows": 16}, ValueError, "has 20 rows, fewer than data.test_rows 5 and data.train_rows 16"),
        ({"source": "absent.jsonl"}, FileNotFoundError, "data.source absent.jsonl does not exist"),
        ({"source": "modchain"}, ValueError, "data.train_rows is required with source modchain"),
        ({"source": "modchain", "train_rows": 1, "test_rows": 1001}, ValueError, "data.test_rows must be at most 1000"),
    ],
)
def test_wrong_settings(settings, error, message):
    with pytest.raises(error, match=message):
        load_data(Data(**{"source": "rows.jsonl", "test_rows": 5, **settings}), seed=0)
