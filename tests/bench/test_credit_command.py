import json
import os
import subprocess
import sys

import pytest

from ktae.bench.controls import CONTROLS, ESTIMATORS
from ktae.bench.metrics import METRICS
from ktae.bench.show import as_markdown
from ktae.cli import main
from ktae.estimators import NEEDS

TINY = ["--sources", "legs,game24", "--groups", "4", "--group-size", "6"]


def bench(*arguments, tmp_path):
    """Runs in this process; returns the rows."""
    assert main(["bench", "credit", *arguments, "--json", str(tmp_path / "out.jsonl")]) == 0
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "ktae.cli", "bench", "credit", *TINY]
    command += ["--json", str(tmp_path / "out.jsonl"), "--markdown", str(tmp_path / "out.md")]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # On a machine where nobody has used the estimator yet.
    assert done.stderr in ("", "compiling the estimator for this machine; later runs reuse the result\n")
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    about, *rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert about["about"]["reference"] == "surprise"
    markdown = (tmp_path / "out.md").read_text()
    assert markdown == as_markdown([about, *rows])
    for source in ("legs", "game24"):
        first, *estimators = [row for row in rows if row["source"] == source]
        assert first["rollouts"]["rollouts"] == 24
        # A scripted policy has no entropies, and there are no states.
        assert [row["estimator"] for row in estimators] == [name for name in ESTIMATORS if name not in NEEDS]
        assert f"{source}: {first['rollouts']['judged_rollouts']} rollouts of" in done.stdout
        for row in estimators:
            assert f"\n| {row['estimator']} | " in markdown
            for name in METRICS:
                value, low, high = row[name][:3]
                assert (value is None) == name.startswith("true") or name == "sign"  # there may be no value below 0
                assert value is None or low <= high
            assert f"{row['slip'][0]:.3f}" in done.stdout
    assert done.stdout.index(" top") < done.stdout.index(" after") < done.stdout.index(" before")
    assert "mean rank over 2 sources" in done.stdout


def test_the_same_arguments_give_the_same_numbers_and_splits_and_seeds_others(tmp_path):
    a, b = (bench(*TINY, tmp_path=tmp_path) for _ in range(2))
    assert a == b
    held_out = bench(*TINY, "--split", "held-out", tmp_path=tmp_path)
    seed = bench(*TINY, "--seed", "1", tmp_path=tmp_path)
    assert len({json.dumps(rows[1:]) for rows in (a, held_out, seed)}) == 3


def test_a_source_has_the_same_numbers_whatever_is_measured_beside_it_and_controls_are_in_every_table(tmp_path):
    both = bench(*TINY, tmp_path=tmp_path)
    alone = bench(*TINY, "--sources", "game24", "--estimators", "ktae_no_tf,random", tmp_path=tmp_path)
    assert {row["estimator"] for row in alone[2:]} == {"ktae_no_tf", "random", *CONTROLS}
    assert all(row in both for row in alone[1:])
    assert next(row for row in alone[2:] if row["estimator"] == "surprise")["slip"][3:] == [0.0, 0.0, 0.0]


def test_a_function_of_your_own_is_judged_as_the_same_one_by_name(tmp_path):
    own = "ktae.bench.controls:position"
    rows = bench(*TINY, "--estimators", f"position,{own}", tmp_path=tmp_path)
    found = {(row["source"], row["estimator"]): row for row in rows[1:] if "estimator" in row}
    for source in ("legs", "game24"):
        assert found[source, own] == found[source, "position"] | {"estimator": own}


def test_gradient_fidelity_is_a_table_of_its_own(tmp_path, monkeypatch, capsys):
    from ktae.bench import fidelity

    monkeypatch.setattr(fidelity, "REFERENCE_ROLLOUTS", 4)
    monkeypatch.setattr(fidelity, "PROMPTS", 2)
    arguments = ["--sources", "gradients", "--groups", "4", "--estimators", "oracle"]
    rows = bench(*arguments, tmp_path=tmp_path)
    assert [row["estimator"] for row in rows[1:]] == ["grpo", "surprise", "own_outcome", "oracle"]
    assert all(-1 <= row["cosine"][1] <= row["cosine"][0] <= row["cosine"][2] for row in rows[1:])
    assert "gradients: + - against grpo" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sources", "legs,nothing"], "--sources: unknown nothing; there are chain, "),
        (["--estimators", "nowhere:blame"], "estimator 'nowhere:blame': there is no module 'nowhere'"),
        (["--sources", "legs:all"], "--sources: unknown legs:all"),
        (["--estimators", ","], "--estimators names none; there are ktae, "),
        (["--split", "test"], "--split must be one of explore, held-out, got 'test'"),
        (["--groups", "0"], "--groups must be at least 1, got 0"),
        (["--group-size", "1"], "--group-size must be at least 2, got 1"),
        (["--quick", "--groups", "3"], "leave out one of --quick and --groups"),
        (["--json", "nowhere/out.json"], "--json: there is no folder nowhere"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(["bench", "credit", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_package_is_named_with_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    assert main(["bench", "credit", *TINY]) == 2
    assert 'pip install "ktae[bench]"' in capsys.readouterr().err
