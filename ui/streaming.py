"""An answer in a thread of its own, its events in the server's loop; a gone client ends it."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Generic, TypeVar

from rag.records import Cancellation
from ui.requests import AskRequest, Event
from ui.service import Service

T = TypeVar("T")
SILENCE_S = 15.0  # of an event stream; proxies wait for 30 s and more
LOOK_S = 0.5  # how often to look whether the client is still there, also while events come


async def events(
    service: Service, request: AskRequest, is_gone: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[Event]:
    """Yield the events of `Service.ask`; raises what it raises.

    When the client is gone, or this is left early, the answer is cancelled, which frees the model
    within a token.
    """
    cancellation = Cancellation()
    answer = _Feed(lambda: service.ask(request, cancellation), cancellation)
    answer.start()
    looked = time.monotonic()
    try:
        while True:
            try:
                item, has_come = await asyncio.wait_for(answer.queue.get(), LOOK_S), True
            except TimeoutError:
                item, has_come = None, False
            if time.monotonic() - looked > LOOK_S:
                if await is_gone():
                    return
                looked = time.monotonic()
            if not has_come:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        cancellation.cancel()


async def in_own_thread(
    produce: Callable[[], Iterator[T]], cancellation: Cancellation
) -> AsyncGenerator[T]:
    """Yield what a generator yields, run in a thread of its own; cancel it when this is left.

    It runs one step ahead at most, so that what is stopped stops at once.
    """
    feed = _Feed(produce, cancellation, n_ahead=1)
    feed.start()
    try:
        while (item := await feed.queue.get()) is not None:
            feed.has_room.release()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        feed.is_left = True
        cancellation.cancel()


async def kept_alive(lines: AsyncIterator[str]) -> AsyncGenerator[str]:
    """Yield lines of an event stream, and a comment wherever none has come for a while.

    A question waits for minutes: a proxy, or its client, would take the silence for an end.
    """
    coming: asyncio.Future[str | None] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(lines, None))
            await asyncio.wait({coming}, timeout=SILENCE_S)
            if not coming.done():
                yield ": wait\n\n"
                continue
            line, coming = coming.result(), None
            if line is None:
                return
            yield line
    finally:
        if coming is not None:
            coming.cancel()


class _Feed(Generic[T]):
    """A generator at work; what it yields comes through `queue`, None after the last.

    n_ahead  steps it may be ahead; 0: any, as where a slow client must not keep the model
    """

    def __init__(
        self, produce: Callable[[], Iterator[T]], cancellation: Cancellation, n_ahead: int = 0
    ) -> None:
        self._produce, self._cancellation = produce, cancellation
        self._loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[T | BaseException | None] = asyncio.Queue()
        self.has_room, self._is_bounded = threading.Semaphore(n_ahead), n_ahead > 0
        self.is_left = False

    def start(self) -> None:
        # Not the server's thread pool: waiting questions must not take the threads of searches.
        threading.Thread(target=self._run, name="answer", daemon=True).start()

    def _run(self) -> None:
        try:
            for event in self._produce():
                self._put(event)
        except BaseException as error:  # noqa: BLE001 - raised again in the loop
            self._put(error)
        else:
            self._put(None)

    def _put(self, item: T | BaseException | None) -> None:
        while self._is_bounded and not self.has_room.acquire(timeout=LOOK_S):
            if self.is_left:
                return
        try:
            self._loop.call_soon_threadsafe(self.queue.put_nowait, item)
        except RuntimeError:  # the loop has closed: the server is going down
            self._cancellation.cancel()
