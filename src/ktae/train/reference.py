"""The page docs/recipe-keys.md, from the code: python -m ktae.train.reference > docs/recipe-keys.md"""

from __future__ import annotations

import dataclasses
from typing import Any

from ktae.train.parse import type_name
from ktae.train.recipe import recipe_keys

_HEAD = """# Recipe keys

Made by `python -m ktae.train.reference`. A key is set in the recipe's YAML, or on the command line:
`--batch.rollouts 16`. An unknown key, a value of another type and a setting that no algorithm reads are errors.
"""
_TRL = """
## `trl`

Any field of [TRL's GRPOConfig](https://huggingface.co/docs/trl/grpo_trainer#trl.GRPOConfig), but for those that the
keys above set. They win over an algorithm's own.
"""


def page() -> str:
    """The page as Markdown: a table of the keys outside sections, then one a section."""
    tables: dict[str, list[str]] = {}
    for name, key in recipe_keys().items():
        section, _, last = name.rpartition(".")
        if not section and any(other.startswith(f"{name}.") for other in recipe_keys()):
            tables[name] = [f"\n## `{name}`\n", f"{key.doc[:1].upper()}{key.doc[1:]}\n"]
            tables[name] += ["| key | type | default | |", "|---|---|---|---|"]
        elif name != "trl":
            row = (f"`{last}`", f"`{type_name(key.type)}`", _default(key.default), key.doc.rstrip("."))
            tables.setdefault(section, ["\n| key | type | default | |", "|---|---|---|---|"])
            tables[section].append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return _HEAD + "\n".join(line for table in tables.values() for line in table) + "\n" + _TRL


def _default(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "required"
    words = {"None": "null", "True": "true", "False": "false", "()": "[]"}
    return f"`{words.get(str(value), value)}`"


if __name__ == "__main__":
    print(page(), end="")
