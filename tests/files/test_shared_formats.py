"""Every file of ../shared/data/formats gives what its README says; skipped, and said so, where the folder is absent."""

import json

import pytest

pytest.importorskip("pyarrow")

from ktae.cli import main
from ktae.evaluation.saved import read_saved
from ktae.files.reading import load_groups


@pytest.fixture
def formats(shared):
    folder = shared / "data" / "formats"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    return folder


GROUPS = {"trl_old.jsonl": (4, 16)}
NAMES = ["gold_solution.jsonl", "trl_old.jsonl", "chat_toolout.jsonl", "trl_tools.jsonl", "swift.jsonl", "slime.jsonl"]
NAMES += ["skyrl.jsonl", "bom.jsonl", "json_lines.json", "wrapped.json", "first_bad.jsonl", "null_reward_first.jsonl"]


@pytest.mark.parametrize("name", [*NAMES, "score_neg.jsonl"])
def test_rollouts_of_the_shared_folder(formats, tmp_path, capsys, name):
    found, bad = load_groups(formats / name)
    assert (len(found), sum(map(len, found.values()))) == GROUPS.get(name, (2, 8))
    assert [row.row for row in bad] == [1] * (name == "first_bad.jsonl")
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
    rows, bad = read_saved(formats / name)
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
