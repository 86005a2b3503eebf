"""The hooks of all trainers but TRL and verl on one batch, in each framework's data structures.

Each function `of_*` takes a batch through a trainer's hook and back: with an estimator, or None for the trainer's own
advantages, it returns a row of advantages a rollout, 0 where the trainer has none. The trainer is a stand-in, whose
classes a test may replace by the framework's own.

Run as one of several processes, this takes its share of a batch through slime's hook.
"""

import asyncio
import sys
import typing
from argparse import Namespace
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from itertools import groupby
from types import ModuleType, SimpleNamespace

import pytest
import torch
from processes import TWO, start
from torch.distributed import destroy_process_group, get_rank, init_process_group
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

import ktae
from ktae.estimators import Rollouts, load_estimator
from ktae.estimators.key_tokens import key_tokens
from ktae.integrations import ms_swift, nemo_rl, openrlhf, prime_rl, skyrl, slime
from ktae.integrations.credit import TokenCredit

GROUP, PROMPT, CORRECT_ABOVE = 4, 3, 0.5
EVERYTHING, LIKELY = "test_hooks:everything", "test_hooks:likely"


def everything(rollouts):
    """An estimator that reads all that each hook hands on."""
    value_NT = key_tokens(ktae.KTAEConfig())(rollouts) + 0.1 * rollouts.rollout_advantages[:, None]
    return (value_NT * rollouts.mask).float()


def likely(rollouts):
    return rollouts.require("log_probs") * rollouts.mask


