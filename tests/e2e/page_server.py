"""Serves the page over an index, for the browser tests: `python -m tests.e2e.page_server DIR PORT`.

The address of a document answers as on the real server; there is no API and no log-in.
"""

import sys
from pathlib import Path

import fastapi
import gradio as gr
import uvicorn

from rag.settings import Settings
from ui.app import build_app
from ui.look import mount_options
from ui.service import Service

SAMPLES = Path(__file__).parents[2] / "samples"


def main(index: str, port: str) -> None:
    service = Service(Settings(index=Path(index)), roots=(SAMPLES,))
    service.start()
    server = fastapi.FastAPI()

    @server.get("/documents/{name:path}")
    def document(name: str) -> fastapi.Response:
        return fastapi.Response(service.document_bytes(name), media_type="application/pdf")

    gr.mount_gradio_app(server, build_app(service), "/", **mount_options())
    uvicorn.run(server, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
