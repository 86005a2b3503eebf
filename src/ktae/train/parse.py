"""YAML and `--key value` into checked dataclasses, with errors that name the key."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Callable, Iterable
from typing import Any

from ktae.extras import did_you_mean, require


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


def build(cls: type, values: dict[str, Any], keys: Callable[[], Iterable[str]]) -> Any:
    """An instance of the dataclass `cls`, or a ValueError that names the first wrong key.

    For an unknown key it also names the nearest of `keys`.
    """
    pydantic = require("pydantic", extra="train")
    adapter = pydantic.TypeAdapter(pydantic.with_config({"extra": "forbid"})(cls))
    try:
        # JSON has no tuples, so that a list can be one; nothing else is converted.
        return adapter.validate_json(json.dumps(values, default=str), strict=True)
    except pydantic.ValidationError as error:
        found = error.errors()
    kind, place, got = found[0]["type"], [], values
    for part in found[0]["loc"]:
        try:
            got = got[part]
        except (LookupError, TypeError):  # the name of a member of a union
            break
        place.append(part)
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)[1:]
    if kind == "missing":
        raise ValueError(f"missing key {'.'.join(found[0]['loc'])}")
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        raise ValueError(f"unknown key {key!r}{did_you_mean(key, keys())}")
    if kind == "value_error":  # of a __post_init__
        raise ValueError(f"{key}{'.' * bool(key)}{found[0]['ctx']['error']}")
    if kind == "dataclass_type":
        inside = ", ".join(sorted(one for one in keys() if one.startswith(f"{key}.")))
        raise ValueError(f"{key} is a section, got {got!r}; set its keys: {inside}")
    alike = [error for error in found if [*error["loc"][: len(place)]] == place]
    expected = " or ".join(dict.fromkeys(error["msg"].removeprefix("Input should be ") for error in alike))
    expected = expected.replace("valid array", "list")  # YAML's word for JSON's
    raise ValueError(f"{key} must be {expected}, got {got!r}")
