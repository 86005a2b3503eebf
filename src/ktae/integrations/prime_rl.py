"""KTAE in prime-rl: key-token values on top of its GRPO advantages. Written for prime-rl 0.8.

An orchestrator of your own, started instead of the command `orchestrator`:

    from ktae import KTAEConfig
    from ktae.integrations import prime_rl
    from prime_rl.entrypoints.orchestrator import main

    prime_rl.install(KTAEConfig())
    main()
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ktae.config import KTAEConfig
from ktae.integrations import lists


def install(config: KTAEConfig = KTAEConfig()) -> None:  # noqa: B008 (frozen)
    """Makes the algorithm "grpo" of this process one with key-token values."""
    from prime_rl.orchestrator.algo import ALGORITHM_CLASSES  # pyright: ignore[reportMissingImports]

    ALGORITHM_CLASSES["grpo"] = with_key_tokens(ALGORITHM_CLASSES["grpo"], config)


def with_key_tokens(algorithm: Any, config: KTAEConfig = KTAEConfig()) -> Any:  # noqa: B008 (frozen)
    """A subclass of a prime-rl algorithm whose `score_group` adds key-token values to the advantages it assigned."""

    class KTAEAlgorithm(algorithm):
        async def score_group(self, episodes: list[Any]) -> None:
            await super().score_group(episodes)
            add_key_token_values([trace for episode in episodes for trace in episode.traces], config)

    return KTAEAlgorithm


def add_key_token_values(traces: Iterable[Any], config: KTAEConfig) -> None:
    """Adds K(o_it) to the advantages of one group's traces.

    A rollout is a trace; it is correct when `trace.reward` is greater than `config.correct_above`. Its tokens are the
    sampled ones of the nodes that have advantages, in the order of the nodes.

    Args:
        traces: of `verifiers.v1`. Traces without advantages (failed, not trainable) are left out.
        config: the estimator's settings.
    """
    credited = [(trace, [node for node in trace.nodes if node.advantages]) for trace in traces]
    credited = [(trace, nodes) for trace, nodes in credited if nodes]
    if not credited:
        return
    token_ids = [
        [token for node in nodes for token, sampled in zip(node.token_ids, node.mask, strict=True) if sampled]
        for _, nodes in credited
    ]
    values = lists.key_token_values(
        token_ids, None, [trace.reward for trace, _ in credited], ["group"] * len(credited), config=config
    )
    for (_, nodes), rest in zip(credited, map(iter, values), strict=True):
        for node in nodes:
            node.advantages = [advantage + next(rest) for advantage in node.advantages]
