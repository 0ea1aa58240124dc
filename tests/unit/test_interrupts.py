import os
import signal
import threading

import pytest

from rag.interrupts import interrupts_later, terminate_like_ctrl_c


@pytest.fixture(autouse=True)
def python_takes_ctrl_c():
    """A runner started in the background ignores SIGINT; the program under test does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_later():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("the rest of the block")
    assert done == ["the rest of the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_block_comes_first():
    with pytest.raises(ValueError, match="disk"), interrupts_later():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("disk")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_hold_nothing_back():
    entered = []

    def work() -> None:
        with interrupts_later():
            entered.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [signal.default_int_handler]


def test_sigterm_is_ctrl_c_also_in_the_background():
    before = signal.getsignal(signal.SIGTERM)
    try:
        terminate_like_ctrl_c()
        with pytest.raises(KeyboardInterrupt), interrupts_later():
            os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
