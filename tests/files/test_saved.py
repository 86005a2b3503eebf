"""Outputs that other programs saved: each format with a file as that program writes it."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from ktae.files.saved import read_saved

PAPER = {
    "task_name": "minerva",
    "prompt": "user: 1+1?",
    "gt": [["2\n", "two"]],
    "model_output": "It is 2.\u2028",
    "reward": 1.0,
}
LM_EVAL = {
    "doc_id": 3,
    "doc": {"question": "1+1?", "answer": "1+1=2\n#### 2"},
    "target": "1+1=2\n#### 2",
    "arguments": {},
    "resps": [["The answer is 2."]],
    "filtered_resps": ["2"],
    "filter": "strict-match",
    "exact_match": 1.0,
}
LIGHTEVAL = {
    "doc": {"query": "1+1?", "choices": ["2", "3"], "gold_index": 0, "task_name": "lighteval|math_500|0", "id": "7"},
    "model_response": {"text": ["It is 3."]},
    "metric": {"pass@k:k=1": 0.0},
}


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_papers_json(tmp_path):
    path = tmp_path / "eval.json"
    path.write_text(json.dumps([PAPER, PAPER | {"reward": 0.0}, PAPER | {"prompt": "other", "reward": None}]))
    name, rows = read_saved(path)
    assert name == "paper"
    assert [(row["sample"], row["stored"]) for row in rows] == [(0, True), (1, False), (0, None)]
    assert rows[0]["task"] == "minerva"
    assert rows[0]["answers"] == ["2", "two"]
    assert rows[0]["completion"] == "It is 2.\u2028"


def test_lm_eval(tmp_path):
    name, (row,) = read_saved(lines(tmp_path / "samples_gsm8k_cot_2026-11-24T10-00-00.000000.jsonl", [LM_EVAL]))
    assert name == "lm-eval"
    assert (row["task"], row["id"], row["answers"]) == ("gsm8k_cot", "3", ["2"])
    assert (row["completion"], row["stored"]) == ("The answer is 2.", True)


def test_lighteval(tmp_path):
    path = tmp_path / "details_math_500.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([LIGHTEVAL]), path)
    name, (row,) = read_saved(path)
    assert name == "lighteval"
    assert (row["task"], row["id"], row["answers"]) == ("lighteval|math_500|0", "7", ["2"])
    assert (row["completion"], row["stored"]) == ("It is 3.", False)


def test_our_own(tmp_path):
    ours = {"task": "amc23", "id": 4, "sample": 1, "completion": "2", "answers": ["2"], "length": 5, "truncated": False}
    path = tmp_path / "samples.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ours | {"status": "timeout"}).encode()))
    name, (row,) = read_saved(path)
    assert name == "ktae"
    assert row == ours | {"id": "4", "stored": False}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"a": 1}], "of no known format: its rows have a; ktae has answers, completion, id, task; paper has"),
        ([PAPER, {"task_name": "x"}], "row 2, is not of the format paper: KeyError"),
        ([PAPER | {"gt": []}], "row 1, has no accepted answer"),
        ([PAPER | {"model_output": None}], "row 1, is not of the format paper: TypeError"),
        ([LM_EVAL | {"resps": []}], "row 1, is not of the format lm-eval: IndexError"),
        ([], "holds no rows"),
        (["text"], "line 1, must hold an object"),
    ],
)
def test_errors(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_saved(lines(tmp_path / "outputs.jsonl", rows))


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_saved(tmp_path / "none.jsonl")
