"""What other programs write: a small file in the shape of each, and what must come out of it.

The shapes were read in the programs' sources; TRL's is also written by TRL itself, in test_reading.py.
"""

import json

import pytest

pytest.importorskip("pyarrow")

from ktae.cli import main
from ktae.files.columns import Columns
from ktae.files.reading import read_rollouts

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


@pytest.mark.parametrize("name", ["r.jsonl", "lines.json", "wrapped.json"])
def test_every_command_reads_them_alike(tmp_path, name):
    pytest.importorskip("datasets")
    rows = [{**TRL, "completion": f"so {i}", "answer": "5", "reward": i % 2} for i in range(4)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / name).write_text("\ufeff" + (json.dumps({"rows": rows}) if "wrapped" in name else lines))
    path, words = str(tmp_path / name), ["--tokenizer", "words"]
    assert main(["score", path, *words]) == 0
    assert main(["explain", path, *words, "--group", "1/q", "--permutations", "10"]) == 0
    assert main(["report", path, *words, "--out", str(tmp_path / "r.html"), "--permutations", "0"]) == 0
    assert main(["grade", path, "--out", str(tmp_path / "graded")]) == 0
    columns = ["--problem-column", "completion", "--answer-column", "answer"]
    assert main(["data", "prepare", path, *columns, "--out", str(tmp_path / "p.jsonl")]) == 0
    prepared = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [row["answers"] for row in prepared] == [["5"]] * 4
