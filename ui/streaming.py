"""An answer in a thread of its own, its events in the server's loop; a gone client ends it."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from rag.records import Cancellation
from ui.requests import AskRequest, Event
from ui.service import Service

LOOK_S = 0.5  # how often to look whether the client is still there, also while events come


async def events(
    service: Service, request: AskRequest, is_gone: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[Event]:
    """Yield the events of `Service.ask`; raises what it raises.

    When the client is gone, or this is left early, the answer is cancelled, which frees the model
    within a token.
    """
    answer = _Answer(service, request)
    # Not the server's thread pool: waiting questions must not take the threads of searches.
    threading.Thread(target=answer.run, name="answer", daemon=True).start()
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
        answer.cancellation.cancel()


class _Answer:
    """One answer in the making; its events come through `queue`, None after the last."""

    def __init__(self, service: Service, request: AskRequest) -> None:
        self._service, self._request = service, request
        self._loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()
        self.cancellation = Cancellation()

    def run(self) -> None:
        try:
            for event in self._service.ask(self._request, self.cancellation):
                self._put(event)
        except BaseException as error:  # noqa: BLE001 - raised again in the loop
            self._put(error)
        else:
            self._put(None)

    def _put(self, item: Event | BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self.queue.put_nowait, item)
        except RuntimeError:  # the loop has closed: the server is going down
            self.cancellation.cancel()
