"""What is asked of the server and what it says while it answers: frozen records, no behaviour."""

from dataclasses import dataclass, field
from pathlib import Path

from rag.answer import Answer, Turn
from rag.page_choice import PageRef
from rag.records import Filters, PageHit
from rag.settings import Mode
from rag.words import LONGEST_QUESTION
from ui.jobs import IngestProgress


@dataclass(frozen=True)
class ServiceLimits:
    """What one server takes on.

    answer_s   wall time of one answer, from its turn on; wait_s: of waiting for that turn
    open_s     a request waits for a model that is still being opened
    """

    most_waiting: int = 32
    answer_s: float = 600.0
    wait_s: float = 900.0
    open_s: float = 30.0
    upload_bytes: int = 200_000_000
    question_characters: int = LONGEST_QUESTION
    top_k: int = 50
    pages: int = 16
    neighbours: int = 4
    new_tokens: int = 2048
    turns: int = 40


@dataclass(frozen=True)
class SearchRequest:
    """What to look for; None: as the settings say."""

    text: str
    image: Path | None = None
    mode: Mode | None = None
    top_k: int | None = None
    filters: Filters = Filters()


@dataclass(frozen=True)
class AskRequest:
    """What to answer; None: as suits the model. `client` takes turns with other clients."""

    question: str
    history: tuple[Turn, ...] = ()
    kept: tuple[PageRef, ...] = ()
    pages: int | None = None
    neighbours: int = 0
    max_new_tokens: int | None = None
    generate: bool = False  # let the model write, also where it is to quote
    top_k: int | None = None
    mode: Mode | None = None
    filters: Filters = Filters()
    client: str = ""


@dataclass(frozen=True)
class Queued:
    """So many answers come before this one."""

    position: int


@dataclass(frozen=True)
class Found:
    """What retrieval found, before any word of the answer.

    pages      the model is going to read; abstained: none, nothing here answers
    seconds    encoding and searching
    """

    hits: tuple[PageHit, ...]
    pages: tuple[PageRef, ...]
    abstained: bool
    seconds: float


@dataclass(frozen=True)
class Stage:
    """What begins now: "reading" or "writing"; seconds since the question came."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Piece:
    """Some text of the answer."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The whole answer; the last event."""

    answer: Answer


Event = Queued | Found | Stage | Piece | Finished


@dataclass(frozen=True)
class ServiceStatus:
    """How the server is.

    state      of the model: "loading", "ready" or "failed", with its reason
    device     and precision of its parts; "" until it is open
    bytes      of the index by part, the uploaded files included
    job        the ingest that runs, or None
    waiting    length of the answer queue
    index_error
               why the index cannot be read; "" if it can
    """

    state: str
    reason: str
    model: str
    is_embedded: bool
    device: str
    precision: str
    index: str
    n_documents: int
    n_pages: int
    bytes: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    job: IngestProgress | None = None
    waiting: int = 0
    index_error: str = ""
