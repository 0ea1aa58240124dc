"""The line before the model: one answer at a time, clients in turn, a bounded number waiting."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from ui.errors import RequestTimeout, ServiceBusy

# How often a waiting request looks whether its client has gone: four times a second is nothing
# beside an answer, and nobody notices a quarter of a second in a queue.
LOOK_S = 0.25
SHARE = 4  # one client takes a quarter of the places, or a busy one would shut out all others


class Ticket:
    """A place in the line."""

    def __init__(self, client: str) -> None:
        self.client = client


class AnswerQueue:
    """Lets one ticket in at a time, clients by turns.

    Ten questions of one client do not make another's first question wait for all ten.
    """

    def __init__(self, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[Ticket]] = OrderedDict()
        self._inside: Ticket | None = None

    @property
    def n_waiting(self) -> int:
        """Tickets in the line, without the one that is being served."""
        with self._changed:
            return sum(map(len, self._waiting.values()))

    def join(self, client: str) -> Ticket:
        """Take a place; ServiceBusy if the line is full, or full of this client's."""
        ticket = Ticket(client)
        with self._changed:
            if self._inside is None and not self._waiting:
                self._inside = ticket
                return ticket
            if sum(map(len, self._waiting.values())) >= self._most_waiting:
                raise ServiceBusy(
                    f"{self._most_waiting} questions are waiting already; try again in a minute"
                )
            n_own = len(self._waiting.get(client, ()))
            if n_own >= max(1, self._most_waiting // SHARE):
                raise ServiceBusy(
                    f"{n_own} of your questions are waiting already; try again when one is answered"
                )
            self._waiting.setdefault(client, deque()).append(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give the place back, whether served or still in the line; a second time does nothing."""
        with self._changed:
            if self._inside is ticket:
                self._inside = None
                self._admit()
            elif ticket in self._waiting.get(ticket.client, ()):
                self._waiting[ticket.client].remove(ticket)
                if not self._waiting[ticket.client]:
                    del self._waiting[ticket.client]
            self._changed.notify_all()

    def _admit(self) -> None:
        if not self._waiting:
            return
        client, tickets = next(iter(self._waiting.items()))
        self._inside = tickets.popleft()
        self._waiting.move_to_end(client)
        if not tickets:
            del self._waiting[client]

    def position(self, ticket: Ticket) -> int:
        """Count of tickets that are served before this one, the present one included; 0: its turn.

        A ticket that has left is at 0, too.
        """
        with self._changed:
            if self._inside is ticket or ticket not in self._waiting.get(ticket.client, ()):
                return 0
            return 1 + self._order().index(ticket)

    def _order(self) -> list[Ticket]:
        queues = [deque(tickets) for tickets in self._waiting.values()]
        order: list[Ticket] = []
        while queues:
            order += [tickets.popleft() for tickets in queues]
            queues = [tickets for tickets in queues if tickets]
        return order

    def positions(
        self, ticket: Ticket, until: float, is_cancelled: Callable[[], bool]
    ) -> Iterator[int]:
        """Yield the position whenever it changes, and return once it is the ticket's turn.

        until  `time.monotonic()` at which RequestTimeout is raised
        Returns early when cancelled.
        """
        last = 0
        while (now := self.position(ticket)) and not is_cancelled():
            if now != last:
                yield now
                last = now
                continue
            if time.monotonic() > until:
                raise RequestTimeout("waited too long for its turn; try again later")
            with self._changed:
                self._changed.wait(LOOK_S)
