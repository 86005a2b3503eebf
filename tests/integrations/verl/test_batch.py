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

from ktae.estimators import Rollouts
from ktae.integrations.credit import TokenCredit, rollout_means
from ktae.integrations.lists import group_numbers
from ktae.integrations.verl import (
    KTAETrainer,
    one_row_a_rollout,
    refuse_ignored_settings,
    token_advantages,
    token_credit,
)


def compute(rows):
    """`token_advantages` on a list of rows, each a dict; verl's advantages are given per row and spread over it."""

    def padded(key):
        return pad_sequence([torch.tensor(row[key]) for row in rows], batch_first=True)

    final = padded("final")
    own = torch.tensor([row["advantage"] for row in rows])[:, None].expand(final.shape)
    rewards, groups = torch.tensor([row["reward"] for row in rows]), group_numbers([row["uid"] for row in rows])
    rollouts = Rollouts(padded("ids"), padded("mask"), rewards, groups, rollout_means(own, final))
    is_padding = [row["padding"] for row in rows]
    advantages, metrics = token_advantages(TokenCredit(), rollouts, own, final, is_padding)
    return [row[: len(given["ids"])].tolist() for row, given in zip(advantages, rows, strict=True)], metrics


def expected(rows):
    real = [row for row in rows if not row["padding"]]
    width = max(len(row["ids"]) for row in real)
    ids, mask = ([row[key] + [0] * (width - len(row[key])) for row in real] for key in ("ids", "mask"))
    uids = [row["uid"] for row in real]
    rewards, groups = [row["reward"] for row in real], [uids.index(uid) for uid in uids]
    values = iter(oracle.key_token_values(ids, mask, rewards, groups))
    found = [np.zeros(width) if row["padding"] else next(values) for row in rows]
    return [
        (row["advantage"] + value[: len(row["final"])]) * row["final"] for row, value in zip(rows, found, strict=True)
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
    row = {"ids": ids, "reward": reward, "uid": uid, "mask": ones, "final": ones, "advantage": 0.0, "padding": False}
    return row | more


def test_metrics_with_nothing_to_average_are_left_out():
    _, metrics = compute([rollout([7], 1.0), rollout([5], 1.0)])
    assert metrics == {"ktae/key_token_share": 0.0, "ktae/abs_value_correct": 0.0, "ktae/mixed_group_share": 0.0}


def test_a_rollout_of_several_outputs_is_refused():
    one_row_a_rollout(["u_1_0", "u_2_0", "v_1_0"])
    with pytest.raises(ValueError, match="rollout u_1 has 2 outputs"):
        one_row_a_rollout(["u_1_0", "u_2_0", "u_1_1"])


# algorithm.ktae


def asked_for(settings, **algorithm):
    config = OmegaConf.create({"algorithm": ({} if settings is None else {"ktae": settings}) | algorithm})
    OmegaConf.set_struct(config, True)
    return token_credit(config)


def third(rollouts):
    rollouts.require("entropies")
    return rollouts.mask / 3


def test_settings_from_a_struct_config():
    """tests/integrations/test_credit.py has what they may be."""
    assert (asked_for(None).scale, asked_for({}).scale) == (1.0, 1.0)
    credit = asked_for({"preset": "released", "exclude_token_ids": [151643], "scale": 2, "correct_above": 0.5})
    assert (credit.scale, credit.correct_above) == (2, 0.5)
    with pytest.raises(ValueError, match=r"algorithm\.ktae\.h1 is unknown; .* may hold preset, .*, states"):
        asked_for({"h1": 2})
    assert asked_for({"estimator": "test_batch:third"}).needs == ("entropies",)


def test_entropies_are_not_there_in_bypass_mode():
    with pytest.raises(ValueError, match="needs the rollouts' entropies, which verl with these settings does not give"):
        asked_for({"estimator": "test_batch:third"}, rollout_correction={"bypass_mode": True})


def test_a_loss_that_averages_advantages_is_refused():
    actor = {"policy_loss": {"loss_mode": "geo_mean"}}
    config = OmegaConf.create({"algorithm": {"ktae": {}}, "actor_rollout_ref": {"actor": actor}})
    with pytest.raises(ValueError, match=r"loss_mode must be another .* got 'geo_mean'"):
        KTAETrainer(config)


def test_verls_own_trainer_does_not_ignore_the_settings():
    refuse_ignored_settings(["trainer.v1.trainer_mode=sync"])
    refuse_ignored_settings(["+algorithm.ktae.scale=2", "trainer.v1.trainer_mode=ktae_sync"])
    with pytest.raises(SystemExit, match="trainer_mode=sync does not read it"):
        refuse_ignored_settings(["+algorithm.ktae.scale=2", "trainer.v1.trainer_mode=sync"])
