"""Which page a session opened last: choices are plain requests, and come and end in any order."""

import threading
from collections.abc import Iterator

MOST_OPENED = 64  # pages on the way to their heatmaps: each holds its image
MOST_SESSIONS = 4096  # whose last choice is known by its number


class Opened:
    """The page each session chose last, which comes in two parts; older choices give way to it.

    Those of browsers that have gone are dropped, the oldest first: nobody asks for their rest.
    """

    def __init__(self) -> None:
        self._newest: dict[str, Iterator[str]] = {}
        self._rest: dict[str, Iterator[str]] = {}  # of those whose first part was shown
        self._numbers: dict[str, int] = {}  # of the last choices
        self._lock = threading.Lock()

    def first(self, session: str, parts: Iterator[str], number: int = 0) -> str | None:
        """Return the first part, or None where a page of a higher number was chosen meanwhile."""
        with self._lock:
            last = self._numbers.pop(session, number)
            self._numbers[session] = max(last, number)
            if len(self._numbers) > MOST_SESSIONS:
                del self._numbers[next(iter(self._numbers))]
            if number < last:
                return None
            self._close(session)
            self._newest[session] = parts
            if len(self._newest) > MOST_OPENED:
                self._close(next(iter(self._newest)))
        shown = next(parts)
        with self._lock:
            if self._newest.get(session) is not parts:
                return None
            self._rest[session] = parts
        return shown

    def rest(self, session: str) -> str | None:
        """Return the second part of what was chosen last; None if there is none to be shown."""
        with self._lock:
            parts = self._rest.pop(session, None)
        if parts is None:
            return None
        shown = next(parts, None)
        with self._lock:
            if self._newest.get(session) is not parts:
                return None
            self._close(session)
        return shown

    def close(self, session: str) -> None:
        """Show no more of what was chosen."""
        with self._lock:
            self._close(session)

    def _close(self, session: str) -> None:
        self._newest.pop(session, None)
        self._rest.pop(session, None)
