"""A folder's lock: one writer at a time, and a killed one is no obstacle."""

import os
import re
import signal
import subprocess
import sys

import pytest

from ktae.files.locks import locked

HOLD = """
import multiprocessing, os, sys, time
from pathlib import Path
from ktae.files.locks import locked
def work():
    print(os.getpid(), flush=True)  # itself: until it runs, it holds what its parent holds
    time.sleep(60)
with locked(Path(sys.argv[1])):
    multiprocessing.get_context("fork").Process(target=work).start()
    time.sleep(60)
"""


def test_a_second_writer_is_told_who_holds_the_lock_and_a_killed_one_is_no_obstacle(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    worker = int(first.stdout.readline())
    told = rf"{re.escape(str(tmp_path))} is being written to by process {first.pid} on .+ since 2"
    try:
        with pytest.raises(BlockingIOError, match=told), locked(tmp_path):
            pass
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        os.kill(worker, 0)  # an orphan that goes on does not keep the lock
        for _ in range(2):  # nor does an error, and a second call in this process gets none
            with (
                pytest.raises(BlockingIOError, match=f"by process {os.getpid()} on"),
                locked(tmp_path),
                locked(tmp_path),
            ):
                pass
    finally:
        os.kill(worker, signal.SIGKILL)
        first.kill()
        first.stdout.close()
