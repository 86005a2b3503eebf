"""The scripts in recipes/verl, as far as that goes without GPUs: verl's own composition and validation of each."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("verl.protocol", reason="verl is not installed; `make test-verl` has an environment with it")

import pandas as pd
from hydra import compose, initialize_config_module
from verl.experimental.reward_loop.reward_manager.dapo import DAPORewardManager
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.trainer.ppo.v1 import PPOTrainerSync, get_trainer_cls
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.utils.import_utils import load_extern_object

from ktae.integrations.verl import KTAETrainer, token_credit

RECIPES = Path(__file__).parents[3] / "recipes" / "verl"
ALGORITHMS = ("grpo", "grpo_ktae", "dapo", "dapo_ktae")


@pytest.fixture
def composed(tmp_path):
    """Runs a script with a Python that prints its arguments, and composes verl's configuration from them."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)

    def compose_script(name, *arguments, **environment):
        done = subprocess.run(
            [RECIPES / f"{name}.sh", *arguments],
            env={"PATH": "/usr/bin:/bin", "PYTHON": str(python), **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        module, target, *overrides = done.stdout.splitlines()
        assert (module, target) == ("-m", "verl.trainer.main_ppo")
        with initialize_config_module("verl.trainer.config", version_base=None):
            return compose("ppo_trainer", overrides=overrides)

    return compose_script


@pytest.mark.parametrize("name", ALGORITHMS)
def test_verl_accepts_the_configuration(name, composed):
    config = composed(name)
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    assert not need_critic(config)
    assert need_reference_policy(config) == name.startswith("grpo")
    assert config.data.train_batch_size * config.actor_rollout_ref.rollout.n == 1024 * 16
    assert config.trainer.experiment_name == name
    is_ktae = name.endswith("ktae")
    assert get_trainer_cls(config.trainer.v1.trainer_mode) is (KTAETrainer if is_ktae else PPOTrainerSync)
    assert ("ktae" in config.algorithm) == is_ktae
    assert not is_ktae or token_credit(config).scale == 1.0
    if name.startswith("dapo"):
        assert PPOTrainerSync._resolve_filter_groups_metric(SimpleNamespace(config=config)) == "acc"
        manager = DAPORewardManager(config, tokenizer=None, compute_score=lambda: None)
        assert (manager.max_resp_len, manager.overlong_buffer_cfg.len) == (3072, 512)
        assert manager.overlong_buffer_cfg.enable
        assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.loss_agg_mode) == (0.2, 0.28, "token-mean")


def test_environment_and_arguments_override(composed):
    arguments = ("trainer.total_epochs=1", "+algorithm.ktae.scale=2.0")
    config = composed("dapo_ktae", *arguments, MODEL="a/model", NNODES="2", GPUS_PER_NODE="4")
    assert config.actor_rollout_ref.model.path == "a/model"
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node, config.trainer.total_epochs) == (2, 4, 1)
    assert token_credit(config).scale == 2.0


def test_prepared_problems_become_verls_rows_and_are_graded(tmp_path):
    problem = {"prompt": [{"role": "user", "content": "What is a half?"}], "answers": ["\\frac{1}{2}", "0.5"]}
    problem |= {"id": "7", "source": "math", "level": 3}
    (tmp_path / "in.jsonl").write_text(json.dumps(problem) + "\n")
    command = [sys.executable, RECIPES / "to_parquet.py", tmp_path / "in.jsonl", tmp_path / "out.parquet"]
    subprocess.run(command, check=True)
    [row] = pd.read_parquet(tmp_path / "out.parquet").to_dict("records")
    assert list(row["prompt"]) == problem["prompt"]
    assert row["extra_info"] == {"id": "7"}

    compute_score = load_extern_object(str(RECIPES / "reward.py"), "compute_score")
    ground_truth = row["reward_model"]["ground_truth"]
    scores = [
        compute_score(data_source=row["data_source"], solution_str=text, ground_truth=ground_truth, extra_info={})
        for text in (r"It is \boxed{\frac12}.", r"It is \boxed{0.50}.", r"It is \boxed{2}.", "No idea.")
    ]
    assert scores == [1.0, 1.0, 0.0, 0.0]
