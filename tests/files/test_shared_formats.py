"""Every file of ../shared/data/formats gives what its README says; skipped, and said so, where the folder is absent."""

import json

import pytest

pytest.importorskip("pyarrow")

from ktae.cli import main
from ktae.evaluation.saved import read_saved

ROLLOUTS = ["gold_solution.jsonl", "trl_old.jsonl", "chat_toolout.jsonl", "trl_tools.jsonl", "swift.jsonl"]
ROLLOUTS += ["slime.jsonl", "skyrl.jsonl", "bom.jsonl", "json_lines.json", "wrapped.json", "first_bad.jsonl"]
ROLLOUTS += ["null_reward_first.jsonl", "score_neg.jsonl"]
OUTPUTS = {
    "details_gsm8k.parquet": [("0", 0, ["7"])],
    "details_aime.parquet": [("0", i, ["5"]) for i in range(4)],
    "samples_math_rep2.jsonl": [(str(i), j, ["5"]) for i in range(2) for j in range(3)],
    "samples_gsm8k_2026-01-02T03-04-05.000000.jsonl": [(str(i), 0, [str(70 + i)]) for i in range(3)],
    "samples_onebad.jsonl": [("0", 0, ["5"])],
}
PROBLEMS = {"gsm8k_raw.jsonl": "2345", "answer_lists.jsonl": "4", "verl_dataset.parquet": "12345"}


@pytest.mark.parametrize("name", [*ROLLOUTS, *OUTPUTS, *PROBLEMS])
def test_a_file_of_the_shared_folder(shared, tmp_path, capsys, name):
    path, out = shared / "data" / "formats" / name, tmp_path / "out.jsonl"
    if name in OUTPUTS:
        rows, bad = read_saved(path)
        assert [(row["id"], row["sample"], row["answers"]) for row in rows] == OUTPUTS[name]
        assert len(bad) == (name == "samples_onebad.jsonl")
        return
    tokens = ["--tokens-column", "tokens"] if name == "slime.jsonl" else ["--tokenizer", "words"]
    arguments = ["data", "prepare"] if name in PROBLEMS else ["score", *tokens]
    assert main([*arguments, str(path), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    if name in PROBLEMS:
        assert sorted(answer for row in rows for answer in row["answers"]) == [*PROBLEMS[name]]
        return
    told = capsys.readouterr()
    counts = "16 rollouts, 4 groups" if name == "trl_old.jsonl" else "8 rollouts, 2 groups"
    assert counts in told.out
    assert (f"malformed, {path}:1: " in told.err) == (name == "first_bad.jsonl")
    assert ("counts as incorrect" in told.err) == (name == "score_neg.jsonl")
    assert ("completion from generation" in told.err) == (name == "gold_solution.jsonl")
    assert any(any(row["key_token_values"]) for row in rows) == (name != "score_neg.jsonl")
