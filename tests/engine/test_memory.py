"""What is asked of the C library, so that threads leave less memory behind."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from napari_mamba.engine import memory

HEAPS = """
import ctypes, sys, threading
from napari_mamba.engine.memory import keep_one_heap
libc = ctypes.CDLL(None)
libc.fopen.restype = libc.malloc.restype = ctypes.c_void_p
libc.fopen.argtypes, libc.malloc_info.argtypes = [ctypes.c_char_p] * 2, [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]

def heaps():
    file = libc.fopen(sys.argv[2].encode(), b"w")
    libc.malloc_info(0, file), libc.fclose(file)
    return open(sys.argv[2]).read().count("<heap nr=")

if sys.argv[1] == "one":
    assert keep_one_heap()
before, together = heaps(), threading.Barrier(6)

def use():
    libc.malloc(1000)
    together.wait()

threads = [threading.Thread(target=use) for _ in range(6)]
[one.start() for one in threads], [one.join() for one in threads]
print(heaps() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other heaps")
@pytest.mark.parametrize("kept", ["one", "all"])
def test_threads_share_the_heaps_that_there_are(tmp_path, kept):
    line = [sys.executable, "-c", HEAPS, kept, str(tmp_path / "heaps.xml")]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert (int(done.stdout) == 0) == (kept == "one")


def test_where_the_library_has_no_such_function_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.keep_one_heap()
    memory.give_back_freed()
