"""The report of real rollouts: four GPT-3 solutions of each GSM8K problem, and what the documentation says of them."""

import gzip
import json
import re
from pathlib import Path

import pytest
from test_page import Scripts, data_of

from ktae.cli import main

DOCS = Path(__file__).resolve().parents[2] / "docs" / "reading-a-report.md"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@pytest.fixture(scope="module")
def gsm8k(shared, tmp_path_factory):
    path = shared / "data" / "groups" / "gsm8k_example_model_solutions.jsonl.gz"
    if not path.exists():
        pytest.skip(f"needs {path}")
    out = tmp_path_factory.mktemp("gsm8k") / "report.html"
    assert main(["report", str(path), "--tokenizer", "words", "--unnest", *MODELS, "--out", str(out)]) == 0
    return data_of(Scripts(out.read_text()))


def columns(groups, *names):
    """The tables of all mixed prompts, one list a column."""
    return [[value for group in groups for value in group["units"][name]] for name in names]


def test_counts_in_the_documentation(gsm8k):
    report, groups = gsm8k
    mixed = [group for group in groups if group["n_correct"] and group["n_incorrect"]]
    assert (len(groups), len(mixed)) == (1319, 731)
    assert dict(report["summary"])["mixed prompts"] == "731"
    value, fisher, uses = columns(mixed, "value", "fisher_p", "occurrences")
    large = [k for k in range(len(value)) if abs(value[k]) > 0.99]
    assert len(value) == 41_719
    assert len(large) == 19_819
    assert sum(fisher[k] == 1 for k in large) == 14_182
    assert sum(uses[k] == 1 for k in large) == 9_261
    text = DOCS.read_text()
    assert all(number in text for number in ("1,319", "731", "41,719", "19,819", "14,182", "9,261"))


def test_four_rollouts_show_nothing_beyond_chance(gsm8k):
    _, groups = gsm8k
    for group in groups:
        if group["n_correct"] and group["n_incorrect"]:
            least = 1 / 3 if group["n_correct"] == 2 else 1 / 4
            assert min(group["units"]["fisher_p"]) >= least - 1e-6
            assert min(group["units"]["permutation_p"]) >= least - 1e-6
            assert min(group["units"]["adjusted_p"]) > 0.05


def documented():
    """(prompt, token, correct, incorrect, value, Fisher p, shuffled p) of the tables in the documentation."""
    prompt = None
    for line in DOCS.read_text().splitlines():
        if found := re.match(r"\*\*Prompt (\d+)\*\*", line):
            prompt = int(found[1])
        elif found := re.match(r"\| `(\S+)` \| (\d of \d) \| (\d of \d) \| (\S+) \| (\S+) \| (\S+) \|", line):
            yield prompt, *found.groups()


def test_tables_in_the_documentation(gsm8k):
    _, groups = gsm8k
    rows = list(documented())
    assert len(rows) == 12
    for prompt, token, correct, incorrect, *numbers in rows:
        group = groups[prompt - 1]
        units = group["units"]
        unit = next(k for k, text in enumerate(units["text"]) if group["texts"][text].strip() == token)
        assert correct == f"{units['a'][unit]} of {group['n_correct']}", (prompt, token)
        assert incorrect == f"{units['b'][unit]} of {group['n_incorrect']}", (prompt, token)
        shown = [float(number) for number in numbers]
        assert shown == [round(units[name][unit], 2) for name in ("value", "fisher_p", "permutation_p")], (
            prompt,
            token,
        )


def test_every_solution_is_in_the_report(gsm8k, shared):
    _, groups = gsm8k
    with gzip.open(shared / "data" / "groups" / "gsm8k_example_model_solutions.jsonl.gz", "rt") as lines:
        for line, group in zip(lines, groups, strict=True):
            problem = json.loads(line)
            assert group["prompt"] == problem["question"]
            for model, rollout in zip(MODELS, group["rollouts"], strict=True):
                indices = rollout.get("texts") or [group["units"]["text"][unit] for unit in rollout["units"]]
                assert "".join(group["texts"][k] for k in indices) == problem[model]["solution"]
                assert rollout["correct"] == problem[model]["is_correct"]
                assert rollout["label"] == model
