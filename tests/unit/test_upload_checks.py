"""Each of the two checks of files that requests name, by itself.

tests/e2e/test_serve_security.py attacks a server that has both: it would not notice that one is
gone.
"""

import asyncio
import json
import subprocess
import sys

import httpx
import pytest
from starlette.responses import JSONResponse

from ui.hidden_folder import HiddenFolder
from ui.upload_folder import UploadFolder


@pytest.fixture
def folder(monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # put back afterwards
    made = UploadFolder(upload_bytes=100)
    yield made
    made.close()


@pytest.fixture
def taken():
    return []


@pytest.fixture
def hidden(folder, taken):
    async def take(scope, receive, send):
        """An application that takes every file for uploaded."""
        message = await receive()
        taken.append(message["body"].decode())
        await JSONResponse({})(scope, receive, send)

    return HiddenFolder(take, folder)


def answered(app, path: str, **more) -> httpx.Response:
    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(f"/gradio_api/{path}", **more)

    return asyncio.run(ask())


@pytest.mark.parametrize("wrapped", [lambda file: file, lambda file: {"data": [[{"x": file}]]}])
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_a_request_names_uploads_only(hidden, folder, taken, wrapped, kind):
    def sent(path):
        body = {"content": json.dumps(wrapped({"path": path})), "headers": {"content-type": kind}}
        return answered(hidden, "queue/join", **body)

    shown = hidden._shown.decode()
    assert sent(f"{shown}/x/a.pdf").status_code == 200
    assert f"{folder.path}/x/a.pdf" in taken.pop()
    for path in ("/etc/passwd", f"{shown}/../../etc/passwd", f"{shown}x/a.pdf", "a.pdf", shown, 7):
        assert sent(path).status_code == 403, path
    assert not taken


def test_a_full_folder_takes_no_more(hidden, folder):
    (folder.path / "big").write_bytes(b"0" * 400)
    assert answered(hidden, "upload", content=b"x").status_code == 503


# In a process of its own: Gradio leaves event loops open.
LAUNCHED = """
from fastapi import FastAPI
from gradio.routes import App
from starlette.routing import Mount
from tests.unit.small_service import SmallService
from ui.requests import ServiceLimits
from ui.server import _mount_page

app, service = FastAPI(), SmallService()
service.limits = ServiceLimits()
_mount_page(app, service)
mounted = [route.app for route in app.routes if isinstance(route, Mount)]
print([each.get_blocks().has_launched for each in mounted if isinstance(each, App)])
"""


def test_gradio_checks_the_files_of_both_of_its_apps():
    done = subprocess.run([sys.executable, "-c", LAUNCHED], capture_output=True, text=True)
    assert done.stdout.strip() == "[True, True]", done.stderr
