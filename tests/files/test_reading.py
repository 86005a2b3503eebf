"""Reading rollouts saved by anything: columns, formats, malformed rows."""

import math
import re

import pytest
from saved import save

from ktae.files.columns import Rollout, columns_of, label
from ktae.files.reading import load_groups, read_rollouts
from ktae.files.rows import Malformed

pa = pytest.importorskip("pyarrow")

# What other programs write, in the shape that was read in their sources; TRL's is also written by TRL itself, below.

SAID = [{"role": "assistant", "content": "so 5"}]
TRL = {"step": 1, "prompt": "q", "completion": "so 5"}
VERL = {"input": "q", "output": "so 5", "gts": "5", "score": 1.0, "step": 3, "acc": True}
SLIME = {"group_index": 0, "index": 4, "prompt": "q", "tokens": [1, 2, 3], "response": "so 5", "response_length": 2}
VERIFIERS = {"example_id": 7, "prompt": [{"role": "user", "content": "q"}], "completion": SAID, "reward": 1.0}
PAPER = {"task_name": "amc23", "prompt": "q", "gt": [["5"]], "model_output": "so 5", "reward": 1.0}
KTAE = {"algorithm": "grpo", "group": 0, **TRL, "right": 1.0, "key_token_value": 0.1, "advantage": 0.0}
EVAL = {"task": "gsm8k", "id": "7", "sample": 0, **TRL, "status": "correct", "reward": 1.0}
SOLVED = {"problem": "q", "solution": "5", "generation": "so 5", "score": 1}
SWIFT = {"step": ["1"], "prompt": ["q"], "completion": ["so 5"], "Accuracy": [1.0], "advantages": [0.5]}

