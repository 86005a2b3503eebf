"""The page docs/recipe-keys.md, from the code: python docs/recipe_keys.py > docs/recipe-keys.md"""

import dataclasses
import inspect
import types
import typing

from ktae.train.recipe import SET_BY_KTAE, Recipe

HEAD = """# Recipe keys

Made by `python docs/recipe_keys.py`. A key is set in the recipe's YAML, or on the command line:
`--batch.rollouts 16`. An unknown key, a value of another type and a setting that no algorithm reads are errors.
"""
TRL = """
## `trl`

Any field of [TRL's GRPOConfig](https://huggingface.co/docs/trl/grpo_trainer#trl.GRPOConfig), but for those that the
keys above set. They win over an algorithm's own.
"""


def page() -> str:
    """The page as Markdown: a table of the keys outside sections, then one a section."""
    lines, docs, hints = _table(Recipe, ""), attribute_docs(Recipe), typing.get_type_hints(Recipe)
    for field in dataclasses.fields(Recipe):
        if dataclasses.is_dataclass(section := hints[field.name]):
            lines += ["", f"## `{field.name}`", "", f"{docs[field.name][0].upper()}{docs[field.name][1:]}"]
            lines += _table(section, f"{field.name}.", field.default)
    return HEAD + "\n".join(lines) + "\n" + TRL


def _table(cls: type, prefix: str, default: object = None) -> list[str]:
    """The keys of a dataclass; the defaults of its instance `default`, if it is one, win over its class's."""
    rows, docs = ["", "| key | type | default | |", "|---|---|---|---|"], attribute_docs(cls)
    for field in dataclasses.fields(cls):
        hint, key = typing.get_type_hints(cls)[field.name], prefix + field.name
        if key not in {*SET_BY_KTAE, "trl"} and not dataclasses.is_dataclass(hint):
            value = getattr(default, field.name) if isinstance(default, cls) else field.default
            cells = (f"`{field.name}`", f"`{type_name(hint)}`", _default(value), docs[field.name].rstrip("."))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def type_name(hint: typing.Any) -> str:
    """How a reader would write a type: `int`, `list[str]`, `'exact' | 'released'`."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) in (typing.Union, typing.Literal):
        return " | ".join(map(type_name, typing.get_args(hint)))
    if typing.get_args(hint):  # a list in YAML
        return str(hint).replace("typing.", "").replace("tuple[", "list[").replace(", ...]", "]")
    return {type(None): "null"}.get(hint) or getattr(hint, "__name__", repr(hint))


def attribute_docs(cls: type) -> dict[str, str]:
    """What the docstring's `Attributes:` say, by name; names before one colon share a text."""
    docs: dict[str, str] = {}
    names: list[str] = []
    for line in (inspect.getdoc(cls) or "").partition("Attributes:\n")[2].splitlines():
        if not line.strip():
            break
        if line.startswith(" " * 8):
            docs |= {name: f"{docs[name]} {line.strip()}" for name in names}
        else:
            before, _, text = line.strip().partition(": ")
            names = before.split(", ")
            docs |= dict.fromkeys(names, text)
    return docs


def _default(value: object) -> str:
    if value is dataclasses.MISSING:
        return "required"
    words = {"None": "null", "True": "true", "False": "false", "()": "[]"}
    return f"`{words.get(str(value), value)}`"


if __name__ == "__main__":
    print(page(), end="")
