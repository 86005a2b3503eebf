"""Optional dependencies: imported where they are used, with an error that says how to install them."""

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: its import name, such as "math_verify" or "trl.trainer".
        extra: the extra of this package that installs it, such as "train".

    Returns:
        The imported module.

    Raises:
        ImportError: the module is not installed. A module that is installed but fails to import raises its own
            error, because installing the extra would not help.

    >>> require("json", "train").dumps([1])
    '[1]'
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