FORMATS = {
    "ktae train": (KTAE, "completion", "right", "grpo/1/0"),
    "ktae eval": (EVAL, "completion", "reward", "gsm8k/7"),
    "TRL before advantage": ({**TRL, "reward": 1.0}, "completion", "reward", "1/q"),
    "TRL": ({**TRL, "acc": 1.0, "advantage": 0.5}, "completion", "acc", "1/q"),
    "TRL, chat": ({**TRL, "completion": SAID, "acc": 1.0, "advantage": 0.5}, "completion", "acc", "1/q"),
    "verl's dump": (VERL, "output", "score", "3/q"),
    "verl's dump with uid": ({**VERL, "uid": "u"}, "output", "score", "3/u"),
    "ms-swift": (SWIFT, "completion", "Accuracy", "1/q"),
    "OpenRLHF": ({"input": "q", "output": "so 5", "reward": 1.0}, "output", "reward", "q"),
    "slime": ({**SLIME, "reward": 1.0, "loss_mask": [1, 1], "label": "5"}, "tokens", "reward", "0"),
    "slime, wrapped": ({"rollout_id": 2, "samples": [{**SLIME, "reward": 1.0}]}, "tokens", "reward", "2/0"),
    "SkyRL": ({"input_prompt": "q", "output_response": "so 5", "score": 1.0}, "output_response", "score", "q"),
    "verifiers": (VERIFIERS, "completion", "reward", "7"),
    "prime-rl": ({**VERIFIERS, "step": 3, "advantage": 0.5}, "completion", "reward", "3/7"),
    "the paper's JSON": (PAPER, "model_output", "reward", "q"),
    "samples as objects": ({"prompt": "q", "samples": [{"text": "so 5", "score": 1.0}]}, "text", "score", "q"),
    "samples as texts": ({"prompt": "q", "responses": ["so 5"], "rewards": [1.0]}, "responses", "rewards", "q"),
    "several steps": ({**TRL, "reward": 1, "global_step": 1, "epoch": 0}, "completion", "reward", "1/1/0/q"),
    "a solution beside": (SOLVED, "generation", "score", "q"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_recognised(tmp_path, capsys, name):
    """In the first rows, of which one may be unscored."""
    row, completion, reward, group = FORMATS[name]
    rows = [row] if {"samples", "rewards", "Accuracy"} & row.keys() else [{**row, reward: None}, row]
    *unscored, rollout = read_rollouts(save(tmp_path / "r.jsonl", rows))
    assert (rollout.group, rollout.reward) == (group, 1.0)
    assert all(math.isnan(other.reward) and other.group == group for other in unscored)
    told = capsys.readouterr().err
    assert f"completion from {completion}, " in told
    assert f"reward from {reward}" in told
    if rollout.token_ids:
        assert rollout.mask == [0, 1, 1], "the prompt is outside"
    else:
        assert "".join(text for text, is_policys in rollout.parts if is_policys) == "so 5"


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
    assert all(isinstance(r, Rollout) for r in rollouts)
    assert {len(members) for members in groups.values()} == {trainer.num_generations}
    assert {r.reward for r in rollouts} == {0.0, 1.0}
    assert [r.reward for r in rollouts] == [float("a" in r.parts[0][0].replace("<call>", "").split()) for r in rollouts]


def test_folders(tmp_path):
    for step in (2, 10, 1):
        save(tmp_path / f"{step}.jsonl", [{"input": "q", "output": "a", "score": 1.0, "step": step}] * 2)
    assert [(r.row, r.group) for r in read_rollouts(tmp_path)][::2] == [(1, "1/q"), (1, "2/q"), (1, "10/q")]
    save(tmp_path / "samples.jsonl", [KTAE])  # which stands for a run
    (rollout,) = read_rollouts(tmp_path)
    assert (rollout.group, rollout.parts, rollout.prompt) == ("grpo/1/0", (("so 5", True),), "q")


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
    (rollout,) = read_rollouts(save(tmp_path / "r.jsonl", [{"group": 0, "completion": completion, "reward": 1}]))
    assert rollout.parts == tuple(parts)


def test_fields_of_objects(tmp_path):
    row = {"meta": {"uid": "u", "score": 1.0}, "completion": "c", "reward": {"acc": 1.0}}
    path = save(tmp_path / "r.jsonl", [row])
    (rollout,) = read_rollouts(path, group=("meta.uid",), reward="meta.score")
    assert (rollout.group, rollout.reward) == ("u", 1.0)
    (wrong,) = read_rollouts(path, group=("meta.uid",))
    assert "--reward-column reward.FIELD takes one of its fields" in wrong.reason


TWO = {"prompt": "p", "completion": "c", "format": 1.0, "right": None, "advantage": 0.5}


@pytest.mark.parametrize(
    ("row", "given", "message"),
    [
        ({}, {}, "no column is known to hold the group"),
        ({"text": "t", "reward": 1}, {}, "the group; name it with --group-columns: one of text, reward"),
        ({"group": 1, "text": "t"}, {}, "no column is known to hold the reward"),
        ({"group": 1, "reward": 1}, {}, "no column is known to hold the completion"),
        (TWO, {}, "several columns may be the reward: format, right"),
        ({**TWO, "response": "b", "reward": 1}, {}, "completion, response; name it: --text-column completion"),
        ({"prompt": "p", "text": "a", "solution": "b", "reward": 1}, {}, "may be the completion: text, solution"),
        (TWO, {"reward": "none"}, "reward names the column 'none', and the first rows have only prompt"),
        (TWO, {"reward": "right", "mask": "format"}, "format is a mask of token ids, and no column of token ids"),
    ],
)
def test_columns_that_are_not_known_or_ambiguous(row, given, message):
    with pytest.raises(ValueError, match=message):
        columns_of(row, **given)


def test_naming_a_column_decides():
    columns = columns_of({**TWO, "response": "b"}, text="response", reward="right")
    assert (columns.text, columns.reward) == ("response", "right")
    row = {**TWO, "response": "b", "token_ids": [1]}
    assert columns_of(row, reward="right").tokens == "token_ids", "their ids decide"


@pytest.mark.parametrize("value", ["x" * 41, "a/b", "a\nb", "", ["m"], {"a": 1}])
def test_labels_can_be_typed(value):
    text = label(value, "group")
    assert text.isprintable()
    assert 0 < len(text) <= 40
    assert "/" not in text


GOOD = {"group": 1, "token_ids": [5, 7], "mask": [1, 0], "completion": "c", "reward": 1.0}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"group": None}, "group, which says the group, is null"),
        ({"group": math.nan}, "group, which says the group, is null"),
        ({"token_ids": None, "completion": None}, "there is no completion: token_ids is null"),
        ({"completion": 5}, "completion must be a text or a list of messages, got 5"),
        ({"completion": ["a", 5]}, "completion must be a text or a list of messages"),
        ({"completion": [{"role": "assistant", "content": None}]}, "completion must hold messages with a text or tool"),
        ({"completion": [{"role": "assistant", "content": [5]}]}, "completion must hold messages with a text or tool"),
        ({"token_ids": "12"}, "token_ids must be a list of integers"),
        ({"token_ids": [1, -2]}, "must hold integers in .*, got -2"),
        ({"token_ids": [1.0, 2]}, "got 1.0"),
        ({"token_ids": [2**63, 2]}, "got 9223372036854775808"),
        ({"mask": [1]}, "mask must be as long as token_ids, 2, got 1"),
        ({"mask": [1, 0.5]}, "got 0.5"),
        ({"reward": "1"}, "reward must be a finite number, true, false or null, got '1'"),
        ({"reward": math.inf}, "got inf"),
        ({"reward": 10**400}, "reward must be a finite number"),
        ('{"group": 1, "token_ids": [1], "mask": [1], "completion": "c"}', "there is no reward"),
        ("{", "not valid JSON"),
    ],
)
def test_malformed_rows_keep_their_place_and_reason(tmp_path, changes, reason):
    wrong = changes if isinstance(changes, str) else {**GOOD, **changes}
    path = save(tmp_path / "r.jsonl", [GOOD, "", wrong, GOOD])
    first, wrong, last = read_rollouts(path)
    assert (first.row, first.mask, last.row) == (1, [1, 0], 4)
    assert isinstance(wrong, Malformed)
    assert wrong.row == 3
    assert re.search(reason, wrong.reason)
    groups, malformed = load_groups(path)
    assert [len(members) for members in groups.values()] == [2]
    assert malformed == [wrong]
