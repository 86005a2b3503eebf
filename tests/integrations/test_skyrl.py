"""SkyRL's hook: inside its own trainer's computation where that imports, and on its data structures everywhere."""

import typing
from types import SimpleNamespace

import pytest
import torch

import ktae
from ktae.integrations.credit import TokenCredit
from ktae.integrations.skyrl import with_credit

CONFIG = ktae.KTAEConfig(scale=0.5)
UIDS = ["a", "b", "a", "b", "b", "a", "a", "b"]
LENGTHS = [3, 5, 6, 2, 4, 6, 1, 5]
RESPONSE, TOTAL = max(LENGTHS), 9
PADDING = 2  # rows that fill up the batch for the data-parallel ranks: copies of the first, masked


def tensors():
    """As SkyRL lays them out: everything ends at the right, rewards at the last token."""
    seeded = torch.Generator().manual_seed(3)
    mask = (torch.arange(RESPONSE) >= RESPONSE - torch.tensor(LENGTHS)[:, None]).long()
    tool = torch.rand(mask.shape, generator=seeded) < 0.2
    outcomes = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    rewards = torch.zeros(mask.shape)
    rewards[:, -1] = outcomes
    rewards[:, -2] = 0.25 * mask[:, -2] - 0.25  # a part of the reward elsewhere
    data = {
        "sequences": torch.randint(0, 5, (len(UIDS), TOTAL), generator=seeded),
        "response_mask": mask,
        "loss_mask": mask * ~tool,
        "rewards": rewards,
    }
    data = {name: torch.cat([tensor, tensor[[0] * PADDING]]) for name, tensor in data.items()}
    data["loss_mask"][-PADDING:] = 0
    return data


def metadata():
    return {"uids": UIDS + [f"pad{row}" for row in range(PADDING)], "pad_size": PADDING, "avg_response_length": 4.0}


def values_by_hand(data):
    groups = torch.tensor([ord(uid) for uid in UIDS])
    scored = slice(len(UIDS))
    value_NT = ktae.key_token_values(
        data["sequences"][scored, TOTAL - RESPONSE :],
        data["loss_mask"][scored],
        data["rewards"][scored].sum(dim=1),
        groups,
        config=CONFIG,
    )
    return torch.cat([value_NT, torch.zeros(PADDING, RESPONSE)])


class Trainer:
    """In place of SkyRL's, where it is not installed: every rollout's advantage is 0.25."""

    def __init__(self, cfg):
        pass

    def compute_advantages_and_returns(self, data):
        return data


def simple(advantage_estimator="grpo", policy_loss_type="regular", use_kl_in_reward=False, step_wise=False):
    algorithm = SimpleNamespace(
        advantage_estimator=advantage_estimator, policy_loss_type=policy_loss_type, use_kl_in_reward=use_kl_in_reward
    )
    generator = SimpleNamespace(step_wise_trajectories=step_wise)
    return SimpleNamespace(trainer=SimpleNamespace(algorithm=algorithm), generator=generator)


def test_values_are_added_where_the_loss_mask_is_one():
    class Data(dict):
        metadata = metadata()

    data = Data(tensors(), advantages=torch.full((len(UIDS) + PADDING, RESPONSE), 0.25))
    data = with_credit(Trainer, TokenCredit(CONFIG))(simple()).compute_advantages_and_returns(data)
    wanted = values_by_hand(data)
    assert (wanted.abs() > 0.2).any()
    torch.testing.assert_close(data["advantages"], 0.25 + wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"advantage_estimator": "gae"}, "advantage_estimator must be one of .* got 'gae'"),
        ({"policy_loss_type": "gspo"}, "policy_loss_type must be another .* got 'gspo'"),
        ({"use_kl_in_reward": True}, "use_kl_in_reward must be False"),
        ({"step_wise": True}, "step_wise_trajectories must be False"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        with_credit(Trainer, TokenCredit())(simple(**changes))


@pytest.fixture(scope="module")
def skyrl():
    pytest.importorskip("skyrl", reason="needs skyrl 0.3, which pins other versions")
    typing_extensions = pytest.importorskip("typing_extensions")
    with pytest.MonkeyPatch.context() as patch:
        # Its models are made for Python 3.12's; pydantic refuses the older one.
        patch.setattr(typing, "TypedDict", typing_extensions.TypedDict)
        import skyrl.backends.skyrl_train.training_batch as batches
        import skyrl.train.config as config
        import skyrl.train.trainer as trainers

        yield SimpleNamespace(
            RayPPOTrainer=trainers.RayPPOTrainer,
            Batch=batches.TrainingInputBatch,
            Config=config.SkyRLTrainConfig,
        )


@pytest.fixture(scope="module")
def local_ray(skyrl):
    """SkyRL's trainer looks up its cluster's GPUs when it is built."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False)
    yield
    ray.shutdown()


def computed(skyrl, trainer, estimator):
    data = skyrl.Batch(tensors() | {"values": None})
    data.metadata = metadata()
    cfg = skyrl.Config()
    cfg.trainer.algorithm.advantage_estimator = estimator
    nothing = ("tracker", "tokenizer", "train_dataset", "eval_dataset", "inference_engine_client", "generator")
    built = trainer(cfg=cfg, colocate_pg=None, **dict.fromkeys(nothing))
    return built.compute_advantages_and_returns(data)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("estimator", ["grpo", "rloo", "maxrl"])
def test_through_skyrls_own_computation(skyrl, estimator):
    plain = computed(skyrl, skyrl.RayPPOTrainer, estimator)
    token_level = computed(skyrl, with_credit(skyrl.RayPPOTrainer, TokenCredit(CONFIG)), estimator)
    assert plain["advantages"].any()
    wanted = plain["advantages"] + values_by_hand(tensors())
    torch.testing.assert_close(token_level["advantages"], wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(token_level["returns"], plain["returns"])
