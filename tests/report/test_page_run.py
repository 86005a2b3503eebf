"""The report of a training run, made by `ktae train`, in a real browser."""

import json
import subprocess
import sys

import pytest
from page_browser import Page

from ktae.cli import main

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
    page = Page(driver, out)
    assert page.text("#title") == "quickstart"
    captions = [caption.text for caption in page.all("figcaption")]
    assert captions[:3] == ["Training reward", "Accuracy of the training rollouts", "Mean length, tokens"]
    reward = page.all("figure")[0]
    assert len(reward.find_elements("css selector", "polyline:not(.faint)")) == 2
    results = json.loads((run / "results.json").read_text())
    shown = [
        [cell.text for cell in tr.find_elements("css selector", "th, td")][:4] for tr in page.all(".intervals tbody tr")
    ]
    expected = [
        [
            policy["label"],
            mode,
            f"{policy[mode]['accuracy']:.3f}",
            f"{policy[mode]['low']:.3f} to {policy[mode]['high']:.3f}",
        ]
        for policy in results["policies"].values()
        for mode in ("sampled", "greedy")
    ]
    assert shown[: len(expected)] == expected
    assert len(shown) == len(expected) + len(results["differences"])
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    page.choose(0)
    for number in range(8):
        page.script("document.querySelectorAll('.rollout')[arguments[0]].scrollIntoView()", number)
        page.one(f".tokens[data-rollout='{number}'] [data-token]")
        shown = "".join(page.script("arguments[0].textContent", token) for token in page.tokens(number))
        assert shown == samples[number]["completion"]
    assert not any("No tokenizer" in note.text for note in page.all("#notes .note"))
    assert page.sideways() == 0
    assert page.complaints() == []
    page.picture("run")
    page = Page(driver, out, width=360)
    page.one(".intervals")
    ends = page.script(
        "[...document.querySelectorAll('.intervals :is(th, td)')].map((e) => e.getBoundingClientRect().right)"
    )
    assert max(ends) <= 360
    assert page.script(
        "[...document.querySelectorAll('#evaluation .wide')].every((e) => e.scrollWidth <= e.clientWidth)"
    )
    page.picture("run-360")

    (run / "results.json").unlink()
    (run / "samples.jsonl").unlink()
    assert main(["report", str(run), "--out", str(out)]) == 0
    page = Page(driver, out)
    page.wait(lambda: page.all("figure"))
    shown = [page.one(f"#{section}").is_displayed() for section in ("training", "evaluation", "rollouts")]
    assert shown == [True, False, False]
    assert page.complaints() == []
