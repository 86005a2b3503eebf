"""Outputs that other programs saved: each format with a file as that program writes it."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from ktae.evaluation.saved import read_saved

PAPER = {"task_name": "minerva", "prompt": "user: 1+1?", "gt": [["2\n", "two"]], "model_output": "It is 2.\u2028"}
PAPER |= {"reward": 1.0}
NUMBERED = {"task": "a", "i": 0, "gt": "2", "output": "2", "reward_paper": 1, "judged": None}
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
STRICT = [LM_EVAL | {"doc_id": i, "exact_match": 0.0} for i in range(2)]
FLEXIBLE = [row | {"filter": "flexible-extract", "exact_match": 1.0 - row["doc_id"]} for row in STRICT]
LIGHTEVAL = {
    "doc": {"query": "1+1?", "choices": ["2", "3"], "gold_index": 0, "task_name": "lighteval|math_500|0", "id": "7"},
    "model_response": {"text": ["It is 3."]},
    "metric": {"pass@k:k=1": 0.0},
}
MATH_500 = "lighteval|math_500|0"
OURS = {"task": "amc23", "id": 4, "sample": 1, "completion": "[2]", "answers": ["2"], "length": 5, "truncated": False}
ROLLOUT = {
    "example_id": 3,
    "prompt": [{"role": "user", "content": "1+1?"}],
    "completion": [{"role": "assistant", "content": "so"}, {"role": "tool", "content": "3"}],
    "answer": '["2"]',
    "reward": 1.0,
    "task": "sum",
}


def save(path, rows):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize(
    ("file", "rows", "read"),
    [
        (
            "eval.json",
            [PAPER, PAPER | {"reward": 0.0}, PAPER | {"prompt": "other", "reward": None}],
            [
                ("minerva", "user: 1+1?", 0, "It is 2.\u2028", ["2", "two"], True),
                ("minerva", "user: 1+1?", 1, "It is 2.\u2028", ["2", "two"], False),
                ("minerva", "other", 0, "It is 2.\u2028", ["2", "two"], None),
            ],
        ),
        (
            "any.jsonl",
            [NUMBERED | {"judged": 0}, NUMBERED | {"i": 1}],
            [("a", str(i), 0, "2", ["2"], i == 1) for i in (0, 1)],
        ),
        (
            "samples_gsm8k_cot_2026-11-24T10-00-00.000000.jsonl",
            [LM_EVAL],
            [("gsm8k_cot", "3", 0, "The answer is 2.", ["2"], True)],
        ),
        (
            "samples_a.jsonl",
            [LM_EVAL | {"resps": [["2", "3"], ["4"]]}],
            [("a", "3", i, str(i + 2), ["2"], None) for i in range(3)],
        ),
        (
            "samples_b.jsonl",
            STRICT + FLEXIBLE,
            [("b", str(i), 0, "The answer is 2.", ["2"], i == 0) for i in range(2)],
        ),
        ("details.parquet", [LIGHTEVAL], [(MATH_500, "7", 0, "It is 3.", ["2"], False)]),
        (
            "details.parquet",
            [LIGHTEVAL | {"model_response": {"text": ["2", "3"]}}],
            [(MATH_500, "7", i, str(i + 2), ["2"], None) for i in range(2)],
        ),
        ("samples.jsonl", [OURS | {"status": "timeout"}], [("amc23", "4", 1, "[2]", ["2"], False)]),
        ("results.jsonl", [ROLLOUT] * 2, [("sum", "3", i, "so", ["2"], True) for i in range(2)]),
    ],
)
def test_formats(tmp_path, file, rows, read):
    outputs, _ = read_saved(save(tmp_path / file, rows))
    fields = ("task", "id", "sample", "completion", "answers", "stored")
    assert [tuple(output[field] for field in fields) for output in outputs] == read
    known = (5, False) if file == "samples.jsonl" else (None, None)
    assert {(output["length"], output["truncated"]) for output in outputs} == {known}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (
            {"task_name": "x"},
            "of no known format, with the columns task_name: ktae has answers, completion",
        ),
        (PAPER | {"gt": []}, "there is no accepted answer"),
        (PAPER | {"gt": None}, "there is no accepted answer"),
        (PAPER | {"model_output": None}, "TypeError expected a text"),
        (PAPER | {"reward": "good"}, "ValueError could not convert"),
        (LM_EVAL | {"resps": []}, "there is no sample"),
        (LIGHTEVAL | {"metric": [1]}, "AttributeError"),
        ("text", "a row must be a JSON object"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_bad_row_is_named_and_left_out(tmp_path, capsys, bad, reason, place):
    rows = [PAPER]
    rows.insert(place, bad)
    path = save(tmp_path / "outputs.jsonl", rows)
    good, (malformed,) = read_saved(path)
    assert len(good) == 1
    assert (malformed.row, reason in malformed.reason) == (place + 1, True)
    assert f"{path}:{place + 1}: " in capsys.readouterr().err


def test_a_sample_given_twice_is_malformed(tmp_path):
    rows, (twice,) = read_saved(save(tmp_path / "samples.jsonl", [OURS, OURS | {"completion": "3"}]))
    assert ([row["completion"] for row in rows], twice.row) == (["[2]"], 2)
    assert "sample 1 of amc23, 4 was there before" in twice.reason


@pytest.mark.parametrize("rows", [[], [{"a": 1}]])
def test_nothing_to_grade(tmp_path, rows):
    with pytest.raises(ValueError, match="holds no usable rows"):
        read_saved(save(tmp_path / "outputs.jsonl", rows))
