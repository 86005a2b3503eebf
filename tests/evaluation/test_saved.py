"""Outputs that other programs saved: each format with a file as that program writes it."""

import pytest
from saved import save

from ktae.evaluation.saved import read_saved

PAPER = {"task_name": "minerva", "prompt": "user: 1+1?", "gt": [["2\n", "two"]], "model_output": "2.\u2028"}
PAPER |= {"reward": 1.0}
NUMBERED = {"task": "a", "i": 0, "gt": "2", "output": "2", "reward_paper": 1, "judged": None}
LM_EVAL = {"doc_id": 3, "doc": {"question": "1+1?", "answer": "1+1=2\n#### 2"}, "target": "1+1=2\n#### 2"}
LM_EVAL |= {"arguments": {}, "resps": [["It is 2."]], "filtered_resps": ["2"], "filter": "strict-match"}
LM_EVAL |= {"exact_match": 1.0}
STRICT = [LM_EVAL | {"doc_id": i, "exact_match": float(i == 2)} for i in range(3)]
FLEXIBLE = [row | {"filter": "flexible-extract", "exact_match": float(row["doc_id"] == 0)} for row in STRICT]
DOC = {"query": "1+1?", "choices": ["2", "3"], "gold_index": 0, "task_name": "lighteval|math_500|0", "id": "7"}
LIGHTEVAL = {"doc": DOC, "model_response": {"text": ["It is 3."]}, "metric": {"pass@k:k=1": 0.0}}
OLDER = {**LIGHTEVAL, "doc": DOC | {"id": None}, "model_response": {"text": ["2", "3"]}}
MATH_500 = "lighteval|math_500|0"
OURS = {"task": "amc23", "id": 4, "sample": 1, "completion": "[2]", "answers": ["2"], "length": 5, "truncated": False}
TURNS = [{"role": "assistant", "content": "so"}, {"role": "tool", "content": "3"}]
ROLLOUT = {"example_id": 3, "prompt": [{"role": "user", "content": "1+1?"}], "completion": TURNS, "answer": '["2"]'}
ROLLOUT |= {"reward": 1.0, "task": "sum"}


@pytest.mark.parametrize(
    ("file", "rows", "task", "read"),
    [
        (
            "eval.json",
            [PAPER, PAPER | {"reward": 0.0}],
            "minerva",
            [("user: 1+1?", i, "2.\u2028", not i) for i in (0, 1)],
        ),
        ("eval.json", [PAPER | {"reward": None}], "minerva", [("user: 1+1?", 0, "2.\u2028", None)]),
        ("any.jsonl", [NUMBERED | {"judged": 0}, NUMBERED | {"i": 1}], "a", [(str(i), 0, "2", i == 1) for i in (0, 1)]),
        ("samples_gsm8k_2026-11-24T10-00-00.000000.jsonl", [LM_EVAL], "gsm8k", [("3", 0, "It is 2.", True)]),
        (
            "samples_a.jsonl",
            [LM_EVAL | {"resps": [["2", "3"], ["4"]]}],
            "a",
            [("3", i, str(i + 2), None) for i in (0, 1, 2)],
        ),
        ("samples_b.jsonl", STRICT + FLEXIBLE, "b", [(str(i), 0, "It is 2.", i != 1) for i in range(3)]),
        ("details.parquet", [LIGHTEVAL], MATH_500, [("7", 0, "It is 3.", False)]),
        ("details.parquet", [OLDER], MATH_500, [("1+1?", i, str(i + 2), None) for i in range(2)]),
        ("samples.jsonl", [OURS | {"status": "timeout"}], "amc23", [("4", 1, "[2]", False)]),
        ("results.jsonl", [ROLLOUT] * 2, "sum", [("3", i, "so", True) for i in range(2)]),
    ],
)
def test_formats(tmp_path, file, rows, task, read):
    outputs, malformed = read_saved(save(tmp_path / file, rows))
    assert [tuple(output[field] for field in ("id", "sample", "completion", "stored")) for output in outputs] == read
    assert malformed == []
    for output in outputs:
        assert (output["task"], output["answers"]) == (task, ["2", "two"] if task == "minerva" else ["2"])
        known = (5, False) if task == "amc23" else (None, None)
        assert (output["length"], output["truncated"]) == known


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"task_name": "x"}, "of no known format, with the columns task_name: ktae has answers, completion"),
        (PAPER | {"gt": []}, "there is no accepted answer"),
        (PAPER | {"model_output": None}, "TypeError expected a text"),
        (PAPER | {"reward": "good"}, "ValueError could not convert"),
        (LM_EVAL | {"resps": []}, "there is no sample"),
        (LIGHTEVAL | {"metric": [1]}, "AttributeError"),
        (OURS, "sample 1 of amc23, 4 was there before"),
        ('"text"', "a row must be a JSON object"),
    ],
)
def test_a_bad_row_is_named_and_left_out(tmp_path, capsys, bad, reason):
    path = save(tmp_path / "outputs.jsonl", [OURS, bad, PAPER])
    good, (malformed,) = read_saved(path)
    assert [row["task"] for row in good] == ["amc23", "minerva"]
    assert (malformed.row, reason in malformed.reason) == (2, True)
    assert f"{path}:2: " in capsys.readouterr().err


@pytest.mark.parametrize("rows", [[], [{"a": 1}]])
def test_nothing_to_grade(tmp_path, rows):
    with pytest.raises(ValueError, match="holds no usable rows"):
        read_saved(save(tmp_path / "outputs.jsonl", rows))
