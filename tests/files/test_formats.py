"""What other programs write: a small file in the shape of each, and what must come out of it.

The shapes were read in the programs' sources; TRL's is also written by TRL itself, in test_reading.py.
"""

import json

import pytest

pytest.importorskip("pyarrow")

from ktae.cli import main
from ktae.evaluation.saved import read_saved
from ktae.files.columns import Columns
from ktae.files.reading import load_groups, read_rollouts
from ktae.files.rows import Malformed

MESSAGES = [{"role": "user", "content": "q"}]
SAID = [{"role": "assistant", "content": "so 5"}]
TRL = {"step": 1, "prompt": "q", "completion": "so 5"}
VERL = {"input": "q", "output": "so 5", "gts": "5", "score": 1.0, "step": 3, "acc": True}
SLIME = {"group_index": 0, "index": 4, "prompt": "q", "tokens": [1, 2, 3], "response": "so 5", "response_length": 2}
SKYRL = {"input_prompt": "q", "output_response": "so 5", "score": 1.0, "stop_reason": "stop", "env_extras": {}}
VERIFIERS = {"example_id": 7, "prompt": MESSAGES, "completion": SAID, "answer": "5", "task": "sum", "reward": 1.0}
NEMO = {"content": [["q", "so 5", "Environment: correct"]], "rewards": [1.0], "input_lengths": [4], "idx": 0}
NEMO_IDS = {**NEMO, "token_ids": [[1, 2, 3, 0]], "token_loss_mask": [[0, 1, 1, 0]], "advantages": [[0.0] * 4]}
PAPER = {"task_name": "amc23", "prompt": "q", "gt": [["5"]], "model_output": "so 5", "reward": 1.0}
KTAE = {"algorithm": "grpo", "group": 0, **TRL, "right": 1.0, "key_token_value": 0.1, "advantage": 0.0}

