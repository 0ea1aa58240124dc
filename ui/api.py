"""The REST API: what the page can do, for programs. `/api/docs` describes it, also offline."""

import dataclasses
import io
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Form, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from rag.records import Filters
from ui.api_page import api_page
from ui.errors import OUR_FAULT, ExpectedError, NotAllowed, ServerError, error_body, public
from ui.markup import LAST_PAGE
from ui.requests import Finished, SearchRequest
from ui.service import Service
from ui.streaming import events, kept_alive
from ui.wire import (
    AskBody,
    Mode,
    SearchBody,
    Text,
    answer_json,
    document_json,
    event_json,
    fault_of,
    result_json,
    status_of,
)

MOST_FILES = 100
DEFAULT_SIDE_PX = 1400
# What any route may answer beside 200; the body is {"error": "one line"}, below /v1 as OpenAI's.
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {}}}
    for status, text in {
        400: "The request cannot be meant", 403: "Not accepted by this server",
        404: "No such document, or nothing indexed",
        409: "The index is being written to, or of another model",
        429: "Busy; try again later", 500: "A damaged index or model, or our bug",
        503: "The model is not open", 507: "The disk is full",
    }.items()
}  # fmt: skip
SSE: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events or JSON", "content": {"text/event-stream": {}}}
}
Name = str


def client_of(request: Request) -> str:
    """Return who takes turns in the queue: the logged-in user, or the address."""
    user = getattr(request.state, "user", None)
    return str(user or (request.client.host if request.client else ""))


def install(app: FastAPI, service: Service) -> None:
    """Add the routes and the answers to expected errors."""
    for kind in ExpectedError:
        app.add_exception_handler(kind, _expected)
    app.add_exception_handler(RequestValidationError, _misshapen)
    app.add_exception_handler(HTTPException, _unreadable)
    app.add_exception_handler(Exception, _unexpected)  # which the server logs as well
    app.include_router(_questions(service), prefix="/api", tags=["questions"], responses=ERRORS)
    app.include_router(_documents(service), prefix="/api", tags=["documents"], responses=ERRORS)
    app.include_router(_pages(service), prefix="/api", tags=["documents"], responses=ERRORS)
    app.include_router(_server(app, service), prefix="/api", tags=["server"])
    app.include_router(_files(service), include_in_schema=False)


def install_rest(app: FastAPI) -> None:
    """Answer for all other paths of ours, once every route is there: Gradio has its own words."""
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    for path in ("/api/{rest:path}", "/v1/{rest:path}"):
        app.add_api_route(path, _no_route, methods=methods, include_in_schema=False)


async def _no_route(request: Request) -> Response:
    line = "there is no such route, or not for this method; /api/docs lists them"
    return JSONResponse(error_body(request.url.path, 404, line), 404)


