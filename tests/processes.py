"""Starts Python in processes of its own: one, or two that train together."""

import os
import subprocess
import sys
from pathlib import Path

ONE = [sys.executable]
# --standalone picks a free port.
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]


def start(command, *paths, environment=(), **options):
    """Runs a command that may have children of its own; what it printed, or a failed assertion.

    It can import what is in `tests`, beside that in `paths`.
    """
    paths = [*map(str, paths), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    ours = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    process = subprocess.Popen(
        list(map(str, command)),
        env=os.environ | ours | dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    try:
        output, _ = process.communicate(timeout=400)
    finally:
        process.terminate()  # which, unlike kill, ends the workers too; nothing happens where it is done already
    assert process.returncode == 0, output[-5000:]
    return output
