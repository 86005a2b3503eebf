"""What is imported by name: optional dependencies, where they are used, and functions that a setting names."""

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any


def require(module: str, extra: str) -> ModuleType:
    """Imports an optional dependency, `trl.trainer` for instance, that an extra of this package installs.

    Raises an ImportError with the command if it is not installed. A module that is installed but fails to import raises
    its own error, because installing the extra would not help.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        raise ImportError(
            f'{top} is not installed, and this part of ktae needs it: pip install "ktae[{extra}]"'
        ) from error


def load_function(what: str, name: str, listed: Mapping[str, str]) -> Callable[..., Any]:
    """The function that a setting names: one of `listed`, import paths by name, or an import path.

    `what` it is appears in the errors.

    Raises:
        ValueError: there is no such name, module or function; the message names the nearest.
        ImportError: the module is there but fails to import.
    """
    module_name, _, function_name = listed.get(name, name).partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        expected = f"{what} must be one of {', '.join(sorted(listed))} or 'package.module:function'"
        raise ValueError(f"{expected}, got {name!r}{did_you_mean(name, listed)}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # The module itself or its package is missing, or else something that it imports.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"{what} {name!r}: there is no module {error.name!r}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        near = did_you_mean(function_name, [key for key, value in vars(module).items() if callable(value)])
        raise ValueError(f"{what} {name!r}: {module_name} has no function {function_name!r}{near}")
    return function


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that names the nearest of the known names, the same after the last dot or alike; or nothing."""
    names, last = sorted(known), name.lower().rpartition(".")[2]
    same = [one for one in names if one.lower().rpartition(".")[2] == last]
    near = same or difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]!r}?" if near else ""
