import json
import os
import subprocess
import sys

import pytest

from ktae.bench.estimators import ESTIMATORS, NEED_ENTROPIES
from ktae.bench.metrics import METRICS
from ktae.cli import main

TINY = ["--sources", "legs,game24", "--groups", "4", "--group-size", "6"]


def bench(*arguments, tmp_path):
    """Runs in this process; returns the numbers."""
    assert main(["bench", "credit", *arguments, "--json", str(tmp_path / "out.json")]) == 0
    return json.loads((tmp_path / "out.json").read_text())


def test_the_command_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "ktae.cli", "bench", "credit", *TINY]
    command += ["--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # On a machine where nobody has used the estimator yet.
    assert done.stderr in ("", "compiling the estimator for this machine; later runs reuse the result\n")
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    results = json.loads((tmp_path / "out.json").read_text())
    assert list(results["sources"]) == ["legs", "game24"]
    markdown = (tmp_path / "out.md").read_text()
    for source, result in results["sources"].items():
        assert result["rollouts"]["rollouts"] == 24
        # A scripted policy has no entropies.
        assert list(result["estimators"]) == [name for name in ESTIMATORS if name not in NEED_ENTROPIES]
        assert f"{source}: {result['rollouts']['judged_rollouts']} rollouts of" in done.stdout
        for estimator, metrics in result["estimators"].items():
            assert f"\n| {estimator} | " in markdown
            for name in METRICS:
                value, low, high = (metrics[name][key] for key in ("value", "low", "high"))
                assert (value is None) == (name == "true") or name == "sign"  # there may be no value below 0
                if value is not None:
                    assert low <= high
                    if name == "slip":
                        assert f"{value:.3f}" in done.stdout
                        assert f"{value:.3f}" in markdown
    assert "mean rank over 2 sources" in done.stdout
    assert "mean rank over 2 sources" in markdown


def test_the_same_arguments_give_the_same_numbers_and_splits_and_seeds_others(tmp_path):
    a, b = (bench(*TINY, tmp_path=tmp_path) for _ in range(2))
    assert a == b
    held_out = bench(*TINY, "--split", "held-out", tmp_path=tmp_path)
    seed = bench(*TINY, "--seed", "1", tmp_path=tmp_path)
    accuracies = {tuple(s["rollouts"]["mean_tokens"] for s in r["sources"].values()) for r in (a, held_out, seed)}
    assert len(accuracies) == 3


def test_a_source_has_the_same_numbers_whatever_is_measured_beside_it(tmp_path):
    both = bench(*TINY, tmp_path=tmp_path)
    alone = bench(*TINY, "--sources", "game24", "--estimators", "ktae_no_tf,random", tmp_path=tmp_path)
    game = both["sources"]["game24"]
    for estimator, metrics in alone["sources"]["game24"]["estimators"].items():
        assert metrics == game["estimators"][estimator]
    assert alone["sources"]["game24"]["rollouts"] == game["rollouts"]


def test_the_reference_differs_from_itself_by_nothing(tmp_path):
    results = bench(*TINY, "--estimators", "ktae", tmp_path=tmp_path)
    difference = results["sources"]["legs"]["estimators"]["ktae"]["slip"]["difference"]
    assert difference == {"value": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sources", "legs,nothing"], "--sources: unknown nothing; there are chain, "),
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
