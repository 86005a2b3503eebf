"""YAML and `--key value` into checked dataclasses, with errors that name the key."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from ktae.extras import require


def parse_overrides(arguments: list[str]) -> list[tuple[str, str]]:
    """`["--a.b", "1", "--c=x"]` as pairs of a dotted key and its value's text."""
    overrides, rest = [], iter(arguments)
    for argument in rest:
        key, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not key:
            raise ValueError(f"expected --key value, got {argument!r}")
        value = value if equals else next(rest, None)
        if value is None:
            raise ValueError(f"--{key} needs a value")
        overrides.append((key, value))
    return overrides


def load_yaml(text: str) -> Any:
    """What YAML text holds, or a ValueError.

    As in YAML 1.2, and not as in PyYAML, 1e-6 is a number, and `no`, which TRL knows as a setting, is a text.
    """
    yaml = require("yaml", extra="train")
    boolean, number = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: typing.ClassVar = {
            first: [resolver for resolver in resolvers if resolver[0] != boolean]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver(boolean, re.compile("(true|True|false|False)$"), list("tTfF"))
    Loader.add_implicit_resolver(number, re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None


def keys(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key that a file for the dataclass `cls` may set, with its type; sections before their keys."""
    for name, hint in typing.get_type_hints(cls).items():
        yield f"{prefix}{name}", hint
        if section := section_of(hint):
            yield from keys(section, f"{prefix}{name}.")


def section_of(hint: Any) -> type | None:
    """The dataclass that a type is, or is next to null; None for other types."""
    return next((one for one in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(one)), None)  # type: ignore[return-value]


def build(cls: type, values: dict[str, Any], prefix: str = "", default: Any = None) -> Any:
    """An instance of the dataclass `cls`: `default`'s fields, or the class's, where the mapping has no others."""
    fields, hints = {f.name: f for f in dataclasses.fields(cls)}, typing.get_type_hints(cls)
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and default is None and name not in values:
            raise ValueError(f"missing key {prefix}{name}")
    made = {k: convert(hints[k], value, f"{prefix}{k}", fields[k].default) for k, value in values.items()}
    try:
        return cls(**made) if default is None else dataclasses.replace(default, **made)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from None


def convert(hint: Any, value: Any, key: str, default: Any = None) -> Any:
    """`value` as the type `hint`, or a ValueError that names the key."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, dict):
            return build(hint, value, f"{key}.", default if isinstance(default, hint) else None)
        inside = ", ".join(f"{key}.{f.name}" for f in dataclasses.fields(hint))
        raise ValueError(f"{key} is a section, got {value!r}; set its keys: {inside}")
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        members = [a for a in arguments if a is not type(None)]
        if len(members) == 1:
            return convert(members[0], value, key, default)
        for member in members:
            with contextlib.suppress(ValueError):
                return convert(member, value, key, default)
    elif origin in (list, tuple) and isinstance(value, list):
        return origin(convert(arguments[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif hint is Any or (value in arguments if origin is Literal else type(value) is (origin or hint)):
        return value
    raise ValueError(f"{key} must be {type_name(hint)}, got {value!r}")


def type_name(hint: Any) -> str:
    """How a reader would write a type: `int`, `list[str]`, `'exact' | 'released'`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin in (types.UnionType, typing.Union):
        return " | ".join(map(type_name, arguments))
    if arguments:  # a list in YAML
        return str(hint).replace("typing.", "").replace("tuple[", "list[").replace(", ...]", "]")
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))
