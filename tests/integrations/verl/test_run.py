"""verl's own command line, from Ray to the optimizer, on CPU: what the trainer got, computed and trained on.

The advantages are recomputed by the slow oracle from the token ids that the rollout server says it generated.
"""

import functools
import os
import subprocess
import sys

import numpy as np
import oracle
import pytest

pytest.importorskip("verl.protocol", reason="verl is not installed; `make test-verl` has an environment with it")

import launch

pytestmark = pytest.mark.slow

KTAE_SYNC = ("trainer.v1.trainer_mode=ktae_sync", "algorithm.adv_estimator=grpo")
SETTINGS = (*KTAE_SYNC, "+algorithm.ktae.information_gain_weight=2", "+algorithm.ktae.exclude_token_ids=[3,257]")
ORACLE = {"information_gain_weight": 2.0, "exclude_token_ids": (3, 257)}
CORRECTION = (
    *("trainer.v1.trainer_mode=ktae_sync", "algorithm.adv_estimator=rloo"),
    *("+algorithm.ktae.preset=recommended", "+algorithm.ktae.scale=2.0"),
    *("algorithm.rollout_correction.rollout_rs=token_k1", "algorithm.rollout_correction.rollout_rs_threshold=0.5_2.0"),
    *("algorithm.rollout_correction.rollout_is=token", "algorithm.filter_groups.enable=True"),
)
ESTIMATOR = (
    *(*KTAE_SYNC, "+algorithm.ktae.estimator=parity:later_is_better", "+algorithm.ktae.states=parity:place"),
    *("data.train_batch_size=2", "trainer.total_training_steps=1"),
)
BY_NAME = {"modules": "cpu_platform,spy,ktae.integrations.verl", "VERL_USE_EXTERNAL_PLUGINS": "none"}
RUNS = {
    "one_rank": (SETTINGS, {}),
    "two_ranks": (SETTINGS, {"ranks": 2}),
    # The trainer loaded by its module's name instead of the entry point, and all that may change masks and groups.
    "corrected": (CORRECTION, {**BY_NAME, "KTAE_TEST_MISMATCH": "every third"}),
    "estimator": (ESTIMATOR, {}),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    launch.make_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    """One of `RUNS` by its name, at the first call."""

    @functools.cache
    def once(name):
        settings, options = RUNS[name]
        done = launch.launch(inputs, tmp_path_factory.mktemp(name), *settings, **options)
        assert done.returncode == 0, done.output[-5000:]
        return done

    return once


def real_rows(step):
    """Per rollout that verl did not add as padding: what the spy saw, as lists, and the server's row for it."""
    keep = [row for row, padding in enumerate(step["padding"]) if not padding]
    uids = step["generated"]["uid"]
    rows = {
        name: {field: [rows[row].tolist() for row in keep] for field, rows in step[name].items() if field != "uid"}
        for name in ("generated", "estimator", "actor")
    }
    return {
        **rows,
        "rewards": [sum(x) for x in rows["generated"]["rm_scores"]],
        "groups": [uids.index(uids[row]) for row in keep],
    }


def oracle_advantages(rows, rollout_advantages, **config):
    """(A + K) * mask from the ids, masks, rewards and uids before verl's step, per row."""
    generated = rows["generated"]
    lengths = [len(ids) for ids in generated["responses"]]
    ids, mask, final = (
        np.array([row + [0] * (max(lengths) - len(row)) for row in lists])
        for lists in (generated["responses"], generated["response_mask"], rows["actor"]["response_mask"])
    )
    rewards, groups = rows["rewards"], rows["groups"]
    values = oracle.key_token_values(ids, mask, rewards, groups, **config)
    advantages = (np.array(rollout_advantages(rewards, groups))[:, None] + values) * final
    return [row[:length] for row, length in zip(advantages, lengths, strict=True)], values


def assert_close(rows, expected):
    for row, row_expected in zip(rows, expected, strict=True):
        np.testing.assert_allclose(row, row_expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["one_rank", "two_ranks"])
@pytest.mark.parametrize("number", [1, 2])
def test_the_actor_trains_on_grpo_plus_key_token_values(name, number, run):
    step = run(name).step(number)
    rows = real_rows(step)
    assert step["trainer"] == "ktae.integrations.verl.KTAETrainer"
    assert step["ranks"] == (2 if name == "two_ranks" else 1)
    assert set(rows["rewards"]) == {0.0, 1.0}
    assert sorted(map(rows["groups"].count, set(rows["groups"]))) == [4, 4, 4]

    expected, values = oracle_advantages(rows, oracle.grpo, **ORACLE)
    assert_close(rows["actor"]["advantages"], expected)
    # verl's own are the rollout advantages, and the actor's differ from them.
    rollout = oracle.grpo(rows["rewards"], rows["groups"])
    assert_close(rows["estimator"]["advantages"], [[a] * len(row) for a, row in zip(rollout, expected, strict=True)])
    assert np.count_nonzero(np.abs(values) > 0.1) > 20
    assert rows["actor"]["returns"] == rows["estimator"]["returns"]
    assert step["metrics"]["ktae/seconds"] > 0


@pytest.mark.parametrize("name", ["one_rank", "two_ranks", "corrected"])
def test_rows_are_those_the_server_generated_and_weights_move_and_reach_it(name, run):
    server = run(name).server()
    sampled = {(tuple(row["prompt_ids"]), tuple(row["token_ids"])) for row in server if "token_ids" in row}
    for number in (1, 2):
        generated = real_rows(run(name).step(number))["generated"]
        assert set(zip(*(map(tuple, generated[part]) for part in ("prompts", "responses")), strict=True)) <= sampled
    assert name == "corrected" or len(sampled) == 24, "corrected drops groups"
    first, *later = [row for row in server if "update" in row]
    assert first["moved"] == 0
    assert [row["update"] for row in later] == [1, 2]
    assert all(row["moved"] > 1e-3 for row in later)


def test_padding_rows_get_nothing_and_count_nowhere(run):
    """12 rollouts in mini-batches of 8: verl adds 4 rows. Among the values above they changed nothing."""
    step = run("one_rank").step(1)
    padding = [row for row, is_padding in enumerate(step["padding"]) if is_padding]
    assert len(padding) == 4
    assert all(not step["actor"]["advantages"][row].any() for row in padding)
    for name in ("key_token_share", "abs_value_correct", "abs_value_incorrect", "mixed_group_share", "seconds"):
        assert f"ktae/{name}:" in run("one_rank").output


@pytest.mark.parametrize("number", [1, 2])
def test_rejected_tokens_count_in_the_tables_and_are_not_trained_on(run, number):
    step = run("corrected").step(number)
    rows = real_rows(step)
    generated, trained_on = (np.concatenate(rows[name]["response_mask"]) for name in ("generated", "actor"))
    assert generated.all()
    assert 0.2 < trained_on.mean() < 0.8  # every third token was rejected
    expected, values = oracle_advantages(rows, oracle.rloo, context=2, term_frequency_weight=0.0, scale=2.0)
    assert_close(rows["actor"]["advantages"], expected)
    assert np.count_nonzero(np.abs(values) > 0.1) > 3
    # filter_groups leaves groups with correct and incorrect rollouts only.
    assert step["metrics"]["ktae/mixed_group_share"] == 1.0


def test_an_estimator_by_import_path(run):
    rows = real_rows(run("estimator").step(1))
    own = oracle.grpo(rows["rewards"], rows["groups"])
    wanted = [a + 0.1 * np.arange(len(row)) for a, row in zip(own, rows["actor"]["advantages"], strict=True)]
    assert_close(rows["actor"]["advantages"], wanted)


def test_settings_that_nobody_reads_stop_the_run(inputs, tmp_path):
    done = launch.launch(inputs, tmp_path, "+algorithm.ktae.scale=2")
    assert done.returncode != 0
    assert "ktae is set, and the default trainer.v1.trainer_mode does not read it" in done.output
    assert not (tmp_path / "server.jsonl").exists()


def test_an_installed_ktae_changes_nothing_of_verls(tmp_path):
    """Only a name is registered."""
    code = """
import verl
from verl.trainer.ppo import ray_trainer, v1
from verl.trainer.ppo.v1 import get_trainer_cls, trainer_base
assert get_trainer_cls("ktae_sync").__module__ == "ktae.integrations.verl"
for module in (ray_trainer, v1, trainer_base):
    for name, value in list(vars(module).items()):
        for place in (value, *(vars(value).values() if isinstance(value, type) else ())):
            if str(getattr(place, "__module__", "")).startswith("ktae"):
                print(module.__name__, name, place)
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout == ""


def test_a_failed_import_is_visible(tmp_path):
    """verl swallows what an entry point raises; without our warning the trainer would just be unknown."""
    (tmp_path / "transfer_queue.py").write_text("raise ImportError('a broken installation')")
    code = "import verl; from verl.trainer.ppo.v1 import get_trainer_cls"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "VERL_USE_EXTERNAL_MODULES": ""}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True)
    assert "trainer.v1.trainer_mode=ktae_sync will be unknown: ImportError: a broken installation" in done.stderr
