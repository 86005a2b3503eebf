"""Key-token advantage estimation: token-level credit for reinforcement learning with verifiable rewards."""

from ktae import rollout
from ktae.advantages import key_token_values, ktae_advantages
from ktae.config import KTAEConfig

__all__ = ["KTAEConfig", "key_token_values", "ktae_advantages", "rollout"]
__version__ = "0.1.0"
