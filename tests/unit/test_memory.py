"""A server's threads share one arena of glibc's."""

import ctypes
import subprocess
import sys

import pytest

COUNT = """
import ctypes, sys, threading
from ui.memory import use_one_arena
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
if sys.argv[1] == "one":
    use_one_arena()
barrier = threading.Barrier(4)
def work():
    barrier.wait()
    libc.malloc(100_000)
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
sys.stdout.flush()
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="glibc only")
def test_threads_share_one_arena():
    def arenas(how: str) -> int:
        command = [sys.executable, "-c", COUNT, how]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.count(
            "<heap nr="
        )

    assert arenas("many") > 1
    assert arenas("one") == 1
