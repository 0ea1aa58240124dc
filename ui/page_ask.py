"""The Ask tab: question, pages found, streamed answer, page viewer. Layout and wiring only."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from rag.records import Cancellation
from ui import handlers, visit
from ui.handlers import Form, Selection
from ui.look import I18N, language, panel, user_of, visitor
from ui.opened import Opened
from ui.service import Service
from ui.streaming import in_own_thread

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# A question closes the page of the one before. Where that one is still being answered, it ends now,
# and page.js frames its words on the page whose card is marked as open: which would open it again.
UNMARK = """text => {
    const cards = document.querySelectorAll("#evidence .yomu-card[aria-current]");
    if (text.trim()) for (const each of cards) each.removeAttribute("aria-current");
    return text;
}"""


@dataclass(frozen=True)
class AskTab:
    """Components that others fill or read."""

    examples: gr.HTML
    document: gr.Dropdown


def build(service: Service) -> AskTab:
    """Lay out the tab and wire it to the service."""
    with gr.Row(elem_classes="yomu-ask"):
        question = gr.Textbox(
            label=I18N("question"), placeholder=I18N("question_hint"), lines=1, max_lines=5,
            autofocus=True, scale=8, elem_id="question",
        )  # fmt: skip
        go = gr.Button(I18N("ask"), variant="primary", scale=1, min_width=96, elem_id="ask")
        stop = gr.Button(
            I18N("stop"), variant="secondary", scale=1, min_width=80, elem_id="stop",
            interactive=False,
        )  # fmt: skip
    examples = panel("examples")
    follow_up = gr.Checkbox(False, label=I18N("follow_up"), container=False, elem_id="follow-up")
    options = [*_options(), follow_up]
    progress = panel("progress")
    evidence = panel("evidence")
    with gr.Row(elem_classes="yomu-desk"):
        with gr.Column(scale=5, min_width=320):
            answer = panel("answer")
            earlier = panel("earlier")
        with gr.Column(scale=6, min_width=320):
            sheet = panel("viewer")
    turns = gr.State(())

    opened = show_from(service, [evidence, answer, earlier, sheet], sheet, turns)
    begin, ask, halt = _asking(service, opened)
    gr.on(
        [go.click, question.submit], begin, question, [go, stop, sheet], queue=False, js=UNMARK,
        **QUIET,
    ).then(  # who asks while an answer is being written wants the next one
        ask, [turns, question, *options],
        [progress, evidence, answer, earlier, turns, go, stop],
        concurrency_limit=None, trigger_mode="always_last", **QUIET,
    ).then(
        lambda: _buttons(is_running=False), None, [go, stop], queue=False, **QUIET
    )  # fmt: skip
    stop.click(halt, None, None, queue=False, **QUIET)
    shown = [progress, evidence, answer, earlier, turns]
    answer.input(_again(service), None, [*shown, question], queue=False, **QUIET)
    answer.clear(_forget(opened), None, [*shown, sheet], queue=False, **QUIET)
    examples.select(_example, None, question, queue=False, **QUIET).then(
        None, None, None, js="() => document.querySelector('#ask').click()", **QUIET
    )
    gr.on(None, _welcome, None, [answer, sheet], queue=False, **QUIET)
    return AskTab(examples, options[0])


def _asking(
    service: Service, opened: Opened
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return what begins a question, asks it and stops it; a session has one answer at a time."""
    running: dict[str, Cancellation] = {}

    def begin(request: gr.Request, question: str) -> tuple[gr.Button, gr.Button, Any]:
        if question.strip():
            halt(request)
        return *_buttons(is_running=True), no_page(request, opened, question)

    async def ask(request: gr.Request, past: Any, *filled: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        key = str(request.session_hash)
        running[key] = own = Cancellation()
        form = replace(Form(*filled), client=visitor(request))
        asked = in_own_thread(
            lambda: handlers.ask(service, form, past, language(request), own), own
        )
        try:
            async with aclosing(asked):
                async for shown in asked:
                    parts = [gr.skip() if part is None else part for part in shown]
                    yield [*parts, *_buttons(is_running=True)]
        finally:
            own.cancel()
            if running.get(key) is own:
                del running[key]

    def halt(request: gr.Request) -> None:
        if own := running.get(str(request.session_hash)):
            own.cancel()

    return begin, ask, halt


def show_from(
    service: Service, places: Sequence[gr.HTML], sheet: gr.HTML, turns: gr.State | None
) -> Opened:
    """Have a page that is chosen in one of the places shown in `sheet`, then its heatmap.

    Two plain requests, not one stream of Gradio's queue: where a choice comes while the last stream
    of the session ends, its client may take the end for that of the new one and show nothing.
    """
    opened = Opened()

    def page(request: gr.Request, past: Any, event: gr.EventData) -> Any:  # noqa: ANN401
        if chosen := Selection.read(event._data):
            parts = handlers.show_page(service, chosen, past or (), language(request))
            shown = opened.first(str(request.session_hash), parts, chosen.number)
            return shown or gr.skip()
        return gr.skip()

    def rest(request: gr.Request) -> Any:  # noqa: ANN401
        return opened.rest(str(request.session_hash)) or gr.skip()

    # every choice runs: put off, Gradio's client would send the one before it once more
    now: dict[str, Any] = {"queue": False, "trigger_mode": "multiple", **QUIET}
    for place in places:
        place.select(page, turns or gr.State(()), sheet, **now).then(rest, None, sheet, **now)
    return opened


def no_page(request: gr.Request, opened: Opened, question: str) -> Any:  # noqa: ANN401
    """Return the viewer as it is before a page is chosen; a blank question leaves it as it is."""
    if not question.strip():
        return gr.skip()
    opened.close(str(request.session_hash))
    return handlers.welcome(language(request))[1]


def _buttons(*, is_running: bool) -> tuple[gr.Button, gr.Button]:
    return gr.Button(interactive=not is_running), gr.Button(interactive=is_running)


def _example(event: gr.EventData) -> str:
    return str(event._data.get("text", ""))


def _again(service: Service) -> Callable[..., Any]:
    """Return what shows a visit again that the browser kept over a reload."""

    def again(request: gr.Request, event: gr.EventData) -> list[Any]:
        turns, unanswered = visit.read(event._data)
        shown = handlers.again(service, turns, unanswered, language(request))
        return [gr.skip() if part is None else part for part in (*shown, unanswered or None)]

    return again


def _forget(opened: Opened) -> Callable[..., Any]:
    """Return what clears the page."""

    def forget(request: gr.Request) -> list[Any]:
        opened.close(str(request.session_hash))
        shown, no_page = handlers.forgotten(language(request), user_of(request))
        return [*shown, no_page]

    return forget


def _welcome(request: gr.Request) -> tuple[str, str]:
    return handlers.welcome(language(request), user_of(request))


def _options() -> list[Any]:
    """Return the components of the options, in the order of `Form` up to its last."""
    with gr.Accordion(I18N("options"), open=False, elem_id="options"):
        with gr.Row():
            document = gr.Dropdown(
                [], value="", label=I18N("documents_filter"), info=I18N("documents_filter_info"),
                allow_custom_value=True, scale=2, min_width=220,
            )  # fmt: skip
            date_from = gr.Textbox(
                label=I18N("date_from"), placeholder=I18N("date_hint"), max_length=10, min_width=120
            )
            date_to = gr.Textbox(
                label=I18N("date_to"), placeholder=I18N("date_hint"), max_length=10, min_width=120
            )
            mode = gr.Radio(
                [(I18N(f"mode_{name}"), name) for name in ("hybrid", "visual", "text")],
                value="hybrid", label=I18N("mode"), scale=2, min_width=260,
            )  # fmt: skip
        with gr.Row():
            top_k = gr.Slider(1, 20, 5, step=1, label=I18N("top_k"), min_width=160)
            pages = gr.Slider(0, 8, 0, step=1, label=I18N("pages"), min_width=160)
            neighbours = gr.Slider(0, 3, 0, step=1, label=I18N("neighbours"), min_width=160)
    return [document, date_from, date_to, mode, top_k, pages, neighbours]
