"""Token-level credit in prime-rl, on top of its GRPO advantages. Written for prime-rl 0.8.

`install` goes into an orchestrator of your own, instead of the command `orchestrator`: docs/integrations.md.
"""

from __future__ import annotations

import itertools
from typing import Any

from ktae.integrations import lists
from ktae.integrations.credit import TokenCredit


def install(credit: TokenCredit) -> None:
    """Makes the algorithm "grpo" of this process add the estimator's values."""
    from prime_rl.orchestrator.algo import ALGORITHM_CLASSES  # pyright: ignore[reportMissingImports]

    ALGORITHM_CLASSES["grpo"] = with_credit(ALGORITHM_CLASSES["grpo"], credit)


def with_credit(algorithm: Any, credit: TokenCredit) -> Any:
    """A subclass of a prime-rl algorithm whose `score_group` adds values to the advantages it assigned.

    A rollout is a trace with its reward; its tokens are the sampled ones of the nodes that have advantages, in order.
    Traces without advantages (failed, not trainable) are left out.
    """
    credit.check_given("prime-rl's hook")

    class TokenAlgorithm(algorithm):
        async def score_group(self, episodes: list[Any]) -> None:
            await super().score_group(episodes)
            traces = [trace for episode in episodes for trace in episode.traces]
            credited = [(trace, [node for node in trace.nodes if node.advantages]) for trace in traces]
            credited = [(trace, nodes) for trace, nodes in credited if nodes]
            if not credited:
                return
            values = lists.values(
                [[i for node in nodes for i in itertools.compress(node.token_ids, node.mask)] for _, nodes in credited],
                None,
                [trace.reward for trace, _ in credited],
                ["group"] * len(credited),
                [nodes[0].advantages[0] for _, nodes in credited],
                credit=credit,
            )
            for (_, nodes), rest in zip(credited, map(iter, values), strict=True):
                for node in nodes:
                    node.advantages = [advantage + next(rest) for advantage in node.advantages]

    return TokenAlgorithm
