"""The snippets of docs/integrations.md: that for a trainer of one's own runs, the others name what there is."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from processes import ONE, start

from ktae.integrations.credit import TokenCredit

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.slow
def test_a_trainer_of_ones_own(tmp_path):
    (code,) = [code for code in SNIPPETS if "lists.advantages" in code]
    lines = [ast.literal_eval(line) for line in start([*ONE, "-c", code], cwd=tmp_path).splitlines()]
    assert list(map(len, lines)) == [3, 2, 4, 3]
    assert lines[0][2] > lines[0][0] > 0, "7 comes with the right answers"
    assert lines[1][1] < lines[1][0] < 0, "9 with the wrong one"
    assert lines[2][1] == 0
    assert lines[3] == [0.0, 0.0, 0.0]


def test_an_estimator_of_ones_own():
    (code,) = [code for code in SNIPPETS if "later_turns" in code]
    names = {}
    exec(code, names)
    assert names["turn"]({"mask": [1, 1, 0, 0, 1, 0, 1]}) == [1, 1, 1, 1, 2, 2, 3]
    assert TokenCredit(names["later_turns"]).needs == ("states",)


@pytest.mark.parametrize("code", SNIPPETS, ids=[f"snippet {number}" for number in range(len(SNIPPETS))])
def test_names_of_ours_exist(code):
    found = 0
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "ktae":
            module = importlib.import_module(node.module)
            for alias in node.names:
                found += 1
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
        if isinstance(node, ast.Attribute) and node.attr == "install":
            assert hasattr(importlib.import_module(f"ktae.integrations.{node.value.id}"), "install")
    assert found
