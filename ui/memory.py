"""Memory of a server that many threads work in.

glibc gives threads arenas of their own, up to eight a core, and what one of them frees no other can
use. A search or an answer takes tens of megabytes for a moment, in whichever thread serves it: so a
server grew from 0.3 to 1.1 GB in minutes. With one arena it is flat (benchmarks/README.md).
"""

import ctypes
import sys

_M_ARENA_MAX = -8  # malloc.h


def use_one_arena() -> None:
    """Let all threads allocate from one arena; call it before there are threads. glibc only."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
