"""The README's snippets run, and its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SNIPPETS = {
    f"{page.name}-{number}": code
    for page in (ROOT / "README.md", ROOT / "docs" / "algorithm.md", ROOT / "docs" / "states.md")
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
}
# A minute is too long here.
SMALLER = {"max_steps=60": "max_steps=2, use_cpu=True", "logging_steps=10": "logging_steps=1"}


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippet(name, tmp_path):
    code = SNIPPETS[name]
    for original, smaller in SMALLER.items():
        code = code.replace(original, smaller)
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_the_trainer_snippet_is_run_for_two_updates():
    assert sum(all(original in code for original in SMALLER) for code in SNIPPETS.values()) == 1


def test_commands_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links():
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "experiments" / "README.md",
        *(ROOT / "docs").glob("*.md"),
    ):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
