import multiprocessing
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from ktae.files.locks import locked

HOLD = """
import multiprocessing, sys, time
from pathlib import Path
from ktae.files.locks import locked
with locked(Path(sys.argv[1])):
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    print(worker.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_second_writer_is_told_who_holds_the_lock_and_a_killed_one_is_no_obstacle(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    worker = int(first.stdout.readline())
    try:
        with (
            pytest.raises(OSError, match=rf"run is being written to by process {first.pid} on .+ since 2"),
            locked(path),
        ):
            pass
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        os.kill(worker, 0)  # an orphan that goes on does not keep the lock
        with locked(path):
            assert str(os.getpid()) in (path / ".lock").read_text()
        assert not (path / ".lock").exists()
    finally:
        os.kill(worker, signal.SIGKILL)
        first.kill()
        first.stdout.close()


def test_the_lock_is_not_shared_within_a_process_and_freed_after_an_error(tmp_path):
    path = tmp_path / "out.parquet"
    for _ in range(2):
        with pytest.raises(BlockingIOError, match=re.escape(str(path))), locked(path), locked(path):
            pass


def _write_often(folder, times):
    while times:
        with suppress(BlockingIOError), locked(folder / "out"):
            (folder / "inside").touch(exist_ok=False)
            (folder / "inside").unlink()
            times -= 1


@pytest.mark.slow
def test_of_many_writers_one_is_inside_at_a_time(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_often, args=(tmp_path, 300)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []
