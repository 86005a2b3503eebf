"""Builds the gallery's pages from real rollouts: `python docs/gallery.py [RUN]`.

RUN is a folder of `ktae train`, by default runs/gallery, which is trained if it is not there (two minutes on a CPU).
The GSM8K example solutions (OpenAI, MIT licence) are read from ../shared/data where that folder is. With chromium,
chromedriver and selenium the pictures of docs/images are taken from these pages too.
"""

import io
import shutil
import sys
import tempfile
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from ktae.cli import main
from ktae.files.reading import load_groups
from ktae.files.tokens import Words
from ktae.report.page import write_report

DOCS = Path(__file__).resolve().parent
PRIVATE = DOCS.parent / "build" / "gsm8k.html"  # of data that is never committed
GSM8K = DOCS.parents[1] / "shared" / "data" / "groups" / "gsm8k_example_model_solutions.jsonl.gz"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
SHORT_RUN = (
    *("--data.train_rows", "256", "--data.test_rows", "200", "--samples_every", "10"),
    *("--trl.max_steps", "40", "--trl.save_steps", "40"),
    *("--batch.prompts", "4", "--batch.mini_batch", "4", "--batch.per_device", "32"),
)
PROMPTS = 75  # of the 1,319, to stay below 400 kB


def chain(run: Path, out: Path) -> None:
    """The task of the quickstart, GRPO with and without key tokens."""
    if not run.exists() and main(["train", "quickstart", *SHORT_RUN, "--out", str(run)]):
        sys.exit("the run could not be trained")
    main(["report", str(run), "--out", str(out)])


def gsm8k(out: Path) -> None:
    """Four solutions of GPT-3 a problem."""
    groups, _ = load_groups(GSM8K, unnest=MODELS)
    write_report(
        dict(islice(groups.items(), PROMPTS)),
        out,
        tokenizer=Words(),
        title="GSM8K example solutions",
        source="openai/grade-school-math, MIT licence",
        notes=[
            f"The first {PROMPTS} of 1,319 problems, solved by two sizes of GPT-3, with and without a verifier.",
            "The tokens here are words and punctuation marks, not those of a model.",
        ],
    )


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
        take("report-run", Page(driver, gallery / "chain.html", width=1180, height=900), "header")


if __name__ == "__main__":
    gallery = DOCS / "gallery"
    gallery.mkdir(exist_ok=True)
    chain(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/gallery"), gallery / "chain.html")
    if GSM8K.exists():
        PRIVATE.parent.mkdir(exist_ok=True)
        gsm8k(PRIVATE)
        if shutil.which("chromium"):
            pictures(gallery, DOCS / "images")