async def _expected(request: Request, error: Exception) -> Response:
    status = status_of(error)
    headers = {"retry-after": "30"} if status in (429, 503) else None
    body = error_body(request.url.path, status, public(str(error)))
    return JSONResponse(body, status, headers=headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    return JSONResponse(error_body(request.url.path, 500, OUR_FAULT), 500)


async def _unreadable(request: Request, error: Exception) -> Response:
    """Say in our shape what FastAPI says of a body that it cannot take in at all."""
    assert isinstance(error, HTTPException)
    said = error_body(request.url.path, error.status_code, str(error.detail))
    return JSONResponse(said, error.status_code, headers=error.headers)


async def _misshapen(request: Request, error: Exception) -> Response:
    """Say in one line which field is wrong; FastAPI's own list of them goes along."""
    assert isinstance(error, RequestValidationError)
    # without what was sent: it may be megabytes, or half a letter that no answer can hold
    kept = [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]
    places = (_place(each) for each in kept)
    said = (each["msg"] for each in kept)
    line = "; ".join(f"{place}: {what}" for place, what in zip(places, said, strict=True))
    said_so = error_body(request.url.path, 422, line)
    body = json.dumps({"detail": kept, **said_so})  # ASCII: half letters are escaped
    return Response(body, 422, media_type="application/json")


def _place(error: Mapping[str, Any]) -> str:
    """Return which field is wrong, or "body" for one that cannot be read at all."""
    place = error["loc"][:1] if error["type"] == "json_invalid" else error["loc"][1:]
    return ".".join(map(str, place or error["loc"]))


def _questions(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/search")
    def search(
        query: Annotated[Text, Query(description="What to look for")],
        mode: Mode | None = None,
        top_k: Annotated[int | None, Query(ge=1, le=50)] = None,
        document: Annotated[str | None, Query(description="Glob over names")] = None,
        folder: str | None = None,
        date_from: str | None = None,
        date_to: str | None = None,
        language: str | None = None,
    ) -> dict[str, Any]:
        """Ranked pages of a question."""
        body = SearchBody(
            query=query, mode=mode, top_k=top_k, document=document, folder=folder,
            date_from=date_from, date_to=date_to, language=language,
        )  # fmt: skip
        return result_json(service.search(body.request()))

    @router.post("/search")
    def search_with_filters(body: SearchBody) -> dict[str, Any]:
        """Ranked pages of a question, with every filter."""
        return result_json(service.search(body.request()))

    @router.post("/search/image")
    async def search_by_image(
        file: UploadFile,
        mode: Annotated[Literal["hybrid", "visual"] | None, Form()] = None,
        top_k: Annotated[int | None, Form(ge=1, le=50)] = None,
        document: Annotated[str | None, Form(description="Glob over names")] = None,
        folder: Annotated[str | None, Form()] = None,
        language: Annotated[str | None, Form()] = None,
    ) -> dict[str, Any]:
        """Pages that look like an image, or like the first page of a document; it is not kept."""
        data = await file.read(service.limits.upload_bytes + 1)
        filters = Filters(document or None, folder or None, language=language or None)
        wanted = SearchRequest("", None, mode, top_k, filters)
        found = await run_in_threadpool(service.search_like, file.filename or "", data, wanted)
        return result_json(found)

    @router.post("/ask", response_model=None, responses=SSE)
    async def ask(body: AskBody, request: Request) -> Response:
        """Answer a question: events found, queued, stage, piece, finished or error; or JSON."""
        stream = events(service, body.request(client_of(request)), request.is_disconnected)
        if not body.stream:
            async for event in stream:
                if isinstance(event, Finished):
                    return JSONResponse(answer_json(event.answer))
            return JSONResponse({"error": "the client is gone"}, 408)
        return await event_stream(_server_sent(stream))

    return router


async def event_stream(lines: AsyncIterator[str]) -> StreamingResponse:
    """Return the answer that lines of events make; what fails before the first has its own."""
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    sent = kept_alive(await begun(lines))
    return StreamingResponse(sent, media_type="text/event-stream", headers=headers)


async def begun(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """Return an iterator whose first line is there, so that early errors get their own status."""
    first = await anext(lines)

    async def chained() -> AsyncIterator[str]:
        yield first
        async for line in lines:
            yield line

    return chained()


async def _server_sent(stream: AsyncIterator[Any]) -> AsyncIterator[str]:
    is_first = True
    try:
        async for event in stream:
            name, data = event_json(event)
            yield _line(name, data)
            is_first = False
    except Exception as error:
        if is_first:
            raise
        status, line = fault_of(error)
        yield _line("error", {"error": line, "status": status})


def _line(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def _documents(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/documents")
    def list_documents() -> dict[str, Any]:
        """All documents, and what could not be read of them."""
        records, failures = service.library.documents()
        return {
            "documents": [document_json(each) for each in records],
            "failures": [dataclasses.asdict(each) for each in failures],
        }

    @router.post("/documents", status_code=202)
    async def add_documents(
        files: list[UploadFile],
        password: Annotated[str, Form(description="Of encrypted PDFs; not kept")] = "",
    ) -> dict[str, Any]:
        """Add PDF, image or Office files; they are read in the background, see `/api/job`."""
        if len(files) > MOST_FILES:
            raise NotAllowed(f"{MOST_FILES} files at once are the most")
        paths: list[Path] = []
        try:
            for each in files:
                data = await each.read(service.limits.upload_bytes + 1)
                paths.append(
                    await run_in_threadpool(service.library.store_upload, each.filename or "", data)
                )
        except ServerError:  # none of them is taken
            await run_in_threadpool(service.library.discard, paths)
            raise
        names = await run_in_threadpool(service.library.names_of, paths)
        passwords = (password,) if password else ()
        job = await run_in_threadpool(
            service.library.ingest, paths, uploaded=True, passwords=passwords
        )
        return {"job": job, "documents": names}

    @router.get("/job")
    def job() -> dict[str, Any] | None:
        """How far the last adding of documents is; null before the first."""
        state = service.library.job()
        return None if state is None else dataclasses.asdict(state)

    @router.delete("/job")
    def stop_job() -> dict[str, Any]:
        """Stop it; what was read is kept."""
        service.library.cancel_job()
        return {"stopping": True}

    return router


def _pages(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/documents/{name:path}/pages/{page}.{kind}", response_class=Response)
    def page_image(name: Name, page: int, kind: Literal["webp", "png"]) -> Response:
        """Return a page as an image: its stored thumbnail (webp) or drawn anew (png)."""
        _require_page(page)
        data = service.library.thumbnail(name, page) if kind == "webp" else None
        if data is None:
            buffer = io.BytesIO()
            service.library.page_image(name, page, DEFAULT_SIDE_PX).save(buffer, kind)
            data = buffer.getvalue()
        return Response(data, media_type=f"image/{kind}")

    @router.post("/documents/{name:path}/reread", status_code=202)
    def reread(name: Name) -> dict[str, Any]:
        """Read a document again from its file."""
        return {"job": service.library.reread(name)}

    @router.delete("/documents/{name:path}")
    def remove(name: Name) -> dict[str, Any]:
        """Remove a document: vectors, text, images, and its file if it was uploaded."""
        service.library.remove(name)
        return {"removed": [name]}

    return router


def _require_page(page: int) -> None:
    if not 1 <= page <= LAST_PAGE:
        raise NotAllowed("pages count from 1")


def _server(app: FastAPI, service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/status")
    def status() -> dict[str, Any]:
        """Model, index, versions, the running job and the length of the queue."""
        return dataclasses.asdict(service.status())

    @router.get("/health")
    def health() -> dict[str, str]:
        """Say that the server is up; `/api/status` tells whether the model is."""
        return {"status": "ok"}

    @router.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(api_page(app.openapi()))

    return router


def _files(service: Service) -> APIRouter:
    router = APIRouter()

    @router.api_route("/documents/{name:path}", methods=["GET", "HEAD"])
    def pdf(name: Name) -> Response:
        # The browser's own viewer shows it; the page's policy would keep that from its plug-in.
        headers = {
            "content-security-policy": "frame-ancestors 'none'",
            "content-disposition": "inline",
        }
        data = service.library.document_bytes(name)
        return Response(data, media_type="application/pdf", headers=headers)

    return router
