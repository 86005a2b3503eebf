import json

import pytest

from ktae.bench import fidelity
from ktae.bench.controls import CONTROLS, ESTIMATORS
from ktae.bench.credit import run
from ktae.bench.metrics import METRICS
from ktae.bench.show import as_markdown
from ktae.chain.model import load
from ktae.cli import main
from ktae.estimators import NEEDS

SOURCES = ("legs:rollouts", "game24:rollouts")
TINY = ["--sources", ",".join(SOURCES), "--groups", "4", "--group-size", "6"]


@pytest.fixture
def bench(tmp_path):
    """Runs in this process; returns the rows."""

    def bench(*arguments):
        assert main(["bench", "credit", *arguments, "--json", str(tmp_path / "out.jsonl")]) == 0
        return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    return bench


def test_rows_and_tables(bench, capsys):
    rows = bench(*TINY)
    printed = capsys.readouterr().out
    assert printed == as_markdown(rows)
    assert rows[0]["about"]["reference"] == "surprise"
    for source in SOURCES:
        first, *estimators = [row for row in rows[1:] if row["source"] == source]
        assert first["rollouts"]["rollouts"] == 24
        # A scripted policy has no entropies.
        assert [row["estimator"] for row in estimators] == [n for n in ESTIMATORS if NEEDS.get(n) != "entropies"]
        for row in estimators:
            for name in METRICS:
                value, low, high = row[name][:3]
                assert (value is None) == name.startswith("true") or name == "sign"  # there may be no value below 0
                assert value is None or low <= high


def test_a_table_is_sorted_marked_and_aligned():
    about = {"split": "explore", "groups": 2, "group_size": 2, "seed": 0, "reference": "b"}
    like = {"judged_rollouts": 2, "mixed_groups": 2, "accuracy": 0.5, "mean_tokens": 9.4}
    values = {"b": [0.5, 0.4, 0.6, 0.0, 0.0, 0.0], "good": [0.75, 0.7, 0.8, 0.25, 0.1, 0.4], "a": [None] * 6}
    values["bad"] = [0.25, 0.2, 0.3, -0.25, -0.3, -0.2]
    rows = [{"about": about}, {"source": "x", "rollouts": like}]
    rows += [{"source": "x", "estimator": name, "top": of} | {"sign": [None] * 6} for name, of in values.items()]
    text = as_markdown([*rows, {"source": "gradients", "estimator": "grpo", "cosine": values["bad"], "snr": [0.125]}])
    assert text.startswith(
        "### x: 2 rollouts of 2 mixed groups, accuracy 0.50, 9 tokens\n\n"
        "|      |    top |\n"
        "| ---- | -----: |\n"
        "| good | 0.750+ |\n"
        "| b    | 0.500  |\n"
        "| bad  | 0.250- |\n"
        "| a    |        |\n\n"
        "### gradients: + - against grpo\n\n"
        "|      | cosine |    snr |\n"
        "| ---- | -----: | -----: |\n"
        "| grpo | 0.250- | 0.125  |\n\n"
        "* explore split, 2 groups of 2, seed 0\n"
    )


def test_numbers_depend_on_split_and_seed_and_on_nothing_that_is_measured_beside_them(bench):
    both = bench(*TINY)
    alone = bench(*TINY, "--sources", SOURCES[1], "--estimators", "ktae_no_tf,random")
    assert {row["estimator"] for row in alone[2:]} == {"ktae_no_tf", "random", *CONTROLS}
    assert all(row in both for row in alone[1:])
    assert next(row for row in alone[2:] if row["estimator"] == "surprise")["slip"][3:] == [0.0, 0.0, 0.0]
    others = [bench(*TINY, "--sources", SOURCES[1], *more) for more in (["--split", "held-out"], ["--seed", "1"])]
    assert len({json.dumps(rows[1]) + json.dumps(rows[2]["slip"]) for rows in (alone, *others)}) == 3


def test_a_function_of_your_own_is_judged_as_the_same_one_by_name(bench):
    own = "ktae.bench.controls:position"
    rows = bench(*TINY, "--estimators", f"position,{own}")
    found = {(row["source"], row["estimator"]): row for row in rows[1:] if "estimator" in row}
    for source in SOURCES:
        assert found[source, own] == found[source, "position"] | {"estimator": own}


def test_gradient_fidelity_is_a_table_of_its_own(bench, monkeypatch, capsys):
    monkeypatch.setattr(fidelity, "REFERENCE_ROLLOUTS", 4)
    monkeypatch.setattr(fidelity, "PROMPTS", 2)
    load.cache_clear()
    rows = bench("--sources", "gradients", "--groups", "4", "--estimators", "oracle")
    assert [row["estimator"] for row in rows[1:]] == ["grpo", "surprise", "own_outcome", "oracle"]
    assert all(-1 <= row["cosine"][1] <= row["cosine"][0] <= row["cosine"][2] for row in rows[1:])
    printed = capsys.readouterr()
    assert "gradients: + - against grpo" in printed.out
    assert "Loading" not in printed.err  # no progress bars


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sources", "chain,nothing"], "--sources: unknown nothing; there are chain, "),
        (["--sources", "nowhere:rollouts"], "source 'nowhere:rollouts': there is no module 'nowhere'"),
        (["--estimators", "nowhere:blame"], "estimator 'nowhere:blame': there is no module 'nowhere'"),
        (["--estimators", ","], "--estimators names none; there are ktae, "),
        (["--split", "test"], "--split must be one of explore, held-out, got 'test'"),
        (["--groups", "0"], "--groups must be at least 1, got 0"),
        (["--group-size", "1"], "--group-size must be at least 2, got 1"),
        (["--json", "nowhere/out.json"], "--json: there is no folder nowhere"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(["bench", "credit", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_source_that_returns_something_else_is_named():
    with pytest.raises(TypeError, match="source builtins:max must return LabelledRollouts, got int"):
        run(["builtins:max"], ["random"], split="explore", groups=2, group_size=2, seed=0)
