"""Which rows and tokens the verl adapter hands to the estimator, without Ray; and what it makes of `algorithm.ktae`."""

import oracle
import pytest

pytest.importorskip("verl.protocol", reason="verl is not installed; `make test-verl` has an environment with it")

import torch
from omegaconf import OmegaConf

from ktae.estimators import Rollouts
from ktae.integrations.credit import TokenCredit
from ktae.integrations.verl import (
    KTAETrainer,
    one_row_a_rollout,
    refuse_ignored_settings,
    token_advantages,
    token_credit,
)


def test_tool_output_rejected_tokens_and_padding():
    """The runs of test_run.py have the last two. Padding rows come last or in between."""
    ids = torch.tensor([[1, 2, 3], [9, 9, 9], [1, 4, 3], [5, 4, 2], [9, 9, 9]])
    generated = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]])
    trained_on = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0]])
    rewards, groups = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0]), torch.tensor([0, 1, 0, 0, 1])
    own, real = torch.tensor([[0.5], [0.0], [0.25], [-1.0], [0.0]]).expand(5, 3), [0, 2, 3]
    rollouts = Rollouts(ids, generated, rewards, groups, own[:, 0])
    advantages, metrics = token_advantages(TokenCredit(), rollouts, own, trained_on, [False, True, False, False, True])
    values = oracle.key_token_values(*(rows[real].numpy() for rows in (ids, generated, rewards, groups)))
    wanted = (own[real] + torch.from_numpy(values)) * trained_on[real]
    torch.testing.assert_close(advantages[real], wanted.float(), rtol=0, atol=1e-6)
    assert not advantages[[1, 4]].any()
    assert metrics["ktae/mixed_group_share"] == 1


def test_metrics_with_nothing_to_average_are_left_out():
    one = torch.ones(2, 1, dtype=torch.long)
    rollouts = Rollouts(one, one, torch.ones(2), torch.zeros(2).long(), torch.zeros(2))
    _, metrics = token_advantages(TokenCredit(), rollouts, torch.zeros(2, 1), one, [False, False])
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
    assert (asked_for(None).scale, asked_for({"exclude_token_ids": [151643], "scale": 2}).scale) == (1.0, 2)
    assert asked_for({"estimator": "test_batch:third"}).needs == ("entropies",)
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
