"""Outputs that other programs saved: each format with a file as that program writes it."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from ktae.evaluation.saved import read_saved

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
    name, rows, _ = read_saved(path)
    assert name == "paper"
    assert [(row["sample"], row["stored"]) for row in rows] == [(0, True), (1, False), (0, None)]
    assert rows[0]["task"] == "minerva"
    assert rows[0]["answers"] == ["2", "two"]
    assert rows[0]["completion"] == "It is 2.\u2028"


def test_lm_eval(tmp_path):
    name, (row,), _ = read_saved(lines(tmp_path / "samples_gsm8k_cot_2026-11-24T10-00-00.000000.jsonl", [LM_EVAL]))
    assert name == "lm-eval"
    assert (row["task"], row["id"], row["answers"]) == ("gsm8k_cot", "3", ["2"])
    assert (row["completion"], row["stored"]) == ("The answer is 2.", True)


def test_lighteval(tmp_path):
    path = tmp_path / "details_math_500.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([LIGHTEVAL]), path)
    name, (row,), _ = read_saved(path)
    assert name == "lighteval"
    assert (row["task"], row["id"], row["answers"]) == ("lighteval|math_500|0", "7", ["2"])
    assert (row["completion"], row["stored"]) == ("It is 3.", False)


def test_our_own(tmp_path):
    ours = {"task": "amc23", "id": 4, "sample": 1, "completion": "2", "answers": ["2"], "length": 5, "truncated": False}
    path = tmp_path / "samples.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ours | {"status": "timeout"}).encode()))
    name, (row,), _ = read_saved(path)
    assert name == "ktae"
    assert row == ours | {"id": "4", "stored": False}


def test_several_samples_and_filters(tmp_path):
    _, repeats, _ = read_saved(lines(tmp_path / "samples_a.jsonl", [LM_EVAL | {"resps": [["2", "3"], ["4"]]}]))
    assert [(r["sample"], r["completion"]) for r in repeats] == [(0, "2"), (1, "3"), (2, "4")]
    assert {r["stored"] for r in repeats} == {None}
    strict = [LM_EVAL | {"doc_id": i, "exact_match": 0.0} for i in range(2)]
    flexible = [row | {"filter": "flexible-extract", "exact_match": 1.0 - row["doc_id"]} for row in strict]
    _, once, _ = read_saved(lines(tmp_path / "samples_b.jsonl", strict + flexible))
    assert [(row["id"], row["sample"], row["stored"]) for row in once] == [("0", 0, True), ("1", 0, False)]
    path = tmp_path / "details.parquet"
    rows = [LIGHTEVAL | {"model_response": {"text": ["2", "3"]}}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    _, samples, _ = read_saved(path)
    assert [(row["sample"], row["completion"], row["stored"]) for row in samples] == [(0, "2", None), (1, "3", None)]
    old = {"full_prompt": "1+1?", "predictions": "['2', '3']", "gold": "['2']", "metrics": "{}"}
    name, samples, _ = read_saved(lines(tmp_path / "details_a_2026.jsonl", [old]))
    assert name == "lighteval before 0.10"
    assert [(row["completion"], row["answers"]) for row in samples] == [("2", ["2"]), ("3", ["2"])]


def test_rollouts_with_references(tmp_path):
    row = {"example_id": 3, "prompt": [{"role": "user", "content": "1+1?"}], "answer": '["2"]', "reward": 1.0}
    completion = [{"role": "assistant", "content": "so"}, {"role": "tool", "content": "3"}]
    path = lines(tmp_path / "results.jsonl", [{**row, "completion": completion, "task": "sum"}] * 2)
    name, rows, _ = read_saved(path)
    assert name == "rollouts (completion)"
    assert [(r["task"], r["id"], r["sample"], r["completion"], r["answers"], r["stored"]) for r in rows] == [
        ("sum", "3", 0, "so", ["2"], True),
        ("sum", "3", 1, "so", ["2"], True),
    ]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"task_name": "x"}, "not of the format paper: KeyError"),
        (PAPER | {"gt": []}, "there is no accepted answer"),
        (PAPER | {"gt": None}, "there is no accepted answer"),
        (PAPER | {"model_output": None}, "TypeError expected a text"),
        (PAPER | {"reward": "good"}, "ValueError could not convert"),
        ("text", "a row must be a JSON object"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_bad_row_is_named_and_left_out(tmp_path, capsys, bad, reason, place):
    rows = [PAPER]
    rows.insert(place, bad)
    path = lines(tmp_path / "outputs.jsonl", rows)
    _, good, (malformed,) = read_saved(path)
    assert len(good) == 1
    assert (malformed.row, reason in malformed.reason) == (place + 1, True)
    assert f"{path}:{place + 1}: " in capsys.readouterr().err
    with pytest.raises(ValueError, match=f":{place + 1}: "):
        read_saved(path, strict=True)


def test_a_sample_given_twice_and_a_field_of_another_kind_are_malformed(tmp_path):
    ours = {"task": "amc23", "id": 4, "sample": 1, "completion": "2", "answers": ["2"]}
    _, rows, (twice,) = read_saved(lines(tmp_path / "samples.jsonl", [ours, ours | {"completion": "3"}]))
    assert ([row["completion"] for row in rows], twice.row) == (["2"], 2)
    assert "sample 1 of amc23, 4 was there before" in twice.reason
    _, _, (other,) = read_saved(lines(tmp_path / "details.jsonl", [LIGHTEVAL, LIGHTEVAL | {"metric": [1]}]))
    assert other.row == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"a": 1}], "of no known format: its rows have a; ktae has answers, completion, id, task; paper has"),
        ([LM_EVAL | {"resps": []}], "no usable rows: 1 malformed, the first since not of the format lm-eval"),
        ([], "holds no usable rows"),
    ],
)
def test_errors(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_saved(lines(tmp_path / "outputs.jsonl", rows))
