"""The Gradio page over a service: four tabs. Layout and wiring only."""

from typing import Any

import gradio as gr

from ui import handlers_library, page_ask, page_library, page_status, page_test
from ui.look import I18N, language, panel
from ui.page_ask import QUIET
from ui.service import Service

# How often the state of things is asked for. Unchanged, the answer is a few bytes, but Gradio has
# the browser copy all that the page shows each time: where nothing goes on, it is seldom.
LOOK_S, CALM_S = 2.0, 10.0


def build_app(service: Service) -> gr.Blocks:
    """Return the page; mount it with `ui.look.mount_options()`."""
    app = gr.Blocks(title="Yomu 読む", analytics_enabled=False, fill_width=True)
    with app:
        head = panel("head")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab(I18N("tab_ask"), id="ask"):
                ask = page_ask.build(service)
            with gr.Tab(I18N("tab_library"), id="library"):
                library = page_library.build(service)
            with gr.Tab(I18N("tab_test"), id="test"):
                page_test.build(service)
            with gr.Tab(I18N("tab_status"), id="status") as status:
                page_status.build(service, status)
        seen = gr.State("")
        timer = gr.Timer(LOOK_S)

        def look(request: gr.Request, mark: str) -> list[Any]:
            found = handlers_library.look(service, language(request), mark)
            *shown, names, is_busy, now = found
            filled = [gr.skip() if part is None else part for part in shown]
            choices = gr.skip() if names is None else gr.Dropdown(choices=["", *names])
            pace = gr.skip() if is_busy is None else gr.Timer(LOOK_S if is_busy else CALM_S)
            return [*filled, choices, pace, now]

        gr.on(
            [app.load, timer.tick, library.changed.change], look, seen,
            [head, ask.examples, library.job, library.documents, library.usage, ask.document,
             timer, seen],
            queue=False, **QUIET,
        )  # fmt: skip
    app.i18n_instance = I18N
    return app
