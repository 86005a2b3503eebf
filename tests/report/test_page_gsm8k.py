"""The report of real rollouts: four GPT-3 solutions of each GSM8K problem, and what the documentation says of them."""

import importlib
import re
from pathlib import Path

import pytest
from page_browser import save
from test_page import report

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parents[2] / "docs" / "reading-a-report.md"


@pytest.fixture(scope="module")
def gsm8k(shared, tmp_path_factory):
    path = shared / "data" / "groups" / "gsm8k_example_model_solutions.jsonl.gz"
    if not path.exists():
        pytest.skip(f"needs {path}")
    folder = tmp_path_factory.mktemp("gsm8k")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.syspath_prepend(DOCS.parent)
    rows = importlib.import_module("gallery").gsm8k_rows(path)
    return report(save(folder / "r.jsonl", rows), "--tokenizer", "words", out=folder / "report.html")


def test_counts_in_the_documentation(gsm8k):
    shown, groups = gsm8k
    mixed = [group for group in groups if group["n_correct"] and group["n_incorrect"]]
    tokens = [
        token
        for group in mixed
        for token in zip(*(group["units"][name] for name in ("value", "fisher_p", "occurrences")), strict=True)
    ]
    large = [token for token in tokens if abs(token[0]) > 0.99]
    counts = [len(groups), len(mixed), len(tokens), len(large)]
    counts += [sum(p == 1 for _, p, _ in large), sum(uses == 1 for _, _, uses in large)]
    assert counts == [1319, 731, 41_719, 19_819, 14_182, 9_261]
    assert dict(shown["summary"])["mixed prompts"] == "731"
    assert all(f"{count:,}" in DOCS.read_text() for count in counts)
    for group in mixed:
        units, least = group["units"], 1 / 3 if group["n_correct"] == 2 else 1 / 4
        assert min(units["fisher_p"] + units["permutation_p"]) >= least - 1e-6
        assert min(units["adjusted_p"]) > 0.05


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
        shown = [round(units[name][unit], 2) for name in ("value", "fisher_p", "permutation_p")]
        held = (f"{units['a'][unit]} of {group['n_correct']}", f"{units['b'][unit]} of {group['n_incorrect']}")
        assert (correct, incorrect, [float(number) for number in numbers]) == (*held, shown), (prompt, token)
