"""Which rows and tokens the verl adapter hands to the estimator, without Ray; and what it makes of `algorithm.ktae`."""

import numpy as np
import oracle
import pytest

pytest.importorskip("verl.protocol", reason="verl is not installed; `make test-verl` has an environment with it")

import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.nn.utils.rnn import pad_sequence
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
from verl.trainer.ppo.v1 import PPOTrainerSync

from ktae.config import KTAEConfig
from ktae.integrations.verl import KTAETrainer, ktae_config, one_row_a_rollout, token_advantages


def compute(rows, config=KTAEConfig()):  # noqa: B008 (frozen)
    """`token_advantages` on a list of rows, each a dict; verl's advantages are given per row and spread over it."""

    def padded(key):
        return pad_sequence([torch.tensor(row[key]) for row in rows], batch_first=True)

    advantages, metrics = token_advantages(
        torch.tensor([row["advantage"] for row in rows])[:, None].expand(padded("ids").shape),
        padded("final"),
        ids_BT=padded("ids"),
        generated_BT=padded("mask"),
        rewards_B=torch.tensor([row["reward"] for row in rows]),
        uids=[row["uid"] for row in rows],
        is_padding=[row["padding"] for row in rows],
        config=config,
    )
    return [row[: len(given["ids"])].tolist() for row, given in zip(advantages, rows, strict=True)], metrics


def expected(rows, **config):
    real = [row for row in rows if not row["padding"]]
    width = max(len(row["ids"]) for row in real)
    ids, mask = ([row[key] + [0] * (width - len(row[key])) for row in real] for key in ("ids", "mask"))
    uids = [row["uid"] for row in real]
    values = oracle.key_token_values(
        ids, mask, [row["reward"] for row in real], [uids.index(uid) for uid in uids], **config
    )
    values = iter(values)
    return [
        [
            (row["advantage"] + value) * final
            for value, final in zip(np.zeros(width) if row["padding"] else next(values), row["final"], strict=False)
        ]
        for row in rows
    ]


@st.composite
def batches(draw):
    """Rollouts of up to three prompts with tool output (mask 0), tokens rejected later (final 0) and padding rows."""
    rows = []
    for _ in range(draw(st.integers(2, 10))):
        ids = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6))
        bits = st.lists(st.sampled_from([1, 1, 1, 0]), min_size=len(ids), max_size=len(ids))
        mask = [1, *draw(bits)[1:]]  # a policy generates at least one token
        final = [generated * kept for generated, kept in zip(mask, draw(bits), strict=True)]
        row = {"ids": ids, "mask": mask, "final": final, "reward": draw(st.sampled_from([0.0, 1.0]))}
        row |= {"uid": draw(st.sampled_from(["a", "b", "pa"])), "advantage": draw(st.floats(-2, 2, width=32))}
        rows.append(row | {"padding": False})
    for _ in range(draw(st.integers(0, 2))):
        row = {"ids": [9], "mask": [0], "final": [0], "reward": 0.0, "advantage": 0.0}
        rows.append(row | {"uid": "pad", "padding": True})
    return draw(st.permutations(rows))


@given(batches())
def test_the_oracles_advantages_whatever_the_order_the_masks_and_the_padding(rows):
    advantages, _ = compute(rows)
    for row, row_expected in zip(advantages, expected(rows), strict=True):
        np.testing.assert_allclose(row, row_expected, atol=1e-6)


def rollout(ids, reward, uid="a", **more):
    ones = [1] * len(ids)
    return {
        "ids": ids,
        "reward": reward,
        "uid": uid,
        "mask": ones,
        "final": ones,
        "advantage": 0.0,
        "padding": False,
    } | more


def test_tool_output_says_nothing():
    """Token 8 is in the correct rollout only, but a tool wrote it."""
    rows = [rollout([8, 7], 1.0, mask=[0, 1], final=[0, 1]), rollout([5, 7], 0.0)]
    (correct, incorrect), _ = compute(rows)
    assert correct == [0.0, 0.0]
    assert incorrect[0] < -0.5


