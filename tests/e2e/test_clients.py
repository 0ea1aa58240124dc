"""Who asks through the page or MCP, and that a client that goes away ends its answer."""

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from gradio.events import api

from tests.unit.small_service import SmallService
from ui import handlers, mcp, page_ask
from ui.look import visitor
from ui.opened import Opened
from ui.requests import Queued
from ui.security import Gate, GateOptions, Login, hash_password

# Gradio leaves event loops open, which tells nothing of what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
PATIENCE_S = 60
NOTE = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
CALL = NOTE | {"params": {"name": "ask_documents", "arguments": {"question": "kettle"}}}


@pytest.fixture(autouse=True)
def no_loop_is_left():
    """Close what Gradio leaves to this thread: a later test would be blamed for it."""
    yield
    with suppress(RuntimeError):  # there is none
        asyncio.get_event_loop_policy().get_event_loop().close()
    asyncio.set_event_loop(None)
    gc.collect()


class Endless:
    """A service whose answers end only when they are cancelled."""

    def __init__(self):
        self.begun, self.ended = threading.Event(), threading.Event()

    def ask(self, request, cancellation):
        self.client = request.client
        while not cancellation.cancelled:
            yield Queued(1)
            self.begun.set()
            time.sleep(0.01)
        self.ended.set()


@contextmanager
def running(blocks, login=None, **more):
    """Serve some Blocks behind the gate."""
    app = FastAPI()
    gr.mount_gradio_app(app, blocks, path=mcp.PATH, ssr_mode=False, **more)
    gate = Gate(app, GateOptions(1000, login=login))
    server = uvicorn.Server(uvicorn.Config(gate, port=0, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}{mcp.PATH}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        del app, gate, server
        gc.collect()  # here, where it may complain


def test_an_mcp_client_that_goes_away_ends_its_answer():
    service = Endless()
    accept = {"accept": "application/json, text/event-stream"}
    with running(mcp.build_tools(service), mcp_server=True) as client:
        listed = client.post("/gradio_api/mcp/", json=NOTE | {"method": "tools/list"},
                             headers=accept)  # fmt: skip
        assert "question" in listed.text
        assert '"request"' not in listed.text
        with client.stream("POST", "/gradio_api/mcp/", json=CALL, headers=accept):
            assert service.begun.wait(PATIENCE_S)
            assert not service.ended.is_set()
        assert service.ended.wait(PATIENCE_S)
    assert service.client == "127.0.0.1"


@pytest.mark.parametrize("user", [None, "hanako"])
def test_visitors_take_turns_as_users_or_else_by_visit(user):
    def who(request: gr.Request) -> str:
        return visitor(request)

    with gr.Blocks() as blocks:
        api(who, api_name="who")
    login = Login({user: hash_password("correct horse")}) if user else None
    with running(blocks, login) as client:
        sent = {"data": [], "fn_index": 0, "session_hash": "a-visit"}
        auth = (user, "correct horse") if user else None
        assert client.post("/gradio_api/queue/join", json=sent, auth=auth).status_code == 200
        told = client.get("/gradio_api/queue/data?session_hash=a-visit", auth=auth).text
    assert f'"data":["{user or "a-visit"}"]' in told.replace(" ", "")


def test_who_asks_while_an_answer_is_written_gets_the_next_one(monkeypatch):
    """Enter is not dropped: it stops the answer of this visit, and of no other."""
    monkeypatch.setattr(handlers, "BETWEEN_S", 0)  # every word is sent
    service = SmallService(answer=" ".join(["word"] * 500))
    begin, ask, _ = page_ask._asking(service, Opened())
    mine, other = (
        SimpleNamespace(session_hash=visit, headers={}, request=None) for visit in ("mine", "other")
    )

    async def listen() -> int:
        written = ask(mine, (), "total sales")
        async for shown in written:
            if "word" in str(shown[2]):
                break
        begin(other, "capacity of the kettle")
        begin(mine, " ")
        for _ in range(20):
            await anext(written)
        begin(mine, "capacity of the kettle")
        return len([shown async for shown in written])

    with ThreadPoolExecutor(1) as pool:  # this thread's event loop is Gradio's
        assert pool.submit(asyncio.run, listen()).result(PATIENCE_S) < 10
