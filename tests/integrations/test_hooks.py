"""The hooks of all trainers but TRL and verl on one batch, in each framework's data structures (hooks.py)."""

import asyncio
import sys
import typing
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hooks import CORRECT_ABOVE, GIVE_LOG_PROBS, HOOKS, Batch, normalised, slime_arguments, slime_data
from processes import TWO, start

from ktae.integrations import ms_swift, nemo_rl, openrlhf, prime_rl, slime
from ktae.integrations.credit import TokenCredit

ALL = pytest.mark.parametrize("name", HOOKS)


@pytest.fixture(autouse=True, scope="module")
def one_process(tmp_path_factory):
    """slime's hook and ms-swift's gather over processes."""
    store = tmp_path_factory.mktemp("process group") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def check(hook, estimator="hooks:everything", batch=None, trained=None, **options):
    """That the hook adds to each generated token its own value, and nothing elsewhere; `trained`: of these rollouts."""
    batch = batch or Batch.random()
    plain, token_level = hook(batch, **options), hook(batch, estimator, **options)
    wanted = batch.values(plain, estimator)
    assert max(row.max() for row in wanted) > 0.3 or estimator == "hooks:likely"
    assert min(row.min() for row in wanted) < -0.3
    for place, (before, after, values) in enumerate(zip(plain, token_level, wanted, strict=True)):
        values = values if trained is None or place in trained else 0 * values
        torch.testing.assert_close(after, before + values, rtol=0, atol=1e-6)


@ALL
def test_each_generated_token_gets_its_own_value(name):
    check(HOOKS[name])


@ALL
def test_log_probs_are_handed_on_or_their_lack_is_told_before_the_run(name):
    if name in GIVE_LOG_PROBS:
        check(HOOKS[name], "hooks:likely")
    else:
        with pytest.raises(ValueError, match=r"'hooks:likely' needs the rollouts' log_probs, which .* not give"):
            HOOKS[name](Batch.random(), "hooks:likely")


def test_rollouts_that_nemo_rl_drops_count_in_the_tables():
    check(HOOKS["nemo_rl"], dropped=[2, 7], trained={*range(12)} - {2, 7})


def test_ms_swifts_groups_go_by_prompt_where_their_sizes_vary():
    check(HOOKS["ms_swift"], by_prompt=True)


def test_a_single_reward_function_of_ms_swift_needs_no_name():
    check(HOOKS["ms_swift"], correctness_reward=None, reward_func_names=["HasA"])


REFUSED = [
    ("openrlhf", {"algorithm": "gae"}, "--algo.advantage.estimator must be one of .* got 'gae'"),
    ("openrlhf", {"samples": 1}, "--rollout.n_samples_per_prompt must be another .* got 1: it needs several"),
    ("openrlhf", {"loss": "gspo"}, "--actor.policy_loss_type must be ppo .* got 'gspo'"),
    ("skyrl", {"algorithm": "gae"}, "advantage_estimator must be one of .* got 'gae'"),
    ("skyrl", {"policy_loss_type": "gspo"}, "policy_loss_type must be another .* got 'gspo'"),
    ("skyrl", {"use_kl_in_reward": True}, "use_kl_in_reward must be False"),
    ("skyrl", {"step_wise_trajectories": True}, "step_wise_trajectories must be False"),
    ("nemo_rl", {"logs": False}, "grpo_train does"),
    ("ms_swift", {"importance_sampling_level": "sequence"}, r"must be one of \('token', 'sequence_token'\)"),
    ("ms_swift", {"loss_type": "real"}, "--loss_type must be another .* got 'real'"),
    ("ms_swift", {"use_liger_loss": True}, "use_liger_loss must be False .*--use_liger_kernel"),
    ("ms_swift", {"off_policy_sequence_mask_delta": 0.5}, "must be None .* got 0.5"),
    ("ms_swift", {"template": SimpleNamespace(sequence_parallel_size=2)}, "sequence_parallel_size must be 1 .* 2"),
    ("ms_swift", {"correctness_reward": None}, r"one of the reward functions \['Length', 'HasA'\], got None"),
    ("ms_swift", {"correctness_reward": "hasa"}, r"one of the reward functions \['Length', 'HasA'\], got 'hasa'"),
    ("ms_swift", {"extra_mask": 2}, r"as many tokens as a sample has labels, \[1, .*\], got \[3, "),
    ("slime", {"advantage_estimator": "gspo"}, "--advantage-estimator must be grpo .* got 'gspo'"),
    ("slime", {"context_parallel_size": 2}, "--context-parallel-size must be 1 .* got 2"),
    ("slime", {"rewards_normalization": True}, "correct_above must be 0 .* got 0.5"),
    ("slime", {"ktae": {"scael": 2}}, "ktae.scael is unknown; ktae may hold preset, estimator, fisher_weight"),
]


@pytest.mark.parametrize(("name", "changes", "message"), REFUSED)
def test_what_cannot_work_is_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        HOOKS[name](Batch.random(), "hooks:everything", **changes)


def test_a_group_of_prime_rls_without_trainable_traces():
    class Nothing:
        async def score_group(self, episodes):
            """No advantages."""

    node = SimpleNamespace(advantages=None)
    episode = SimpleNamespace(traces=[SimpleNamespace(nodes=[node])])
    asyncio.run(prime_rl.with_credit(Nothing, TokenCredit())().score_group([episode]))
    assert node.advantages is None


def test_states_that_nobody_would_ask_for_are_refused():
    with pytest.raises(ValueError, match="states must be None: OpenRLHF does not hand them on"):
        openrlhf.with_credit(object, TokenCredit(states=len))


# The frameworks themselves, where they are installed (docs/integrations.md)