def test_a_rejected_token_is_still_evidence():
    """Its own advantage is 0; in another rollout the same token keeps the value that both rollouts give it."""
    rows = [rollout([7], 1.0), rollout([7, 4], 1.0), rollout([5], 0.0), rollout([5], 0.0)]
    (kept, *_), _ = compute(rows)
    rejected = [rows[0], rows[1] | {"final": [0, 1]}, *rows[2:]]
    (still, zero, *_), _ = compute(rejected)
    assert still == kept
    assert kept[0] > 0.5
    assert zero[0] == 0.0


def test_metrics_with_nothing_to_average_are_left_out():
    _, metrics = compute([rollout([7], 1.0), rollout([5], 1.0)])
    assert metrics == {"ktae/key_token_share": 0.0, "ktae/abs_value_correct": 0.0, "ktae/mixed_group_share": 0.0}


def test_a_rollout_of_several_outputs_is_refused():
    one_row_a_rollout(["u_1_0", "u_2_0", "v_1_0"])
    with pytest.raises(ValueError, match="rollout u_1 has 2 outputs"):
        one_row_a_rollout(["u_1_0", "u_2_0", "u_1_1"])


# algorithm.ktae


def structured(settings):
    config = OmegaConf.create({"algorithm": {"ktae": settings}})
    OmegaConf.set_struct(config, True)
    return config.algorithm.get("ktae")


@pytest.mark.parametrize(
    ("settings", "config"),
    [
        ({}, KTAEConfig()),
        ({"preset": "paper"}, KTAEConfig()),
        (
            {"preset": "released", "exclude_token_ids": [151643]},
            KTAEConfig(fisher="released", exclude_token_ids=(151643,)),
        ),
        ({"preset": "recommended"}, KTAEConfig.recommended()),
        ({"context": 1, "scale": 2, "correct_above": 0.5}, KTAEConfig(context=1, scale=2, correct_above=0.5)),
    ],
)
def test_settings_from_a_struct_config(settings, config):
    assert ktae_config(structured(settings)) == config
    assert ktae_config(settings) == config


def test_no_settings_are_the_defaults():
    config = OmegaConf.create({"algorithm": {}})
    OmegaConf.set_struct(config, True)
    assert ktae_config(config.algorithm.get("ktae")) == KTAEConfig()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"h1": 2}, r"algorithm\.ktae\.h1 is unknown; algorithm\.ktae may hold preset, fisher_weight, .*, fisher$"),
        ({"preset": "best"}, r"algorithm\.ktae\.preset must be one of paper, released, recommended, got 'best'"),
        ({"context": -1}, r"algorithm\.ktae\.context must be an integer in 0\.\.64, got -1"),
        ({"scale": "big"}, r"algorithm\.ktae\.scale must be a finite number .*, got 'big'"),
        ({"exclude_token_ids": 5}, r"algorithm\.ktae\.exclude_token_ids must hold integers, got 5"),
        ("recommended", r"algorithm\.ktae must hold some of preset, fisher_weight, .*; got 'recommended'"),
        (["preset"], r"algorithm\.ktae must hold some of preset, .*; got \['preset'\]"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ktae_config(structured(settings))


@pytest.mark.parametrize("trainer", [KTAETrainer, RayPPOTrainer])
def test_a_loss_that_averages_advantages_is_refused(trainer):
    actor = {"policy_loss": {"loss_mode": "geo_mean"}}
    config = OmegaConf.create({"algorithm": {"ktae": {}}, "actor_rollout_ref": {"actor": actor}})
    with pytest.raises(ValueError, match="loss_mode=geo_mean averages"):
        trainer(config)


def test_verls_own_trainer_does_not_ignore_the_settings():
    config = OmegaConf.create({"algorithm": {"ktae": {}}, "trainer": {"v1": {"trainer_mode": "sync"}}})
    with pytest.raises(ValueError, match="trainer_mode=sync does not read it"):
        PPOTrainerSync(config)


def test_the_older_trainer_refuses_rejection_and_unknown_settings():
    config = OmegaConf.create({"algorithm": {"ktae": {}, "rollout_correction": {"rollout_rs": "token_k1"}}})
    with pytest.raises(ValueError, match="rollout_rs=token_k1 takes tokens out of the mask"):
        RayPPOTrainer(config)
    config.algorithm.ktae = {"h1": 1}
    with pytest.raises(ValueError, match="h1 is unknown"):
        RayPPOTrainer(config)
