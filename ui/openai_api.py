"""`/v1/models` and `/v1/chat/completions`, as programs made for OpenAI's API expect them.

The last user message is the question, earlier ones are its history, system messages are left out:
the model is told how to answer by its own folder. The pages go out as `annotations`.
"""

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from rag.answer import Answer, Turn
from rag.errors import UsageError
from rag.words import QUOTED_HINT, QUOTED_NOTE, in_language_of
from ui.api import ERRORS, client_of, event_stream
from ui.errors import openai_error
from ui.requests import AskRequest, Event, Finished, Piece, ServiceLimits
from ui.service import Service
from ui.streaming import events
from ui.wire import fault_of

# ours → theirs
FINISH = {"end": "stop", "length": "length", "repetition": "stop", "cancelled": "stop"}


class TextPart(BaseModel):
    """A part of a message; only text is read."""

    type: str
    text: str = ""


class Message(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None

    @property
    def has_more(self) -> bool:
        """Whether it has a part that is no text."""
        return isinstance(self.content, list) and any(p.type != "text" for p in self.content)

    @property
    def text(self) -> str:
        """What it says."""
        if not isinstance(self.content, list):
            return self.content or ""
        return "\n".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    """What a stream has beside the text."""

    include_usage: bool = False


class ChatBody(BaseModel):
    """A chat completion; what is not named here (temperature, …) is accepted and left alone."""

    model_config = ConfigDict(extra="ignore")

    messages: list[Message] = Field(min_length=1)
    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    def request(self, client: str, limits: ServiceLimits) -> AskRequest:
        """Return the question and its history. Raises UsageError.

        Programs ask for more than this server gives, and send all that was ever said: they get the
        longest answer there is, and the latest turns count.
        """
        spoken = [
            each
            for each in self.messages
            if each.role == "user"
            or (each.role == "assistant" and each.text.strip())  # not a call of a tool
        ]
        if any(each.has_more for each in self.messages):
            raise UsageError("only text is read: images and other parts are refused")
        if not spoken or spoken[-1].role != "user" or not spoken[-1].text.strip():
            raise UsageError("the last message is to be the user's question")
        longest = self.max_completion_tokens or self.max_tokens
        if longest is not None:
            longest = min(longest, limits.new_tokens)
        turns = _turns(spoken[:-1])[-limits.turns :]
        return AskRequest(spoken[-1].text, turns, max_new_tokens=longest, client=client)


def _turns(messages: list[Message]) -> tuple[Turn, ...]:
    """Pair questions with the answers that follow them; what has no partner is left out."""
    return tuple(
        (question.text, answer.text)
        for question, answer in zip(messages, messages[1:], strict=False)
        if (question.role, answer.role) == ("user", "assistant") and question.text.strip()
    )


def install(app: FastAPI, service: Service) -> None:
    """Add the routes."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=ERRORS)

    @router.get("/models")
    def models() -> dict[str, Any]:
        """List the one model there is."""
        name = service.model_name
        return {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 0, "owned_by": "yomu"}],
        }

    @router.post("/chat/completions", response_model=None)
    async def chat(body: ChatBody, request: Request) -> Response:
        """Answer the last message from the indexed pages."""
        asked = body.request(client_of(request), service.limits)
        model = body.model or await run_in_threadpool(lambda: service.model_name)
        made = _Completion(model, _address(request))
        stream = events(service, asked, request.is_disconnected)
        if body.stream:
            has_usage = body.stream_options is not None and body.stream_options.include_usage
            return await event_stream(made.chunks(stream, has_usage))
        async for event in stream:
            if isinstance(event, Finished):
                return JSONResponse(made.whole(event.answer))
        return JSONResponse(openai_error(408, "the client is gone"), 408)

    app.include_router(router)


def _address(request: Request) -> str:
    """Return where the client reaches this server: by https where a proxy says so."""
    scheme = request.headers.get("x-forwarded-proto", "").split(",")[0].strip().lower()
    is_known = scheme in ("http", "https")
    return str(request.base_url.replace(scheme=scheme) if is_known else request.base_url)


class _Completion:
    """Writes one answer in OpenAI's shapes."""

    def __init__(self, model: str, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex[:24]}", "created": int(time.time()), "model": model,
        }  # fmt: skip

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Return a chat.completion."""
        message = {
            "role": "assistant", "content": answer.text + _closing(answer), "refusal": None,
            "annotations": self._annotations(answer),
        }  # fmt: skip
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [
                {"index": 0, "message": message, "finish_reason": _finish(answer), "logprobs": None}
            ],
            "usage": _usage(answer),
        }

    async def chunks(self, stream: AsyncIterator[Event], has_usage: bool) -> AsyncIterator[str]:
        """Yield chat.completion.chunk lines; the annotations come with the last delta.

        has_usage  let a chunk follow that has no choices but counts the tokens
        """
        is_first = True
        try:
            async for event in stream:
                if is_first:
                    yield self._chunk({"role": "assistant", "content": ""})
                    is_first = False
                if isinstance(event, Piece):
                    yield self._chunk({"content": event.text})
                elif isinstance(event, Finished):
                    if closing := _closing(event.answer):
                        yield self._chunk({"content": closing})
                    delta = {"annotations": self._annotations(event.answer)}
                    yield self._chunk(delta, _finish(event.answer))
                    if has_usage:
                        yield self._line([], {"usage": _usage(event.answer)})
        except Exception as error:
            if is_first:
                raise
            yield f"data: {json.dumps(openai_error(*fault_of(error)))}\n\n"
        yield "data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return self._line([choice])

    def _line(self, choices: list[dict[str, Any]], more: Mapping[str, object] | None = None) -> str:
        data = {**self._head, "object": "chat.completion.chunk", "choices": choices, **(more or {})}
        return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"

    def _annotations(self, answer: Answer) -> list[dict[str, Any]]:
        return [
            {
                "type": "url_citation",
                "url_citation": {
                    "url": f"{self._base_url}/documents/{quote(page.document)}#page={page.page}",
                    "title": f"{page.document}, p. {page.page}",
                    "start_index": 0,
                    "end_index": len(answer.text),
                },
            }
            for page in answer.citations
        ]


def _closing(answer: Answer) -> str:
    """Say below a quotation that it is one: a chat client shows nothing but the text."""
    if QUOTED_NOTE not in answer.notes:
        return ""
    return f"\n\n({in_language_of(answer.question.text, QUOTED_HINT)})"


def _usage(answer: Answer) -> dict[str, int]:
    n = answer.timings.tokens
    return {"prompt_tokens": 0, "completion_tokens": n, "total_tokens": n}


def _finish(answer: Answer) -> str:
    return FINISH.get(answer.stop_reason or "end", "stop")
