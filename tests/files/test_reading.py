"""Reading rollouts saved by anything: columns, formats, malformed rows."""

import json
import math
import re

import pytest

pytest.importorskip("pyarrow")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ktae.files.columns import Rollout, columns_of, label
from ktae.files.reading import load_groups, read_rollouts
from ktae.files.rows import Malformed
from ktae.report.groups import tensors

ROWS = [
    {"group": 1, "token_ids": [5, 7], "reward": 1.0},
    {"group": 1, "token_ids": [5, 9], "reward": 0},
    {"group": "b", "token_ids": [], "reward": None},
    {"group": "b", "token_ids": [2**63 - 1], "reward": True},
]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_folder_is_read_in_the_order_of_the_numbers(tmp_path):
    for step in (2, 10, 1):
        lines(tmp_path / f"{step}.jsonl", [{"input": "q", "output": "a", "score": 1.0, "step": step}] * 2)
    assert [(r.row, r.group) for r in read_rollouts(tmp_path)][::2] == [(1, "1/q"), (3, "2/q"), (5, "10/q")]


def test_a_run_folder_stands_for_its_samples(tmp_path):
    sample = {"algorithm": "grpo", "step": 10, "group": 0, "prompt": "p", "completion": "c", "right": 1.0}
    lines(tmp_path / "samples.jsonl", [{**sample, "key_token_value": 0.1, "advantage": 0.0}])
    lines(tmp_path / "metrics.jsonl", [{"loss": 0.0}])
    (rollout,) = read_rollouts(tmp_path)
    assert (rollout.group, rollout.text, rollout.reward, rollout.prompt) == ("grpo/10/0", "c", 1.0, "p")


@pytest.mark.parametrize(
    ("completion", "parts"),
    [
        ("so", [("so", True)]),
        ([{"role": "assistant", "content": "so"}, {"role": "tool", "content": "7"}], [("so", True), ("\n7", False)]),
        ([{"content": "so"}], [("so", True)]),
        ([{"from": "gpt", "value": "so"}, {"from": "human", "value": "no"}], [("so", True), ("\nno", False)]),
        ([{"content": [{"type": "text", "text": "a"}, {"type": "image"}, "b"]}], [("a[image]b", True)]),
        ([{"content": None, "tool_calls": [{"function": {"name": "f"}}]}], [('{"name": "f"}', True)]),
        ([{"role": "assistant", "reasoning_content": "hm", "content": "so"}], [("hm\nso", True)]),
    ],
)
def test_only_what_the_assistant_says_is_the_policys(tmp_path, completion, parts):
    path = lines(tmp_path / "r.jsonl", [{"group": 0, "completion": completion, "reward": 1}])
    (rollout,) = read_rollouts(path)
    assert rollout.parts == tuple(parts)
    assert rollout.text == "".join(text for text, _ in parts)


@pytest.mark.parametrize(
    "content", [None, 5, [{"role": "assistant", "content": None}], [{"role": "assistant", "content": [5]}], ["a", 5]]
)
def test_no_completion(tmp_path, content):
    good = {"group": 0, "completion": "c", "reward": 1}
    _, wrong = read_rollouts(lines(tmp_path / "r.jsonl", [good, {**good, "completion": content}]))
    assert re.search("completion (is null|must)", wrong.reason)


def test_groups_by_every_step_like_column():
    row = {"prompt": "p", "completion": "c", "reward": 1, "global_step": 1, "rollout_id": 2, "epoch": 0}
    assert columns_of(row).group == ("global_step", "rollout_id", "epoch", "prompt")


def test_fields_of_objects(tmp_path):
    row = {"meta": {"uid": "u", "score": 1.0}, "completion": "c", "reward": {"acc": 1.0}}
    path = lines(tmp_path / "r.jsonl", [row])
    (rollout,) = read_rollouts(path, columns={"group": ("meta.uid",), "reward": "meta.score"})
    assert (rollout.group, rollout.reward) == ("u", 1.0)
    (wrong,) = read_rollouts(path, columns={"group": ("meta.uid",)})
    assert "--reward-column reward.FIELD takes one of its fields" in wrong.reason


P_C = {"prompt": "p", "completion": "c"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "t", "reward": 1}, "the group; name it with --group-columns: one of text, reward"),
        ({"group": 1, "text": "t"}, "no column is known to hold the reward"),
        ({"group": 1, "reward": 1}, "no column is known to hold the completion"),
        ({**P_C, "format": 1.0, "right": None, "advantage": 0.5}, "several columns may be the reward: format, right"),
        ({**P_C, "response": "b", "reward": 1}, "completion, response; name it: --text-column completion"),
        ({"prompt": "p", "text": "a", "solution": "b", "reward": 1}, "may be the completion: text, solution"),
    ],
)
def test_columns_that_are_not_known_or_ambiguous(row, message):
    with pytest.raises(ValueError, match=message):
        columns_of(row)


def test_naming_a_column_decides():
    row = {**P_C, "response": "b", "format": 1.0, "right": None, "advantage": 0.5}
    columns = columns_of(row, text="response", reward="right")
    assert (columns.text, columns.reward) == ("response", "right")
    assert columns_of({**row, "token_ids": [1]}, reward="right").tokens == "token_ids", "their ids decide"
    with pytest.raises(ValueError, match="reward names the column 'none', and the first rows have only prompt"):
        columns_of(row, reward="none")