class Batch:
    """Rollouts of three prompts, neighbours in a group: ragged ids, 0 in the mask where a tool answered.

    `own` are the advantages that a stand-in gives, one a rollout.
    """

    correct_above = CORRECT_ABOVE

    def __init__(self):
        self.groups = [place // GROUP for place in range(12)]
        seeded = torch.Generator().manual_seed(1)
        lengths = torch.randint(1, 8, (12,), generator=seeded).tolist()
        self.masks = [(torch.rand(length, generator=seeded) > 0.2).long() for length in lengths]
        for mask in self.masks:
            mask[0] = 1
        self.ids = [torch.randint(0, 6, (length,), generator=seeded) for length in lengths]
        self.log_probs = [-torch.rand(length, generator=seeded) for length in lengths]
        self.rewards = [(0.3, 1.0)[right] for right in torch.randint(0, 2, (12,), generator=seeded).tolist()]
        self.own = torch.rand(12, generator=seeded) - 0.5

    def values(self, plain, estimator):
        """What the estimator gives these rollouts, a row each, from padded tensors; `plain` are the own advantages."""
        mask_NT = pad_sequence(self.masks, batch_first=True)
        rollouts = Rollouts(
            pad_sequence(self.ids, batch_first=True),
            mask_NT,
            torch.tensor(self.rewards),
            torch.tensor(self.groups),
            (pad_sequence(plain, batch_first=True) * mask_NT).sum(dim=1) / mask_NT.sum(dim=1),
            log_probs=pad_sequence(self.log_probs, batch_first=True),
            correct_above=self.correct_above,
        )
        return self.cut(load_estimator(estimator)(rollouts))

    def cut(self, rows):
        return [row[: len(ids)] for row, ids in zip(rows, self.ids, strict=True)]


def hooked(with_credit, base, estimator, *more):
    return with_credit(base, TokenCredit(estimator, CORRECT_ABOVE), *more) if estimator else base


def shuffled(seed):
    return torch.randperm(12, generator=torch.Generator().manual_seed(seed)).tolist()


def of_openrlhf(
    batch, estimator=None, *, maker=None, part=SimpleNamespace, algorithm="group_norm", n=GROUP, loss="ppo"
):
    """Rollouts shuffled over micro-batches of different widths; the action mask belongs to all tokens but the first."""

    class Maker:
        def __init__(self, *given):
            self.args = given[5].args

        def compute_advantages_and_returns(self, experiences):
            for one in experiences:
                one.advantages = batch.own[one.index][:, None].expand(one.action_mask.shape)
                one.rewards -= 1  # as a length penalty does
            return experiences

    order, parts = shuffled(2), []
    for index in (order[:3], order[3:8], order[8:]):
        ids, masks, log_probs = (
            pad_sequence([rows[row] for row in index], batch_first=True)
            for rows in (batch.ids, batch.masks, batch.log_probs)
        )
        parts.append(
            part(
                sequences=pad(ids, (PROMPT, 0), value=9),
                action_mask=pad(masks, (PROMPT - 1, 0)).bool(),
                action_log_probs=pad(log_probs, (PROMPT - 1, 0), value=-9.0),
                rewards=torch.tensor([batch.rewards[row] for row in index]),
                response_length=torch.tensor([float(len(batch.ids[row])) for row in index]),
                truncated=torch.zeros(len(index), dtype=torch.bool),
                kl=torch.zeros(len(index), PROMPT - 1 + ids.shape[1]),
                index=index,
                info={},
            )
        )
    overlong = {"clip_range": None, "overlong_buffer_len": 4, "overlong_penalty_factor": 1.0}
    args = Namespace(
        algo=Namespace(advantage=Namespace(estimator=algorithm, gamma=1.0, no_std_norm=False)),
        rollout=Namespace(n_samples_per_prompt=n, max_new_tokens=8),
        reward=Namespace(stop_properly_penalty_coef=None, **overlong),
        actor=Namespace(policy_loss_type=loss),
    )
    built = hooked(openrlhf.with_credit, maker or Maker, estimator)
    built = built(None, None, None, None, Namespace(value=0.0), Namespace(args=args), None)
    rows = {}
    for one in built.compute_advantages_and_returns(parts):
        rows |= dict(zip(one.index, one.advantages[:, PROMPT - 1 :], strict=True))
    return batch.cut([rows[place] for place in range(12)])


def of_skyrl(batch, estimator=None, *, trainer=None, data=None, config=None, algorithm="grpo", **changes):
    """Everything ends at the right, and masked copies of the first row fill the batch up for the ranks."""

    class Trainer:
        def __init__(self, cfg, **nothing):
            pass

        def compute_advantages_and_returns(self, data):
            own = torch.cat([batch.own, batch.own[[0] * 2]])
            data["advantages"] = own[:, None].expand(data["loss_mask"].shape)
            return data

    class Data(dict):
        """With metadata."""

    def tensor(rows):
        rows = torch.stack([pad(row, (max(map(len, rows)) - len(row), 0)) for row in rows])
        return torch.cat([rows, rows[[0] * 2]])

    given = (data or Data)(
        {
            "sequences": pad(tensor(batch.ids), (PROMPT, 0), value=9),
            "response_mask": tensor([torch.ones_like(ids) for ids in batch.ids]),
            "loss_mask": tensor(batch.masks),
            "rewards": tensor([torch.tensor([-0.25, *[0.0] * 5, reward + 0.25]) for reward in batch.rewards]),
            "action_log_probs": tensor(batch.log_probs),
            "values": None,
        }
    )
    given["loss_mask"][-2:] = 0
    uids = [f"prompt {group}" for group in batch.groups]
    given.metadata = {"uids": [*uids, "pad0", "pad1"], "pad_size": 2, "avg_response_length": 4.0}
    cfg = config or SimpleNamespace(
        trainer=SimpleNamespace(algorithm=SimpleNamespace(policy_loss_type="regular", use_kl_in_reward=False)),
        generator=SimpleNamespace(step_wise_trajectories=False),
    )
    for name, value in ({"advantage_estimator": algorithm} | changes).items():
        setattr(cfg.generator if name == "step_wise_trajectories" else cfg.trainer.algorithm, name, value)
    nothing = ("tracker", "tokenizer", "train_dataset", "eval_dataset", "inference_engine_client", "generator")
    built = hooked(skyrl.with_credit, trainer or Trainer, estimator)
    built = built(cfg=cfg, colocate_pg=None, **dict.fromkeys(nothing))
    advantages = built.compute_advantages_and_returns(given)["advantages"]
    return [row[-len(ids) :] for row, ids in zip(advantages, batch.ids, strict=False)]


NODE = partial(SimpleNamespace, advantages=None)


def of_prime_rl(batch, estimator=None, *, node=NODE, trace=SimpleNamespace, score=None):
    """A group at a time: a prompt, then a node a turn, with a token of scaffold before what was sampled."""

    class GRPO:
        async def score_group(self, episodes):
            for one in (one for episode in episodes for one in episode.traces):
                for part in one.nodes:
                    if any(part.mask):
                        part.advantages = [one.reward - 0.55] * sum(part.mask)

    rows, run = [], score or hooked(prime_rl.with_credit, GRPO, estimator)().score_group
    for group in range(0, 12, GROUP):
        traces = []
        for place in range(group, group + GROUP):
            nodes, ids = [node(token_ids=[90, 91], mask=[False] * 2)], iter(batch.ids[place].tolist())
            for sampled, turn in groupby(batch.masks[place].bool().tolist()):
                turn = [next(ids) for _ in turn]
                nodes.append(node(token_ids=[99, *turn], mask=[False] + [sampled] * len(turn)))
            traces.append(trace(nodes=nodes, reward=batch.rewards[place]))
        untrained = trace(nodes=[node(token_ids=[90], mask=[False])], reward=1.0)
        asyncio.run(run([SimpleNamespace(traces=[traces[0], untrained]), SimpleNamespace(traces=traces[1:])]))
        if score is None:
            asyncio.run(run([SimpleNamespace(traces=[untrained])]))  # a group without anything to train on
        assert untrained.nodes[0].advantages is None
        for place, result in enumerate(traces, group):
            found = [value for part in result.nodes for value in part.advantages or ()]
            rows.append(torch.zeros(len(batch.ids[place])).masked_scatter(batch.masks[place] == 1, torch.tensor(found)))
    return rows


def of_nemo_rl(batch, estimator=None, *, dropped=(), logs=True):
    """Prompt, answer, tool output, answer, joined; the mask drops some rollouts, truncated ones for instance."""

    class Plain:
        def compute_advantage(self, prompt_ids, rewards, mask, logprobs_policy, **kwargs):
            assert logprobs_policy == "passed on"
            return batch.own[:, None].expand(mask.shape)

    messages, width = [], 16
    for ids, mask in zip(batch.ids, batch.masks, strict=True):
        parts = [torch.tensor([[9] * PROMPT, [0] * PROMPT])]
        parts += torch.stack([ids, mask]).tensor_split(mask.diff().nonzero().flatten() + 1, dim=1)
        messages.append([{"token_ids": part[0], "token_loss_mask": part[1]} for part in parts])
    mask = torch.stack([pad(row, (PROMPT, width - PROMPT - len(row))) for row in batch.masks]).float()
    mask[list(dropped)] = 0
    built = nemo_rl.TokenAdvantages(Plain(), TokenCredit(estimator, CORRECT_ABOVE)) if estimator else Plain()
    advantages = built.compute_advantage(
        prompt_ids=torch.tensor([[9, 9, group] for group in batch.groups]),
        rewards=torch.tensor(batch.rewards),
        mask=mask,
        repeated_batch={"message_log": messages} if logs else {},
        logprobs_policy="passed on",
    )
    return batch.cut(advantages[:, PROMPT:])


def of_ms_swift(batch, estimator=None, *, correctness_reward="HasA", by_prompt=False, extra_mask=0, **changes):
    """The sampled tokens have labels; two batches of padded rows."""

    class Trainer:
        importance_sampling_level, loss_type, use_liger_loss = "token", "grpo", False
        off_policy_sequence_mask_delta, template = None, SimpleNamespace(sequence_parallel_size=1)
        reward_func_names, dynamic_num_samples, num_generations = ["Length", "HasA"], by_prompt, GROUP
        model, accelerator = SimpleNamespace(training=True), SimpleNamespace(process_index=0)

        def __init__(self):
            vars(self).update(changes)

        def _postprocess_batch(self, samples, batch_encoded_inputs):
            rewards = torch.tensor([batch.rewards[sample.place] for sample in samples])
            columns = [rewards if name == "HasA" else -rewards for name in self.reward_func_names]
            self._rewards_per_func = torch.stack(columns, dim=1)
            own = iter(batch.own[[sample.place for sample in samples]])
            for encoded in batch_encoded_inputs:
                part = encoded["grpo_batch"]
                part.advantages = torch.stack([next(own) * row for row in torch.ones(part.completion_mask.shape)])

    order, samples, parts = shuffled(3) if by_prompt else list(range(12)), [], []
    for place in order:
        labels = [-100] * PROMPT + torch.where(batch.masks[place] == 1, batch.ids[place], -100).tolist()
        prompt = f"prompt {batch.groups[place]}"
        samples.append(SimpleNamespace(encoded={"labels": [labels]}, prompt_id=prompt, place=place))
    for index in (order[:5], order[5:]):
        mask_BT = pad(pad_sequence([batch.masks[row] for row in index], batch_first=True), (2, 0))
        mask_BT[0, :extra_mask] = 1
        parts.append(SimpleNamespace(completion_mask=mask_BT))
    built = hooked(ms_swift.with_credit, Trainer, estimator, *([correctness_reward] if estimator else []))()
    built._postprocess_batch(samples, [{"grpo_batch": part} for part in parts])
    rows = dict(zip(order, [row[2:] for part in parts for row in part.advantages], strict=True))
    return batch.cut([rows[place] for place in range(12)])


def slime_data(batch, places=range(12)):
    """slime's lists of the samples at these places."""
    return {
        "tokens": [pad(batch.ids[place], (PROMPT, 0), value=9) for place in places],
        "response_lengths": [len(batch.ids[place]) for place in places],
        "loss_masks": [batch.masks[place].int() for place in places],
        "rewards": [batch.rewards[place] for place in places],
        "sample_indices": [40 + place for place in places],
    }


def slime_arguments(estimator=EVERYTHING, **changes):
    defaults = {"advantage_estimator": "grpo", "n_samples_per_prompt": GROUP, "context_parallel_size": 1}
    defaults |= {"rewards_normalization": False, "ktae": {"estimator": estimator, "correct_above": CORRECT_ABOVE}}
    return Namespace(**defaults | changes)


def of_slime(batch, estimator=None, **changes):
    data = slime_data(batch)
    slime.set_advantages(slime_arguments(estimator or EVERYTHING, **changes), data, None)
    return data["advantages" if estimator else "returns"]


HOOKS = (of_openrlhf, of_skyrl, of_prime_rl, of_nemo_rl, of_ms_swift, of_slime)


@pytest.fixture(autouse=True, scope="module")
def one_process(tmp_path_factory):
    """slime's hook and ms-swift's gather over processes."""
    store = tmp_path_factory.mktemp("process group") / "store"
    init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    destroy_process_group()


def check(hook, estimator=EVERYTHING, untrained=(), **options):
    """That the hook adds to each generated token its own value, and nothing elsewhere or to rollouts `untrained`."""
    batch = Batch()
    plain, token_level = hook(batch, **options), hook(batch, estimator, **options)
    wanted = batch.values(plain, estimator)
    assert max(row.max() for row in wanted) > 0.3 or estimator == LIKELY
    assert min(row.min() for row in wanted) < -0.3
    for place, (before, after, values) in enumerate(zip(plain, token_level, wanted, strict=True)):
        torch.testing.assert_close(after, before + values * (place not in untrained), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("hook", "options"),
    [
        *((hook, {}) for hook in HOOKS),
        *((hook, {"estimator": LIKELY}) for hook in (of_openrlhf, of_skyrl)),
        (of_nemo_rl, {"dropped": [2, 7], "untrained": [2, 7]}),  # which count in the tables
        (of_ms_swift, {"by_prompt": True}),  # where the sizes of groups vary
        (of_ms_swift, {"correctness_reward": None, "reward_func_names": ["HasA"]}),
    ],
)
def test_each_generated_token_gets_its_own_value(hook, options):
    check(hook, **options)


@pytest.mark.parametrize(
    ("hook", "changes", "message"),
    [
        *(
            (hook, {"estimator": LIKELY}, r"test_hooks:likely' needs the rollouts' log_probs, which .* not give")
            for hook in HOOKS[2:]
        ),
        (of_openrlhf, {"algorithm": "gae"}, "--algo.advantage.estimator must be one of .* got 'gae'"),
        (of_openrlhf, {"n": 1}, "--rollout.n_samples_per_prompt must be another .* got 1: it needs several"),
        (of_openrlhf, {"loss": "gspo"}, "--actor.policy_loss_type must be ppo .* got 'gspo'"),
        (of_skyrl, {"algorithm": "gae"}, "advantage_estimator must be one of .* got 'gae'"),
        (of_skyrl, {"policy_loss_type": "gspo"}, "policy_loss_type must be another .* got 'gspo'"),
        (of_skyrl, {"use_kl_in_reward": True}, "use_kl_in_reward must be False"),
        (of_skyrl, {"step_wise_trajectories": True}, "step_wise_trajectories must be False"),
        (of_nemo_rl, {"logs": False}, "grpo_train does"),
        (of_ms_swift, {"importance_sampling_level": "sequence"}, r"must be one of \('token', 'sequence_token'\)"),
        (of_ms_swift, {"loss_type": "real"}, "--loss_type must be another .* got 'real'"),
        (of_ms_swift, {"use_liger_loss": True}, "use_liger_loss must be False .*--use_liger_kernel"),
        (of_ms_swift, {"off_policy_sequence_mask_delta": 0.5}, "must be None .* got 0.5"),
        (of_ms_swift, {"template": SimpleNamespace(sequence_parallel_size=2)}, "sequence_parallel_size must be 1 .* 2"),
        (of_ms_swift, {"correctness_reward": "hasa"}, r"one of the reward functions \['Length', 'HasA'\], got 'hasa'"),
        (of_ms_swift, {"extra_mask": 2}, r"as many tokens as a sample has labels, \[1, .*\], got \[3, "),
        (of_slime, {"advantage_estimator": "gspo"}, "--advantage-estimator must be grpo .* got 'gspo'"),
        (of_slime, {"context_parallel_size": 2}, "--context-parallel-size must be 1 .* got 2"),
        (of_slime, {"rewards_normalization": True}, "correct_above must be 0 .* got 0.5"),
        (of_slime, {"ktae": {"scael": 2}}, "ktae.scael is unknown; ktae may hold preset, estimator, fisher_weight"),
    ],
)
def test_what_cannot_work_is_refused(hook, changes, message):
    with pytest.raises(ValueError, match=message):
        hook(Batch(), **{"estimator": EVERYTHING} | changes)


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

    check(of_openrlhf, maker=RemoteExperienceMaker, part=Experience, algorithm=algorithm)


@pytest.fixture(scope="module")
def skyrls():
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
def test_skyrls_own_computation(skyrls, algorithm):
    check(of_skyrl, algorithm=algorithm, **skyrls())


def verifiers():
    """The real traces."""
    pytest.importorskip("verifiers.v1", reason="needs verifiers 0.4, which does not share our environment")
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.trace import Reward, Trace

    def trace(nodes, reward):
        agent = SimpleNamespace(trainable=True)
        return Trace.model_construct(nodes=nodes, rewards={"correct": Reward(score=reward)}, agent=agent, ok=True)

    return {"node": partial(MessageNode, message={"role": "user", "content": ""}), "trace": trace}


def test_prime_rls_own_traces():
    check(of_prime_rl, **verifiers())


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
        return of_prime_rl(batch, estimator, score=algorithm.finalize_group, **verifiers())

    check(hook)


def test_slimes_process_group_is_megatrons():
    mpu = pytest.importorskip("megatron.core", reason="needs megatron-core, which slime has").mpu
    mpu.initialize_model_parallel()
    try:
        data, wanted = slime_data(Batch()), slime_data(Batch())
        slime.advantages(slime_arguments(), data)
        slime.set_advantages(slime_arguments(), wanted, None)
    finally:
        mpu.destroy_model_parallel()
    assert all(map(torch.equal, data["advantages"], wanted["advantages"]))


def normalised():
    """The batch with rewards less their group's mean, as slime normalises them; the threshold is 0."""
    batch, rewards_GN = Batch(), torch.tensor(Batch().rewards).view(3, -1)
    batch.rewards = (rewards_GN - rewards_GN.mean(dim=1, keepdim=True)).flatten().tolist()
    batch.correct_above = 0.0
    return batch


# Neighbours on different ranks, as slime deals them; the first rank gets more than the other.
PLACES = [0, 2, 4, 6, 8, 9, 10, 11], [1, 3, 5, 7]


@pytest.mark.slow
def test_slimes_groups_may_be_split_over_processes(tmp_path):
    """With its normalised rewards: correct is what is above the group's mean."""
    start([*TWO, __file__, tmp_path])
    batch = normalised()
    plain = [torch.full(ids.shape, reward) for ids, reward in zip(batch.ids, batch.rewards, strict=True)]
    values = batch.values(plain, EVERYTHING)
    for rank, places in enumerate(PLACES):
        part = torch.load(tmp_path / f"{rank}.pt")
        for place, returns, advantages in zip(places, part["returns"], part["advantages"], strict=True):
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


if __name__ == "__main__":
    init_process_group("gloo")
    data = slime_data(normalised(), PLACES[get_rank()])
    slime.set_advantages(slime_arguments(rewards_normalization=True, ktae={"estimator": EVERYTHING}), data, None)
    torch.save(data, f"{sys.argv[1]}/{get_rank()}.pt")
    destroy_process_group()
