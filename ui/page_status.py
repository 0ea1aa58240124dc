"""The Status tab: model, device, index, versions. Layout and wiring only."""

import gradio as gr

from ui import handlers_library
from ui.look import I18N, language, panel
from ui.page_ask import QUIET
from ui.service import Service


def build(service: Service, tab: gr.Tab) -> None:
    """Lay out the tab and wire it to the service."""
    facts = panel("status")
    refresh = gr.Button(I18N("refresh"), scale=0, min_width=110, elem_id="refresh")

    def look(request: gr.Request) -> str:
        return handlers_library.status_page(service, language(request))

    gr.on([tab.select, refresh.click], look, None, facts, queue=False, **QUIET)