BAD = [
    ("{", "not valid JSON"),
    ("[1]", "a row must be a JSON object, got list"),
    ('{"group": 1, "token_ids": [1]}', "there is no reward"),
    ('{"group": null, "token_ids": [1], "reward": 1}', "group, which says the group, is null"),
    ('{"group": NaN, "token_ids": [1], "reward": 1}', "group, which says the group, is null"),
    ('{"group": 1, "token_ids": null, "reward": 1}', "there is no completion: token_ids is null"),
    ('{"group": 1, "token_ids": "12", "reward": 1}', "token_ids must be a list of integers"),
    ('{"group": 1, "token_ids": [1, -2], "reward": 1}', "must hold integers in .*, got -2"),
    ('{"group": 1, "token_ids": [1.0], "reward": 1}', "got 1.0"),
    ('{"group": 1, "token_ids": [9223372036854775808], "reward": 1}', "got 9223372036854775808"),
    ('{"group": 1, "token_ids": [1], "reward": "1"}', "reward must be a finite number, true, false or null, got '1'"),
    ('{"group": 1, "token_ids": [1], "reward": Infinity}', "got inf"),
    ('{"group": 1, "token_ids": [1], "reward": 1, "note": "\\ud800"}', "half of a surrogate pair"),
    ('{"group": 1, "token_ids": [1], "reward": 1, "note": "\\uDFFF"}', "half of a surrogate pair"),
    ("\xff", "not valid JSON"),
    ('{"group": 1, "token_ids": [1], "reward": 1' + "0" * 400 + "}", "reward must be a finite number"),
    ('{"group": 1, "token_ids": [1], "reward": 1, "note": ' + "[" * 500 + "]" * 500 + "}", "nested more than 100 deep"),
    ('{"group": 1, "token_ids": ' + "[" * 100_000, "nested more than 100 deep"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_malformed_rows_keep_their_place_and_reason(tmp_path, line, reason):
    path = tmp_path / "r.jsonl"
    good = json.dumps(ROWS[0])
    path.write_bytes(f"{good}\n\n{line}\n{good}\n".encode("latin-1"))
    first, wrong, last = read_rollouts(path)
    assert (first.row, last.row) == (1, 4)
    assert isinstance(wrong, Malformed)
    assert wrong.row == 3
    with pytest.raises(ValueError, match=reason) as caught:
        load_groups(path, strict=True)
    assert str(caught.value).startswith(f"{path}:3: ")
    groups, malformed = load_groups(path)
    assert [len(members) for members in groups.values()] == [2]
    assert malformed == [wrong]


@pytest.mark.parametrize("name", ["mask", "states"])
@pytest.mark.parametrize(("values", "reason"), [([1], "as long as token_ids, 2, got 1"), ([1, 0.5], "got 0.5")])
def test_malformed_masks_and_states(tmp_path, name, values, reason):
    rows = [{**ROWS[0], name: [1, 0]}, {**ROWS[0], name: values}]
    good, wrong = read_rollouts(lines(tmp_path / "r.jsonl", rows))
    assert getattr(good, name) == [1, 0]
    assert tensors([good]).get("states", torch.tensor([])).tolist() == [[1, 0]] * (name == "states")
    assert reason in wrong.reason


def test_unnest(tmp_path):
    rows = [{"question": "q", "a": {"solution": "1", "is_correct": True}, "b": {"solution": "2", "is_correct": False}}]
    rows.append({"question": "r", "a": {"solution": "1", "is_correct": True}, "b": 5})
    items = list(read_rollouts(lines(tmp_path / "r.jsonl", rows), unnest=["a", "b"]))
    assert [(r.row, r.text, r.reward, r.data["rollout"]) for r in items[:3]] == [
        (1, "1", 1.0, "a"),
        (1, "2", 0.0, "b"),
        (2, "1", 1.0, "a"),
    ]
    assert items[3].reason == "b must be an object that holds one rollout, got 5"


def test_float32_rewards_are_the_decimal_that_was_meant(tmp_path):
    table = pa.table({"group": [1], "text": ["t"], "reward": pa.array([np.float32(0.1)])})
    pq.write_table(table, tmp_path / "r.parquet")
    (rollout,) = read_rollouts(tmp_path / "r.parquet")
    assert rollout.reward == 0.1


@pytest.mark.parametrize("value", ["x" * 41, "a/b", "a\nb", "", ["m"], {"a": 1}])
def test_labels_can_be_typed(value):
    text = label(value, "group")
    assert text.isprintable()
    assert 0 < len(text) <= 40
    assert "/" not in text


@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning:transformers")
@pytest.mark.slow
def test_completions_that_trl_wrote(tmp_path):
    pytest.importorskip("trl")
    import tiny

    trainer = tiny.build(tmp_path, settings={"max_steps": 2, "log_completions": True})
    trainer.train()
    groups, malformed = load_groups(tmp_path / "completions")
    assert malformed == []
    rollouts = [r for members in groups.values() for r in members]
    assert all(isinstance(r, Rollout) and not math.isnan(r.reward) for r in rollouts)
    assert {len(members) for members in groups.values()} == {trainer.num_generations}
    assert {r.reward for r in rollouts} == {0.0, 1.0}
    assert [r.reward for r in rollouts] == [float("a" in r.text.replace("<call>", "").split()) for r in rollouts]
