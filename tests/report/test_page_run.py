"""The report of a training run, made by `ktae train`, in a real browser."""

import json
import subprocess
import sys

import pytest
from page_browser import Page

from ktae.cli import main
from ktae.pictures.curves import SMOOTHED

pytestmark = pytest.mark.slow


def test_a_training_run(driver, tmp_path):
    settings = [
        *("--algorithms", "[grpo, grpo+ktae]"),
        *("--data.train_rows", "64", "--data.test_rows", "20", "--evaluation.samples", "2", "--samples_every", "2"),
        *("--trl.max_steps", "4", "--trl.save_steps", "4", "--trl.max_completion_length", "40"),
        *("--batch.prompts", "2", "--batch.mini_batch", "2", "--batch.per_device", "16"),
    ]
    command = [sys.executable, "-m", "ktae.cli", "train", "quickstart", *settings, "--out", "run"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=600)
    run, out = tmp_path / "run", tmp_path / "report.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    page = Page(driver, out, drawn=False)
    assert page.text("#title") == "quickstart"
    assert page.texts("figcaption")[:2] == ["Training reward", "Accuracy of the training rollouts"]
    assert len(page.all("figure:first-of-type polyline")) == 2
    assert "Faint" not in page.text("#curves")
    results = json.loads((run / "results.json").read_text())
    estimates = [(of["label"], mode, of[mode]) for of in results["policies"].values() for mode in ("sampled", "greedy")]
    shown = page.texts(".intervals tbody :is(th, td:nth-child(-n+4))")
    for k, (label, mode, of_mode) in enumerate(estimates):
        numbers = [f"{of_mode['accuracy']:.3f}", f"{of_mode['low']:.3f} to {of_mode['high']:.3f}"]
        assert shown[4 * k : 4 * k + 4] == [label, mode, *numbers]
    assert len(shown) == 4 * (len(estimates) + len(results["differences"]))
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    page.choose(0)
    for number in range(8):
        page.script("document.querySelectorAll('.rollout')[arguments[0]].scrollIntoView()", number)
        page.one(f".tokens[data-rollout='{number}'] [data-token]")
        shown = page.texts(f".tokens[data-rollout='{number}'] [data-token]")
        assert "".join(shown) == samples[number]["completion"]
    assert page.is_well()

    # Before there is anything but metrics; the reward of 20 updates is smoothed.
    (run / "results.json").unlink()
    (run / "samples.jsonl").unlink()
    rows = [{"algorithm": "grpo", "step": step, "reward": step % 5} for step in range(1, 21)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["report", str(run), "--out", str(out)]) == 0
    page = Page(driver, out, drawn=False)
    shown = [page.one(f"#{section}").is_displayed() for section in ("training", "evaluation", "rollouts")]
    assert shown == [True, False, False]
    assert SMOOTHED in page.text("#curves")
    assert page.texts("#summary dd")[2] == "20"
    assert page.is_well()
