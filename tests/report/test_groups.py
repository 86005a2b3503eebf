"""One group of saved rollouts: found by label, number or prefix; its question; what its size lets p-values say."""

import json
from itertools import product

import pytest
from scipy.stats import fisher_exact

from ktae.cli import build_parser
from ktae.config import KTAEConfig
from ktae.files.columns import columns_of, parse_row
from ktae.files.tokens import Words
from ktae.report.groups import group_of, last_turn, load_group, remarks


@pytest.fixture
def load(tmp_path):
    labels = ["2b2e3f9639f6fa28", "2", "2b9e", "de563650cee0d9af"]
    rows = [{"group": label, "completion": "x", "reward": r} for label in labels for r in (0, 1)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def load(wanted):
        arguments = ["explain", str(tmp_path / "r.jsonl"), "--tokenizer", "words", "--group", wanted]
        found = load_group(build_parser("explain").parse_args(arguments), permutations=0)
        return {rollout.group for rollout in found.rollouts}, len(found.rollouts)

    return load


@pytest.mark.parametrize(
    ("wanted", "label"),
    [
        ("2b9e", "2b9e"),
        ("1", "2b2e3f9639f6fa28"),
        ("2", "2"),  # the label, not the second group nor what begins so
        ("3", "2b9e"),
        ("de", "de563650cee0d9af"),
        ("2b2", "2b2e3f9639f6fa28"),
    ],
)
def test_a_group_by_label_number_or_prefix(load, wanted, label):
    assert load(wanted) == ({label}, 2)


@pytest.mark.parametrize(("wanted", "message"), [("2b", "got '2b', and 2 labels begin so: 2b2e"), ("5", "got '5'$")])
def test_no_group_or_several(load, wanted, message):
    with pytest.raises(ValueError, match=message):
        load(wanted)


SYSTEM = "You are a helpful assistant.\nReason step by step."
TURNS = [("system", SYSTEM), ("user", "Hi"), ("assistant", "Hello"), ("user", "What is\n6 * 7?")]


def rendered(form, last):
    return "".join(form.format(role=role, content=content) for role, content in TURNS) + last


@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": role, "content": content} for role, content in TURNS],
        rendered("<|im_start|>{role}\n{content}<|im_end|>\n", "<|im_start|>assistant\n"),
        rendered("{role}\n{content}\n", "assistant\n"),
        rendered("<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>", ""),
        rendered("<start_of_turn>{role}\n{content}<end_of_turn>\n", "<start_of_turn>model\n"),
        f"<s>[INST] {SYSTEM}\nHi [/INST] Hello</s>[INST] What is\n6 * 7? [/INST]",
        "<\uff5cbegin\uff5c>" + SYSTEM + "<\uff5cUser\uff5c>What is\n6 * 7?<\uff5cAssistant\uff5c>",
        "What is\n6 * 7?",
    ],
)
def test_the_last_turn_of_the_user(prompt):
    data = {"prompt": prompt, "completion": "42", "reward": 1}
    assert last_turn(parse_row(data, columns_of(data), 1)) == "What is\n6 * 7?"


@pytest.mark.parametrize(("n_T", "n_F"), [(1, 1), (1, 3), (2, 2), (3, 1), (4, 4), (2, 6)])
def test_the_least_p_and_a_p_of_1_beside_an_extreme_value(n_T, n_F):
    rewards = [1] * n_T + [0] * n_F
    rows = [{"group": 1, "completion": f"yes {k}" if r else f"no {k}", "reward": r} for k, r in enumerate(rewards)]
    rollouts = [parse_row(row, columns_of(row), k) for k, row in enumerate(rows)]
    group = group_of(rollouts, KTAEConfig(), Words(), permutations=100)
    tables = [[[a, b], [n_T - a, n_F - b]] for a, b in product(range(n_T + 1), range(n_F + 1))]
    least = min(fisher_exact(table).pvalue for table in tables)
    first, *others = remarks(group, 1.0)
    assert f"no Fisher p can be below {least:.3g}." in first
    lone = sum(abs(row["value"]) > 0.99 and row["fisher_p"] == 1 for row in group.table.rows())
    assert [f"({lone} tokens here)" in remark for remark in others] == [True] * (lone > 0)
    assert remarks(group_of(rollouts[:n_T], KTAEConfig(), Words(), permutations=0), 1.0) == []
