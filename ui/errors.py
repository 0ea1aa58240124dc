"""Errors of the server.

ServerError
├── ServiceBusy      the queue is full, or another job is running
├── RequestTimeout   a request took longer than it may
├── NotAllowed       a path, file or size that this server does not accept
├── NotKept          a file could not be written, as on a full disk
└── NotReady         the model is still being opened, or cannot be
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from rag.errors import ExpectedError as RagError
from rag.records import IndexMissing


class ServerError(Exception):
    """Base of every error the server raises for a cause outside our code."""


class ServiceBusy(ServerError):
    """The queue is full or a job is running; try again later."""


class RequestTimeout(ServerError):
    """A request took longer than it may; ask for less, or again when fewer are waiting."""


class NotAllowed(ServerError):
    """A path, file or size that this server does not accept; the message says which."""


class NotKept(ServerError):
    """A file that was sent could not be written; make room and send it again."""


class NotReady(ServerError):
    """The model is still being opened, or could not be; the message says what to do."""


# What the server answers with one line; anything else is our bug.
ExpectedError = (ServerError, *RagError)

# What is said of our bugs, whose traceback goes to the log.
OUR_FAULT = "an error of the server; its log has the cause"

# A path may have spaces, commas and brackets in it, so it goes on to the last slash before a quote,
# a colon or another path: rather too much is taken out than too little.
_PATH = re.compile(
    r"""(?:^|(?<=[\s'"`(\[<=:,;]))(?:[A-Za-z]:)?[/\\](?=[^\s'"`])
    (?:(?:(?!:\s|,\s(?:[A-Za-z]:)?[/\\])[^'"`\n])*[/\\])?
    (?:[^\s'"`,;:)\]>]*)""",
    re.VERBOSE | re.MULTILINE,
)


def public(message: str) -> str:
    """Return a message for a client: of every path of this machine's disk only the last part."""
    return _PATH.sub(lambda found: re.split(r"[/\\]", found[0])[-1] or "…", message)


def error_body(path: str, status: int, line: str) -> dict[str, object]:
    """Return what says in JSON what went wrong, as the clients of a path read it."""
    return openai_error(status, line) if path.startswith("/v1/") else {"error": line}


def openai_error(status: int, line: str) -> dict[str, object]:
    """Return what OpenAI's clients make an error of."""
    kind = "server_error" if status >= 500 or status == 429 else "invalid_request_error"
    return {"error": {"message": line, "type": kind, "param": None, "code": None}}


@contextmanager
def for_clients() -> Iterator[None]:
    """Let errors say nothing of this machine's disk, and say the usual ones better."""
    try:
        yield
    except IndexMissing:
        raise IndexMissing("nothing is indexed yet; add documents first") from None
    except ServerError:
        raise
    except ExpectedError as error:
        raise type(error)(public(str(error))) from error
