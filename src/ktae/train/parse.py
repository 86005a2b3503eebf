"""YAML and `--key value` into checked dataclasses, with errors that name the key and the nearest right one."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from typing import Any, Literal

from ktae.extras import require


def parse_overrides(arguments: list[str]) -> list[tuple[str, Any]]:
    """`["--a.b", "1", "--c=x"]` as pairs of a dotted key and its YAML value."""
    overrides, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--") or len(argument) == 2:
            raise ValueError(f"expected --key value, got {argument!r}")
        key, equals, value = argument[2:].partition("=")
        if not equals:
            if not rest:
                raise ValueError(f"--{key} needs a value")
            value = rest.pop(0)
        overrides.append((key, load_yaml(value)))
    return overrides


def load_yaml(text: str) -> Any:
    """What YAML text holds; 1e-6 is a number."""
    yaml = require("yaml", extra="train")

    class Loader(yaml.SafeLoader):
        """YAML 1.1 reads 1e-6 as a string; people mean a number."""

    number = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return yaml.load(text, Loader)


def build(cls: type, values: dict[str, Any], prefix: str) -> Any:
    """An instance of the dataclass `cls` from a mapping; every key and every type is checked."""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in values:
        known_name("key", f"{prefix}{key}", {f"{prefix}{name}" for name in fields})
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ValueError(f"missing key {prefix}{name!s}")
    return cls(**{key: _convert(hints[key], value, f"{prefix}{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, key: str) -> Any:
    """`value` as the type `hint`, or a ValueError that names the key."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, dict):
            return build(hint, value, prefix=f"{key}.")
    elif origin is Literal:
        if value in arguments:
            return value
    elif origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        *others, last = (a for a in arguments if a is not type(None))
        for other in others:
            try:
                return _convert(other, value, key)
            except ValueError:
                continue
        return _convert(last, value, key)
    elif origin in (list, tuple):
        if isinstance(value, list):
            return origin(_convert(arguments[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    elif origin is dict:
        if isinstance(value, dict):
            return value
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif hint in (int, str, bool) and type(value) is hint:
        return value
    expected = hint.__name__ if isinstance(hint, type) and origin is None else str(hint).replace("typing.", "")
    raise ValueError(f"{key} must be {expected}, got {value!r}")


def known_name(what: str, name: str, known: Any) -> None:
    """Raises a ValueError that names the nearest of the `known` names unless `name` is one of them."""
    if name not in known:
        nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
        raise ValueError(f"unknown {what} {name!r}; did you mean {nearest[0]!r}?")
