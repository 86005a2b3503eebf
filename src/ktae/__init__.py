"""Key-token advantage estimation: token-level credit for reinforcement learning with verifiable rewards."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktae import rollout
    from ktae.advantages import key_token_values, ktae_advantages
    from ktae.config import KTAEConfig
    from ktae.explanation import KeyTokenTable, explain

__all__ = ["KTAEConfig", "KeyTokenTable", "explain", "key_token_values", "ktae_advantages", "rollout"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Public names are imported when first used: the grader's worker processes need no torch."""
    match name:
        case "key_token_values" | "ktae_advantages":
            return getattr(importlib.import_module("ktae.advantages"), name)
        case "KeyTokenTable" | "explain":
            return getattr(importlib.import_module("ktae.explanation"), name)
        case "KTAEConfig":
            return importlib.import_module("ktae.config").KTAEConfig
        case "rollout":
            return importlib.import_module("ktae.rollout")
    raise AttributeError(f"module 'ktae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
