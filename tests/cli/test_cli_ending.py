"""The end of a process that used a GPU: nothing that was begun is lost."""

from __future__ import annotations

import subprocess
import sys

USED = "fake.cuda = types.SimpleNamespace(is_initialized=lambda: True); sys.modules['torch'] = fake"
PROCESS = """
import atexit, sys, time, types
from concurrent.futures import ThreadPoolExecutor
fake = types.ModuleType("torch")
fake.cuda = types.SimpleNamespace(is_initialized=lambda: False); sys.modules['torch'] = fake
{used}
pool = ThreadPoolExecutor(1)
atexit.register(print, "at exit")
pool.submit(lambda: (time.sleep(0.2), print("the thread", end=" ")))
print("begun", end=" ")
from napari_mamba.cli.ending import leave
leave(3)
"""


def test_threads_registered_functions_and_streams_come_to_their_end():
    for used in ("", USED):
        done = subprocess.run([sys.executable, "-c", PROCESS.format(used=used)], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (3, "begun the thread at exit\n", "")
