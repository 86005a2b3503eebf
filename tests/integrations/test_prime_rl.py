"""prime-rl's hook on its traces, those of `verifiers`, and in its own algorithm where a checkout is on the path."""

import asyncio
import sys
from types import ModuleType, SimpleNamespace

import pytest

import ktae
from ktae.integrations import lists
from ktae.integrations.credit import TokenCredit
from ktae.integrations.prime_rl import install, with_credit

CONFIG = ktae.KTAEConfig(correct_above=0.5, scale=2.0)
PROMPT, TOOL = [90, 91], [80, 7]  # 7 is also an id that the policy samples
TRACES = [  # (turns the policy sampled, reward)
    ([[1, 2], [3]], 1.0),
    ([[1, 4, 4]], 0.2),
    ([[1, 2, 5], [7]], 1.0),
    ([[4], [3, 7]], 0.0),
]


class Stub:
    """The fields of `verifiers.v1` that the hook reads, for machines without it."""

    @staticmethod
    def node(token_ids, mask):
        return SimpleNamespace(token_ids=token_ids, mask=mask, advantages=None)

    @staticmethod
    def trace(nodes, reward):
        return SimpleNamespace(nodes=nodes, reward=reward)


class Verifiers:
    """The real classes."""

    @staticmethod
    def node(token_ids, mask):
        from verifiers.v1.graph import MessageNode

        return MessageNode(message={"role": "user", "content": ""}, token_ids=token_ids, mask=mask)

    @staticmethod
    def trace(nodes, reward, agent=SimpleNamespace(trainable=True)):  # noqa: B008 (read only)
        from verifiers.v1.trace import Reward, Trace

        return Trace.model_construct(nodes=nodes, rewards={"correct": Reward(score=reward)}, agent=agent, ok=True)


@pytest.fixture(params=[Stub, Verifiers])
def kind(request):
    if request.param is Verifiers:
        pytest.importorskip("verifiers.v1", reason="needs verifiers 0.4, which does not share our environment")
    return request.param


class GRPO:
    """As prime-rl's: the reward minus the group's mean for every sampled token, traces without any left out."""

    async def score_group(self, episodes):
        traces = [trace for episode in episodes for trace in episode.traces]
        traces = [trace for trace in traces if any(any(node.mask) for node in trace.nodes)]
        mean = sum(trace.reward for trace in traces) / len(traces)
        for trace in traces:
            for node in trace.nodes:
                if any(node.mask):
                    node.advantages = [trace.reward - mean] * sum(node.mask)


def trace(kind, turns, reward, **more):
    """Prompt, then turns, each with a token of scaffold before it, and a tool's answer between them."""
    nodes = [kind.node(PROMPT, [False] * 2)]
    for turn in turns:
        nodes += [kind.node([99, *turn], [False] + [True] * len(turn)), kind.node(TOOL, [False] * 2)]
    return kind.trace(nodes, reward, **more)


def score(episodes):
    asyncio.run(with_credit(GRPO, TokenCredit(CONFIG))().score_group(episodes))


def test_each_sampled_token_gets_its_own_value(kind):
    traces = [trace(kind, turns, reward) for turns, reward in TRACES]
    empty = trace(kind, [], 1.0)
    score([SimpleNamespace(traces=traces[:1]), SimpleNamespace(traces=[*traces[1:], empty])])
    assert_own_values(traces)
    assert all(node.advantages is None for node in empty.nodes)


def assert_own_values(traces):
    sampled = [[token for turn in turns for token in turn] for turns, _ in TRACES]
    rewards = [reward for _, reward in TRACES]
    wanted = lists.values(sampled, None, rewards, ["group"] * 4, config=CONFIG)
    assert max(map(max, wanted)) > 1 > -0.5 > min(map(min, wanted))
    for result, values, reward in zip(traces, wanted, rewards, strict=True):
        credited = [node for node in result.nodes if node.advantages is not None]
        assert [len(node.advantages) for node in credited] == [sum(node.mask) for node in credited]
        actual = [advantage for node in credited for advantage in node.advantages]
        assert actual == pytest.approx([reward - 0.55 + value for value in values])


def test_in_prime_rls_own_algorithm(monkeypatch):
    """Its GRPOAlgorithm and its table of algorithms; wandb, which it imports and does not use here, may be missing."""
    pytest.importorskip("prime_rl", reason="needs a checkout of prime-rl on the path; it is not on PyPI")
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    from prime_rl.configs.algorithm import GRPOAlgoConfig
    from prime_rl.orchestrator import algo

    monkeypatch.setitem(algo.ALGORITHM_CLASSES, "grpo", algo.ALGORITHM_CLASSES["grpo"])
    install(CONFIG)
    traces = [trace(Verifiers, turns, reward) for turns, reward in TRACES]
    failed = trace(Verifiers, [[1, 2]], 0.0, agent=SimpleNamespace(trainable=False))
    algorithm = algo.ALGORITHM_CLASSES["grpo"](GRPOAlgoConfig(), None)
    asyncio.run(algorithm.finalize_group([SimpleNamespace(traces=[*traces, failed])]))
    assert_own_values(traces)
    assert all(node.advantages is None for node in failed.nodes)


class Nothing:
    async def score_group(self, episodes):
        """No trace that can be trained on."""


def test_a_group_without_trainable_traces(kind):
    empty = trace(kind, [], 1.0)
    asyncio.run(with_credit(Nothing, TokenCredit(CONFIG))().score_group([SimpleNamespace(traces=[empty])]))
    assert all(node.advantages is None for node in empty.nodes)
