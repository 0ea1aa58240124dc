"""Ctrl-C at a moment that suits the program: between two writes, not within one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Hold Ctrl-C back until the block is left; KeyboardInterrupt is raised then.

    Python delivers signals to the main thread only, so other threads have nothing to hold back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: taken.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if taken:
        raise KeyboardInterrupt