class NoGPU(MetaPathFinder, Loader):
    """Empty modules for what OpenRLHF imports at its top and has no CPU build; nothing here uses it."""

    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] in ("flash_attn", "vllm"):
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def exec_module(self, module):
        module.__getattr__ = self.attribute

    @staticmethod
    def attribute(name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@pytest.mark.parametrize("algorithm", ["group_norm", "rloo", "dr_grpo", "reinforce_baseline"])
def test_openrlhfs_own_computation(monkeypatch, algorithm):
    pytest.importorskip("openrlhf", reason="needs openrlhf 0.11, which pins other versions of ray and transformers")
    import peft  # noqa: F401 (these look for the true flash-attn)
    from transformers import AutoModelForCausalLM, Trainer  # noqa: F401

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, NoGPU()])  # last: true packages come first
    from openrlhf.trainer.ppo_utils.experience_maker import Experience, RemoteExperienceMaker

    check(HOOKS["openrlhf"], maker=RemoteExperienceMaker, experience=Experience, algorithm=algorithm)


@pytest.fixture(scope="module")
def skyrl():
    pytest.importorskip("skyrl", reason="needs skyrl 0.3, which pins other versions")
    import ray
    import typing_extensions

    with pytest.MonkeyPatch.context() as patch:
        # Its models are made for Python 3.12's; pydantic refuses the older one.
        patch.setattr(typing, "TypedDict", typing_extensions.TypedDict)
        from skyrl.backends.skyrl_train.training_batch import TrainingInputBatch
        from skyrl.train.config import SkyRLTrainConfig
        from skyrl.train.trainer import RayPPOTrainer
    ray.init(num_cpus=1, include_dashboard=False)  # the trainer looks up its cluster's GPUs when it is built
    yield lambda: {"trainer": RayPPOTrainer, "data": TrainingInputBatch, "config": SkyRLTrainConfig()}
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "maxrl"])
def test_skyrls_own_computation(skyrl, algorithm):
    check(HOOKS["skyrl"], algorithm=algorithm, **skyrl())


def verifiers():
    """The real traces."""
    pytest.importorskip("verifiers.v1", reason="needs verifiers 0.4, which does not share our environment")
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.trace import Reward, Trace

    def node(token_ids, mask):
        return MessageNode(message={"role": "user", "content": ""}, token_ids=token_ids, mask=mask)

    def trace(nodes, reward):
        agent = SimpleNamespace(trainable=True)
        return Trace.model_construct(nodes=nodes, rewards={"correct": Reward(score=reward)}, agent=agent, ok=True)

    return {"node": node, "trace": trace}


def test_prime_rls_own_traces():
    check(HOOKS["prime_rl"], **verifiers())


def test_prime_rls_own_algorithm(monkeypatch):
    """Its GRPOAlgorithm and its table of algorithms; wandb, which it imports and does not use here, may be missing."""
    pytest.importorskip("prime_rl", reason="needs a checkout of prime-rl on the path; it is not on PyPI")
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    from prime_rl.configs.algorithm import GRPOAlgoConfig
    from prime_rl.orchestrator import algo

    monkeypatch.setitem(algo.ALGORITHM_CLASSES, "grpo", algo.ALGORITHM_CLASSES["grpo"])

    def hook(batch, estimator=None):
        if estimator:
            prime_rl.install(TokenCredit(estimator, CORRECT_ABOVE))
        algorithm = algo.ALGORITHM_CLASSES["grpo"](GRPOAlgoConfig(), None)
        return HOOKS["prime_rl"](batch, estimator, score=algorithm.finalize_group, **verifiers())

    check(hook)


def test_slimes_process_group_is_megatrons():
    mpu = pytest.importorskip("megatron.core", reason="needs megatron-core, which slime has").mpu
    mpu.initialize_model_parallel()
    try:
        data, wanted = slime_data(Batch.random()), slime_data(Batch.random())
        slime.advantages(slime_arguments(), data)
        slime.set_advantages(slime_arguments(), wanted, None)
    finally:
        mpu.destroy_model_parallel()
    assert all(map(torch.equal, data["advantages"], wanted["advantages"]))


@pytest.mark.slow
def test_slimes_groups_may_be_split_over_processes(tmp_path):
    """With its normalised rewards: correct is what is above the group's mean."""
    start([*TWO, Path(__file__).with_name("hooks.py"), tmp_path])
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert {place // 4 for place in parts[0]["places"]} & {place // 4 for place in parts[1]["places"]}
    assert len(parts[0]["places"]) > len(parts[1]["places"])
    batch = normalised()
    plain = [torch.full(ids.shape, reward) for ids, reward in zip(batch.ids, batch.rewards, strict=True)]
    values = batch.values(plain, "hooks:everything")
    for part in parts:
        for place, returns, advantages in zip(part["places"], part["returns"], part["advantages"], strict=True):
            torch.testing.assert_close(returns, plain[place])
            torch.testing.assert_close(advantages, plain[place] + values[place], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("package", "module", "name", "adapter"),
    [
        ("openrlhf.trainer", "ppo_trainer", "RemoteExperienceMaker", openrlhf),
        ("swift", "rlhf_trainers", "GRPOTrainer", ms_swift),
        ("nemo_rl.algorithms", "grpo", "_create_advantage_estimator", nemo_rl),
    ],
)
def test_install_replaces_what_the_framework_makes(monkeypatch, package, module, name, adapter):
    holder = SimpleNamespace(**{name: object})
    monkeypatch.setitem(sys.modules, package, SimpleNamespace(**{module: holder}))
    adapter.install(TokenCredit())
    assert getattr(holder, name) is not object
