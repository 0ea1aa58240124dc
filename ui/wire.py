"""What goes over the wire: request bodies, JSON of results, and one status for each error."""

import dataclasses
import logging
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rag.cli_ask import answer_json
from rag.cli_search import result_json
from rag.errors import DocumentError, UsageError
from rag.page_choice import PageRef
from rag.records import (
    DocumentRecord,
    DocumentUnknown,
    FilterError,
    Filters,
    IndexFull,
    IndexLocked,
    IndexMismatch,
    IndexMissing,
    PromptError,
)
from rag.words import LONGEST_QUESTION
from ui.errors import (
    OUR_FAULT,
    ExpectedError,
    NotAllowed,
    NotKept,
    NotReady,
    RequestTimeout,
    ServiceBusy,
    public,
)
from ui.requests import AskRequest, Event, Finished, Found, Piece, Queued, SearchRequest

log = logging.getLogger(__name__)

__all__ = ["answer_json", "result_json"]

Text = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_QUESTION)]
Mode = Literal["hybrid", "visual", "text"]

STATUS: tuple[tuple[type[Exception], int], ...] = (
    (ServiceBusy, 429),
    (RequestTimeout, 408),
    (NotAllowed, 403),
    (NotReady, 503),
    (NotKept, 507),
    (IndexFull, 507),
    (IndexMissing, 404),
    (DocumentUnknown, 404),
    (DocumentError, 404),
    (IndexLocked, 409),
    (IndexMismatch, 409),
    (UsageError, 400),
    (FilterError, 400),
    (PromptError, 400),
)


def status_of(error: Exception) -> int:
    """Return the HTTP status of an expected error; 500 for what nobody but us can mend."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def fault_of(error: Exception) -> tuple[int, str]:
    """Return status and line of what broke a stream off; our own bugs go to the log."""
    if isinstance(error, ExpectedError):
        return status_of(error), public(str(error))
    log.error("an answer broke off for a reason that is our bug", exc_info=error)
    return 500, OUR_FAULT


class Body(BaseModel):
    """Base of request bodies: unknown fields are refused, so that a typing error is noticed."""

    model_config = ConfigDict(extra="forbid")


class FilterBody(Body):
    """Which documents may be looked at."""

    document: str | None = Field(default=None, description="Glob over names: reports/*2024*")
    folder: str | None = Field(default=None, description="This folder and all below it")
    date_from: str | None = Field(default=None, description="YYYY-MM-DD")
    date_to: str | None = Field(default=None, description="YYYY-MM-DD")
    language: str | None = Field(default=None, description="en, ja")

    def filters(self) -> Filters:
        """Return them as the index knows them."""
        return Filters(
            self.document or None, self.folder or None, self.date_from or None,
            self.date_to or None, self.language or None,
        )  # fmt: skip


class SearchBody(FilterBody):
    """A search."""

    query: Text
    mode: Mode | None = None
    top_k: int | None = Field(default=None, ge=1, le=50)

    def request(self) -> SearchRequest:
        """Return it as the service knows it."""
        return SearchRequest(self.query, None, self.mode, self.top_k, self.filters())


class PageBody(Body):
    """A page of a document."""

    document: str
    page: int = Field(ge=1, le=10**9)


class AskBody(FilterBody):
    """A question."""

    question: Text
    stream: bool = Field(default=True, description="Server-sent events; false: one JSON object")
    history: list[tuple[Text, str]] = Field(
        default=[], max_length=40, description="[[question, answer]]"
    )
    kept: list[PageBody] = Field(default=[], max_length=16, description="Pages it is about")
    pages: int | None = Field(default=None, ge=1, le=16, description="Pages the model reads")
    neighbours: int = Field(default=0, ge=0, le=4, description="Pages around each of them")
    max_new_tokens: int | None = Field(default=None, ge=1, le=2048)
    generate: bool = Field(default=False, description="Let the model write, never quote")
    mode: Mode | None = None
    top_k: int | None = Field(default=None, ge=1, le=50)

    def request(self, client: str) -> AskRequest:
        """Return it as the service knows it."""
        return AskRequest(
            self.question,
            history=tuple(self.history),
            kept=tuple(PageRef(each.document, each.page) for each in self.kept),
            pages=self.pages, neighbours=self.neighbours, max_new_tokens=self.max_new_tokens,
            generate=self.generate, top_k=self.top_k, mode=self.mode,
            filters=self.filters(), client=client,
        )  # fmt: skip


def event_json(event: Event) -> tuple[str, dict[str, Any]]:
    """Return name and data of an event of an answer."""
    if isinstance(event, Queued):
        return "queued", {"position": event.position}
    if isinstance(event, Found):
        hits = [
            {"document": hit.document, "page": hit.page, "score": round(hit.score, 6)}
            for hit in event.hits
        ]
        pages = [{"document": page.document, "page": page.page} for page in event.pages]
        seconds = round(event.seconds, 4)
        return "found", {
            "hits": hits, "pages": pages, "abstained": event.abstained, "seconds": seconds,
        }  # fmt: skip
    if isinstance(event, Piece):
        return "piece", {"text": event.text}
    if isinstance(event, Finished):
        return "finished", answer_json(event.answer)
    return "stage", {"name": event.name, "seconds": round(event.seconds, 4)}


def document_json(record: DocumentRecord) -> dict[str, Any]:
    """Return a document as the list shows it, without where it lies on the server."""
    values = dataclasses.asdict(record)
    values.pop("source")
    return {"document": values.pop("name"), **values, "same_as": list(record.same_as)}
