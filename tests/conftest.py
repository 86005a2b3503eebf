import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch is loaded, as in the command line: idle threads that spin starve each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Modules of the experiments, which are no packages, are imported by their names.
sys.path += [str(Path(__file__).parents[1] / "experiments" / name) for name in ("replication", "credit")]

settings.register_profile("local", deadline=None, max_examples=100)
settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def shared():
    """The folder of real data, golden files included, that lies next to the repository."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(f"needs the shared data folder, and there is none at {path}")
    return path


@pytest.fixture(scope="module", params=["tensors", "compiled"])
def both_paths(request):
    """Runs a module's tests with the tensor path, then with the compiled one."""
    from ktae import kernels

    with pytest.MonkeyPatch.context() as patch:
        if request.param == "tensors":
            patch.setattr(kernels, "usable", lambda tensor: False)
        else:
            pytest.importorskip("numba")
        yield request.param
