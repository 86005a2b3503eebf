"""Ray Data on local Ray processes: the same scores as `ktae score`."""

import numpy as np
import pytest

pytest.importorskip("ray.data", reason="needs Ray: pip install 'ktae[ray]'")
pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
import ray

import ktae
from ktae.cli import main
from ktae.files.columns import Columns
from ktae.report.ray_data import score

# Ray's own, about its settings and about sockets that it leaves to the garbage collector.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

COLUMNS = Columns(group=("step", "uid"), reward="reward", tokens="token_ids")


@pytest.fixture(scope="module")
def local_ray():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    ray.data.DataContext.get_current().default_hash_shuffle_parallelism = 2  # not 200
    yield
    ray.shutdown()


@pytest.fixture
def path(tmp_path):
    """Groups spread over the blocks of two files."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "step": i % 2,
            "uid": f"g{i % 7}",
            "token_ids": rng.integers(0, 9, rng.integers(1, 12)).tolist(),
            "reward": [0.0, 1.0, None][i % 3] if i % 5 else 1.0,
            "place": i,
        }
        for i in range(80)
    ]
    folder = tmp_path / "rollouts"
    folder.mkdir()
    for number, part in enumerate((rows[:33], rows[33:])):
        pq.write_table(pa.Table.from_pylist(part), folder / f"{number}.parquet", row_group_size=10)
    return folder


def test_same_as_the_command(local_ray, path, tmp_path):
    config = ktae.KTAEConfig(scale=0.5)
    out = tmp_path / "scores.parquet"
    arguments = ["--group-columns", "step", "uid", "--set", "scale=0.5", "--out", str(out)]
    assert main(["score", str(path), *arguments]) == 0
    expected = {row["place"]: row for row in pq.read_table(out).to_pylist()}
    rows = score(ray.data.read_parquet(str(path)), COLUMNS, config=config).take_all()
    assert sorted(row["place"] for row in rows) == sorted(expected)
    assert any(value != 0 for row in rows for value in row["key_token_values"])
    for row in rows:
        wanted = expected[row["place"]]
        del wanted["rollout_row"]
        assert {name: list(v) if isinstance(v, np.ndarray) else v for name, v in row.items()} == wanted


def test_mistakes(local_ray, path):
    dataset = ray.data.read_parquet(str(path))
    with pytest.raises(ValueError, match="columns must be among step, uid, token_ids, reward, place, got mask"):
        score(dataset, Columns(group=("uid",), reward="reward", tokens="token_ids", mask="mask"))
    with pytest.raises(TypeError, match="config must be a KTAEConfig"):
        score(dataset, COLUMNS, config=0.5)
