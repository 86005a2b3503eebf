"""One group of saved rollouts: found by label or number; its prompt; what its size lets p-values say."""

from itertools import product

import pytest
from page_browser import row
from saved import save
from scipy.stats import fisher_exact

from ktae.cli import build_parser
from ktae.config import KTAEConfig
from ktae.files.columns import columns_of, parse_row
from ktae.files.tokens import Words
from ktae.report.groups import apart, group_of, load_group, remarks, unit_texts

LABELS = ["2b2e3f9639f6fa28", "2", "de563650cee0d9af"]


def group(*rows, permutations=9):
    columns = columns_of(rows[0])
    return group_of([parse_row(row, columns, 1) for row in rows], KTAEConfig(), Words(), permutations=permutations)


def test_a_group_by_label_or_number(tmp_path):
    save(tmp_path / "r.jsonl", [row(label, "x", reward) for label in LABELS for reward in (0, 1)])

    def load(wanted):
        arguments = ["explain", str(tmp_path / "r.jsonl"), "--tokenizer", "words", "--group", wanted]
        return load_group(build_parser("explain").parse_args(arguments), permutations=0).rollouts

    # "2" is the label, not the second group.
    for wanted, place in {LABELS[0]: 0, "1": 0, "2": 1, "3": 2}.items():
        assert [rollout.group for rollout in load(wanted)] == [LABELS[place]] * 2
    for wanted in ("2b", "0", "4"):
        with pytest.raises(ValueError, match=f"--group must be the label of a group .* got '{wanted}'$"):
            load(wanted)


def test_of_two_texts_as_frequent_the_order_of_rows_decides_nothing():
    rows = [{"uid": 1, "reward": 1, "token_ids": [5]}] * 2
    rollouts = [parse_row(row, columns_of(rows[0]), 1) for row in rows]
    assert unit_texts(rollouts, [["b"], ["a"]]) == unit_texts(rollouts, [["a"], ["b"]]) == {5: "a"}


def test_a_token_reads_as_the_policy_wrote_it():
    """The calculator says 7 as well, after a line break."""
    turns = [("assistant", "3+4"), ("tool", "7"), ("assistant", "so 7")]
    found = group(row(1, [{"role": role, "content": content} for role, content in turns], 1.0))
    assert found.texts == [["3", "+", "4", "\n7", "\nso", " 7"]]
    assert sorted(found.table.text) == ["\nso", " 7", "+", "3", "4"]


def test_prompts_are_listed_without_what_all_begin_with():
    assert apart(["Be brief.\n\n6 * 7?", "Be brief.\n\n6 + 7?\nNow."]) == ["6 * 7?", "6 + 7?\nNow."]
    assert apart(["<|im_start|>user\n6?<|im_end|>", "<|im_start|>user\n7?<|im_end|>"]) == [
        "6?<|im_end|>",
        "7?<|im_end|>",
    ]
    assert apart(["Hi", "Hi\nthere"]) == ["Hi", "there"]
    for alone in (["one\nprompt"] * 2, ["6 * 7?", "6 + 7?"], [""]):
        assert apart(alone) == alone


@pytest.mark.parametrize(("n_T", "n_F"), [(1, 1), (1, 3), (2, 2), (3, 1), (4, 4), (2, 6)])
def test_the_least_p(n_T, n_F):
    rewards = [1] * n_T + [0] * n_F
    rows = [row(1, f"yes {k}" if reward else f"no {k}", reward) for k, reward in enumerate(rewards)]
    tables = [[[a, b], [n_T - a, n_F - b]] for a, b in product(range(n_T + 1), range(n_F + 1))]
    least = min(fisher_exact(table).pvalue for table in tables)
    (said,) = remarks(group(*rows, permutations=100))
    assert f"no Fisher p can be below {least:.3g}." in said


@pytest.mark.parametrize(
    ("rewards", "said"),
    [
        ((1, 1), "All 2 scored rollouts are correct: there is nothing to compare"),
        ((0, None), "The only scored rollout is incorrect: there is nothing to compare"),
        ((None,), "No rollout is scored"),
    ],
)
def test_a_group_with_nothing_to_compare(rewards, said):
    found = group(*(row(1, f"so {k}", reward) for k, reward in enumerate(rewards)))
    assert [remark.partition(",")[0] for remark in remarks(found)] == [said]
    assert not any(scored.value_T.any() for scored in found.scores)
