"""slime's hook on its data structures, groups split over two processes. slime itself (Megatron, GPUs) is not run."""

from pathlib import Path

import pytest
import torch
from processes import TWO, start
from slime_worker import PROMPT, SAMPLES, arguments, batch
from torch.nn.utils.rnn import pad_sequence

import ktae
from ktae.integrations.slime import advantages, set_advantages

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs the gloo backend")


def values_by_hand(whole, **config):
    """Key-token values of the whole batch from padded tensors and the raw rewards."""
    return ktae.key_token_values(
        pad_sequence([tokens[PROMPT:] for tokens in whole["tokens"]], batch_first=True),
        pad_sequence(whole["loss_masks"], batch_first=True),
        torch.tensor(whole["raw"]),
        torch.tensor(whole["sample_indices"]) // 4,
        config=ktae.KTAEConfig(**config),
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """What two processes made of their shares."""
    folder = tmp_path_factory.mktemp("slime")
    start([*TWO, Path(__file__).with_name("slime_worker.py"), folder])
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.slow
def test_groups_split_over_processes_get_the_values_of_whole_groups(parts):
    whole = batch()
    value_NT = values_by_hand(whole, scale=0.5)
    assert (value_NT > 0.2).any()
    assert (value_NT < -0.1).any()
    assert sorted(parts[0][0] + parts[1][0]) == list(range(SAMPLES))
    assert {index // 4 for index in parts[0][0]} & {index // 4 for index in parts[1][0]}
    for mine, data in parts:
        for place, index in enumerate(mine):
            length, reward = whole["response_lengths"][index], whole["rewards"][index]
            wanted = torch.full((length,), reward) + value_NT[index, :length]
            torch.testing.assert_close(data["advantages"][place], wanted, rtol=0, atol=1e-6)
            torch.testing.assert_close(data["returns"][place], torch.full((length,), reward))


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_without_normalisation_the_raw_rewards_decide():
    data = batch()
    data["rewards"] = [1.0 if raw else 0.3 for raw in data["raw"]]
    set_advantages(arguments(rewards_normalization=False, ktae={"correct_above": 0.5}), data, None)
    value_NT = values_by_hand(data)
    for row, (values, reward) in enumerate(zip(data["advantages"], data["rewards"], strict=True)):
        torch.testing.assert_close(values, reward + value_NT[row, : len(values)], rtol=0, atol=1e-6)


@pytest.mark.usefixtures("one_process")
def test_the_data_parallel_group_is_megatrons():
    mpu = pytest.importorskip("megatron.core", reason="needs megatron-core, which slime has").mpu
    mpu.initialize_model_parallel()
    try:
        data, wanted = batch(), batch()
        advantages(arguments(), data)
        set_advantages(arguments(), wanted, None)
    finally:
        mpu.destroy_model_parallel()
    assert all(map(torch.equal, data["advantages"], wanted["advantages"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"advantage_estimator": "gspo"}, "--advantage-estimator must be grpo .* got 'gspo'"),
        ({"context_parallel_size": 2}, "--context-parallel-size must be 1 .* got 2"),
        ({"ktae": {"correct_above": 0.5}}, "correct_above must be 0 .* got 0.5"),
        ({"ktae": {"scale": "much"}}, "ktae.scale must be a finite number"),
        ({"ktae": {"scael": 2}}, "ktae.scael is unknown; ktae may hold preset, estimator, fisher_weight"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        set_advantages(arguments(**changes), batch(), None)
