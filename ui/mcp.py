"""MCP tools for other programs' models, through Gradio's own MCP server.

A Blocks of their own, without any component: the functions of the page never become tools.
"""

import json
from contextlib import aclosing
from typing import Any

import gradio as gr
from gradio.events import api
from starlette.requests import Request

from rag.records import Filters
from ui.api import client_of
from ui.errors import ExpectedError, public
from ui.requests import AskRequest, Finished, SearchRequest
from ui.service import Service
from ui.streaming import events
from ui.wire import answer_json, document_json, result_json

PATH = "/tools"  # the MCP endpoint is at /tools/gradio_api/mcp/


def build_tools(service: Service) -> gr.Blocks:
    """Return the tools: search_pages, ask_documents, read_page, list_documents."""

    def search_pages(query: str, top_k: int = 5, document: str = "") -> str:
        """Find the pages of the indexed documents that answer a question, best first.

        Where `answered` is false, no page answers it, and the nearest ones are given all the same.
        `score` is the estimated probability, from 0 to 1, that the page answers the question.

        Args:
            query: the question, or words to look for
            top_k: how many pages, at most 50
            document: only documents whose name matches this glob; empty for all
        """
        filters = Filters(document=document or None)
        with _told():
            found = service.search(SearchRequest(query, top_k=top_k, filters=filters))
        return _json(result_json(found))

    async def ask_documents(request: gr.Request, question: str, document: str = "") -> str:
        """Answer a question from the indexed documents, with the pages it was read from.

        The answer is written from the page images by a full model; the small one that is shipped
        quotes the text of the pages, word for word, and `notes` says so. Where `abstained` is true,
        no page answers it.

        Args:
            question: what to answer
            document: only documents whose name matches this glob; empty for all
        """
        given: Any = request  # Gradio says gr.Request, and gives MCP's tools Starlette's own
        http: Request = getattr(given, "request", given)
        filters = Filters(document=document or None)
        asked = AskRequest(question, filters=filters, client=client_of(http))
        with _told():
            async with aclosing(events(service, asked, http.is_disconnected)) as stream:
                async for event in stream:
                    if isinstance(event, Finished):
                        return _json(answer_json(event.answer))
        raise gr.Error("the answer was stopped", print_exception=False)

    def read_page(document: str, page: int = 1) -> str:
        """Return the text of a page as its text layer or OCR has it.

        `source` says how far to trust it: "healthy", a text layer that reads well; "thin", one of
        few words, where the page shows more; "garbage", one that is not what the page shows;
        "ocr", read by OCR; "read", read off the image by a small model, which mistakes letters and
        digits; "missing", no text, and only the page's image can be asked about.

        Args:
            document: name of the document, as search_pages gives it
            page: number of the page, from 1
        """
        with _told():
            record = service.library.page(document, page)
        return _json(
            {"document": document, "page": page, "text": record.text, "source": record.text_class}
        )

    def list_documents(document: str = "") -> str:
        """List the indexed documents: name, pages, size, date, language, and whether all was read.

        `status` is "complete", "damaged" (some pages failed), "partial" or "failed".

        Args:
            document: only documents whose name matches this glob; empty for all
        """
        with _told():
            records, _ = service.library.documents(document or "*")
        return _json({"documents": [document_json(each) for each in records]})

    blocks: gr.Blocks
    with gr.Blocks(title="Yomu", analytics_enabled=False) as blocks:
        for tool in (search_pages, ask_documents, read_page, list_documents):
            # not queued: Gradio would call itself over HTTP, through our own log-in
            api(tool, api_name=tool.__name__, queue=False)
    return blocks


def _json(value: dict[str, Any]) -> str:
    """Return JSON: Gradio would show a dict as Python writes it."""
    return json.dumps(value, ensure_ascii=False)


class _told:  # noqa: N801 - a context manager, read like a function
    """Turn expected errors into ones that Gradio shows to the client."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ExpectedError):
            line = public(str(error)).replace("`yomu list` shows", "`list_documents` shows")
            raise gr.Error(line, print_exception=False) from error
