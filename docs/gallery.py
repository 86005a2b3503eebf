"""Builds the gallery's pages: `python docs/gallery.py [RUN]`.

RUN is a folder of `ktae train`, by default runs/gallery, which is trained if it is not there (half a minute on a CPU).
The rollouts of two pages are in experiments/gallery, beside the scripts that made them. The GSM8K example solutions
(OpenAI, MIT licence) are read from ../shared/data where that folder is; their page and its rollouts go into build/.
With chromium, chromedriver and selenium the pictures of docs/images are taken from these pages too.
"""

import gzip
import io
import json
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ktae.cli import main

DOCS = Path(__file__).resolve().parent
ROLLOUTS = Path(os.path.relpath(DOCS.parent / "experiments" / "gallery"))  # pages name the folder as it is given
PRIVATE = DOCS.parent / "build" / "gsm8k.html"  # of data that is never committed
GSM8K = DOCS.parents[1] / "shared" / "data" / "groups" / "gsm8k_example_model_solutions.jsonl.gz"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
WORDS = ("--tokenizer", "words")
SHORT_RUN = (
    *("--data.train_rows", "256", "--data.test_rows", "200", "--samples_every", "10"),
    *("--trl.max_steps", "40", "--trl.save_steps", "40"),
    *("--batch.prompts", "4", "--batch.mini_batch", "4", "--batch.per_device", "32"),
)


def gsm8k_rows(path: Path) -> list[dict[str, Any]]:
    """A problem a row, with its four solutions, which the file has in columns of their own, as samples."""
    rows = []
    with gzip.open(path, "rt", encoding="utf-8") as source:
        for row in map(json.loads, source):
            samples = [row.pop(model) for model in MODELS]
            rows.append({**row, "samples": samples})
    return rows


def command(*arguments: str | Path) -> None:
    """Runs `ktae`; a mistake ends the script."""
    if main([str(argument) for argument in arguments]):
        sys.exit(1)


def pictures(gallery: Path, images: Path) -> None:
    """The pages as they look, for the chapter on reading them. Needs chromium, chromedriver and selenium."""
    sys.path.insert(0, str(DOCS.parent / "tests" / "report"))
    from page_browser import Page, start
    from PIL import Image

    with ExitStack() as stack:
        driver = start(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(driver.quit)

        def take(name: str, page: Page, selector: str) -> None:
            page.script("document.querySelector(arguments[0]).scrollIntoView()", selector)
            page.one("#chosen h3")
            picture = Image.open(io.BytesIO(driver.get_screenshot_as_png()))
            picture.convert("RGB").quantize(256).save(images / f"{name}.png", optimize=True)

        page = Page(driver, PRIVATE, width=1180, height=760)
        page.choose(11)
        take("report-dozen", page, ".tools")
        page = Page(driver, PRIVATE, width=1180, height=900)
        page.one("[aria-label='Next page']").click()
        page.choose(40)
        page.one(".tokens [data-token]")
        page.tokens(0)[1].click()
        take("report-apostrophe", page, "#chosen")
        page = Page(driver, PRIVATE, width=390, height=844, dark=True)
        page.choose(6)
        take("report-phone-dark", page, ".tools")
        take("report-run", Page(driver, gallery / "chain.html", width=1180, height=900, drawn=False), "header")


if __name__ == "__main__":
    gallery = DOCS / "gallery"
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/gallery")
    if not run.exists():
        command("train", "quickstart", *SHORT_RUN, "--out", run)
    command("report", run, "--out", gallery / "chain.html")
    command("report", ROLLOUTS / "multi_turn.jsonl", *WORDS, "--out", gallery / "multi_turn.html")
    command("report", ROLLOUTS / "smollm2.jsonl", "--out", gallery / "smollm2.html")
    if GSM8K.exists():
        PRIVATE.parent.mkdir(exist_ok=True)
        rollouts = PRIVATE.with_suffix(".jsonl")
        rollouts.write_text("".join(json.dumps(row) + "\n" for row in gsm8k_rows(GSM8K)))
        command("report", rollouts, *WORDS, "--out", PRIVATE)
        if shutil.which("chromium"):
            pictures(gallery, DOCS / "images")