FORMATS = {
    "ktae train": (KTAE, "completion", "right", "grpo/1/0"),
    "TRL before advantage": ({**TRL, "reward": 1.0}, "completion", "reward", "1/q"),
    "TRL": ({**TRL, "acc": 1.0, "advantage": 0.5}, "completion", "acc", "1/q"),
    "TRL, chat": ({**TRL, "completion": SAID, "acc": 1.0, "advantage": 0.5}, "completion", "acc", "1/q"),
    "verl's dump": (VERL, "output", "score", "3/q"),
    "verl's dump with uid": ({**VERL, "uid": "u"}, "output", "score", "3/u"),
    "ms-swift": (
        {"step": ["1"], "prompt": ["q"], "completion": ["so 5"], "Accuracy": [1.0], "advantages": [0.5]},
        "completion",
        "Accuracy",
        "1/q",
    ),
    "OpenRLHF": ({"input": "q", "output": "so 5", "reward": 1.0}, "output", "reward", "q"),
    "slime": ({**SLIME, "reward": 1.0, "loss_mask": [1, 1], "label": "5"}, "tokens", "reward", "0"),
    "slime, wrapped": ({"rollout_id": 2, "samples": [{**SLIME, "reward": 1.0}]}, "tokens", "reward", "2/0"),
    "SkyRL": (SKYRL, "output_response", "score", "q"),
    "verifiers": (VERIFIERS, "completion", "reward", "7"),
    "prime-rl": ({**VERIFIERS, "step": 3, "advantage": 0.5}, "completion", "reward", "3/7"),
    "NeMo-RL": (NEMO, "completion", "rewards", "12/q"),
    "NeMo-RL with ids": (NEMO_IDS, "token_ids", "rewards", "12/q"),
    "the paper's JSON": (PAPER, "model_output", "reward", "q"),
    "samples as objects": ({"prompt": "q", "samples": [{"text": "so 5", "score": 1.0}]}, "text", "score", "q"),
    "samples as texts": ({"prompt": "q", "responses": ["so 5"], "rewards": [1.0]}, "responses", "rewards", "q"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_recognised(tmp_path, name):
    row, completion, reward, group = FORMATS[name]
    path = tmp_path / "train_data_step12.jsonl"
    path.write_text(json.dumps(row))
    columns: list[Columns] = []
    (rollout,) = read_rollouts(path, on_columns=columns.append)
    assert (rollout.group, rollout.reward) == (group, 1.0)
    assert (columns[0].tokens or columns[0].text, columns[0].reward) == (completion, reward)
    if rollout.token_ids:
        assert rollout.mask in ([0, 1, 1], [0, 1, 1, 0]), "the prompt is outside"
    else:
        assert "".join(text for text, is_policys in rollout.parts if is_policys) == "so 5"


@pytest.fixture
def formats(shared):
    folder = shared / "data" / "formats"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    return folder


@pytest.mark.parametrize(
    ("name", "groups", "rollouts", "malformed"),
    [
        ("gold_solution.jsonl", 2, 8, 0),
        ("trl_old.jsonl", 4, 16, 0),
        ("chat_toolout.jsonl", 2, 8, 0),
        ("trl_tools.jsonl", 2, 8, 0),
        ("swift.jsonl", 2, 8, 0),
        ("slime.jsonl", 2, 8, 0),
        ("skyrl.jsonl", 2, 8, 0),
        ("bom.jsonl", 2, 8, 0),
        ("json_lines.json", 2, 8, 0),
        ("wrapped.json", 2, 8, 0),
        ("first_bad.jsonl", 2, 8, 1),
        ("null_reward_first.jsonl", 2, 8, 0),
        ("score_neg.jsonl", 2, 8, 0),
    ],
)
def test_rollouts_of_the_shared_folder(formats, tmp_path, capsys, name, groups, rollouts, malformed):
    found, bad = load_groups(formats / name)
    assert (len(found), sum(map(len, found.values())), len(bad)) == (groups, rollouts, malformed)
    assert all(isinstance(row, Malformed) and row.row == 1 for row in bad)
    out = tmp_path / "out.jsonl"
    tokens = ["--tokens-column", "tokens"] if name == "slime.jsonl" else ["--tokenizer", "words"]
    assert main(["score", str(formats / name), "--out", str(out), *tokens]) == 0
    said = capsys.readouterr().err
    assert ("counts as incorrect" in said) == (name == "score_neg.jsonl")
    assert ("completion from generation" in said) == (name == "gold_solution.jsonl")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert any(any(row["key_token_values"]) for row in rows) == (name != "score_neg.jsonl")
    for row in rows:
        if name == "slime.jsonl":
            assert row["token_advantages"][:4] == [0, 0, 0, 0]
            assert all(row["token_advantages"][4:])
        if name in ("chat_toolout.jsonl", "trl_tools.jsonl"):
            tool = next(message["content"] for message in row["completion"] if message["role"] == "tool")
            values = zip(row["token_texts"], row["token_advantages"], strict=True)
            others = "".join(text for text, advantage in values if advantage == 0)
            assert others.strip() == tool


@pytest.mark.parametrize(
    ("name", "samples", "malformed"),
    [
        ("details_gsm8k.parquet", [("0", 0, ["7"])], 0),
        ("details_aime.parquet", [("0", i, ["5"]) for i in range(4)], 0),
        ("samples_math_rep2.jsonl", [(str(i), j, ["5"]) for i in range(2) for j in range(3)], 0),
        ("samples_gsm8k_2026-01-02T03-04-05.000000.jsonl", [(str(i), 0, [str(70 + i)]) for i in range(3)], 0),
        ("samples_onebad.jsonl", [("0", 0, ["5"])], 1),
    ],
)
def test_outputs_of_the_shared_folder(formats, name, samples, malformed):
    _, rows, bad = read_saved(formats / name)
    assert [(row["id"], row["sample"], row["answers"]) for row in rows] == samples
    assert len(bad) == malformed


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("gsm8k_raw.jsonl", ["2", "3", "4", "5"]),
        ("answer_lists.jsonl", ["4"]),
        ("verl_dataset.parquet", ["1", "2", "3", "4", "5"]),
    ],
)
def test_problems_of_the_shared_folder(formats, tmp_path, name, answers):
    pytest.importorskip("datasets")
    out = tmp_path / "out.jsonl"
    assert main(["data", "prepare", str(formats / name), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(answer for row in rows for answer in row["answers"]) == answers


@pytest.mark.parametrize("name", ["bom.jsonl", "json_lines.json", "wrapped.json"])
def test_every_command_reads_them_alike(formats, tmp_path, capsys, name):
    pytest.importorskip("datasets")
    path, words = str(formats / name), ["--tokenizer", "words"]
    (label, *_), _ = load_groups(formats / name)
    assert main(["explain", path, *words, "--group", label, "--permutations", "10"]) == 0
    assert main(["report", path, *words, "--out", str(tmp_path / "r.html"), "--permutations", "0"]) == 0
    columns = ["--problem-column", "completion", "--answer-column", "prompt"]
    assert main(["data", "prepare", path, *columns, "--out", str(tmp_path / "p.jsonl")]) == 0
    assert len((tmp_path / "p.jsonl").read_text().splitlines()) == 8
