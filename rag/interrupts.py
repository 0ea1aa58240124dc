"""Ctrl-C at a moment that suits the program: between two writes, not within one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def terminate_like_ctrl_c() -> None:
    """Have SIGTERM, as `kill` and service managers send it, do what Ctrl-C does: keep and say."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _as_ctrl_c)


def _as_ctrl_c(_: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # ignored, as in a job of the shell's background
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


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
