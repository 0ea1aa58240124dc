"""HTML of a question's evidence, answer and pages."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rag.words import NOTHING_TO_QUOTE, in_language_of
from ui.markup import button, esc, image, items, note, page_name, pdf_url, section, tag
from ui.texts import word

MOST_SHOWN = 300  # characters of a question above its answer


@dataclass(frozen=True)
class Card:
    """A page that was found: what is shown of it in a row of cards."""

    document: str
    page: int
    score: float
    thumbnail: str = ""  # data: URI
    number: int | None = None  # of its citation, where the answer was read from it


@dataclass(frozen=True)
class Turn:
    """A question and what became of it, for the page, for its history and for export."""

    question: str
    answer: str = ""
    pages: tuple[tuple[str, int], ...] = ()  # cited, in the order of their numbers
    hits: tuple[tuple[str, int, float], ...] = ()
    abstained: bool = False
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    is_finished: bool = False
    quoted: tuple[tuple[tuple[str, int], str], ...] = ()  # page and its part of a quoted answer
    key: tuple[tuple[str, int], int, int] | None = None  # page, and where its part is what is asked


@dataclass(frozen=True)
class Step:
    """One step of the work; seconds None: under way."""

    label: str
    seconds: float | None = None


@dataclass(frozen=True)
class Layer:
    """An overlay of the page; label as on its button."""

    label: str
    source: str


@dataclass(frozen=True)
class Sheet:
    """A page in the viewer; boxes are fractions (left, top, right, bottom) of the page."""

    document: str
    page: int
    n_pages: int
    source: str
    layers: tuple[Layer, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    problem: str = ""


def example_row(language: str, questions: Sequence[str]) -> str:
    """Return questions to try."""
    label = tag("span", esc(word(language, "examples")), class_="yomu-label")
    chips = (button(each, "select", data_text=each, class_="yomu-chip") for each in questions)
    return tag("div", label, *chips, class_="yomu-examples")


def stages(language: str, steps: Sequence[Step]) -> str:
    """Return the steps of an answer with their times."""
    if not steps:
        return ""
    rows = []
    for step in steps:
        is_done = step.seconds is not None
        spent = word(language, "seconds", s=f"{step.seconds:.1f}") if is_done else "…"
        rows.append(
            tag("li", esc(step.label), tag("span", esc(spent), class_="yomu-time"),
                class_="is-done" if is_done else "is-running")
        )  # fmt: skip
    return tag("div", tag("ol", *rows, class_="yomu-stages"), role="status", aria_live="polite")


def cards(language: str, found: Sequence[Card], name: str, *, show_first: bool = False) -> str:
    """Return pages as buttons with image, file, page and score.

    name        the question, which the heatmap of a chosen page is about
    show_first  have the browser open the first one at once
    """
    rows = [_card(language, card, name) for card in found]
    first = f"{found[0].document}\n{found[0].page}\n{name}" if found and show_first else None
    return tag("div", items(rows, "yomu-cards"), data_first=first)


def _card(language: str, card: Card, query: str) -> str:
    name = page_name(language, card.document, card.page)
    picture = image(card.thumbnail, "", class_="yomu-thumb") if card.thumbnail else ""
    score = word(language, "score", score=f"{card.score:.2f}")
    caption = (
        tag("span", esc(card.document), class_="yomu-file", title=card.document),
        tag("span", esc(word(language, "page_short", page=card.page)), " · ",
            tag("span", esc(score)), class_="yomu-score"),
    )  # fmt: skip
    return tag(
        "button",
        tag("span", picture, class_="yomu-frame"),
        *caption,
        type="button", data_event="select", data_document=card.document, data_page=card.page,
        data_query=query, class_="yomu-card", aria_label=f"{name}, {score}",
    )  # fmt: skip


def evidence(language: str, found: Sequence[Card], query: str, *, abstained: bool) -> str:
    """Return the pages found for a question, before its answer."""
    title = word(language, "evidence")
    if not found:
        return section("evidence", title, note(word(language, "evidence_none"), "warn"))
    warning = note(word(language, "not_relevant"), "warn") if abstained else ""
    return section("evidence", title, warning, cards(language, found, query, show_first=True))


def no_answer(language: str, user: str = "") -> str:
    """Return what stands in the place of an answer before anything was asked; user: logged in."""
    empty = esc(word(language, "answer_empty"))
    hint = tag("p", empty, class_="yomu-hint", data_empty=user)
    return section("answer", word(language, "answer"), hint)


def answer(language: str, turn: Turn, kept: str | None = None) -> str:
    """Return the answer as plain text, with a numbered chip for each page it was read from.

    kept  the turn as the browser is to keep it for a reload
    """
    asked = tag("p", esc(_shortened(turn.question)), class_="yomu-asked", dir="auto")
    text = tag(
        "div", _claims(language, turn),
        class_="yomu-text" + ("" if turn.is_finished else " is-writing"),
        dir="auto", aria_live="polite", aria_busy="false" if turn.is_finished else "true",
        data_finished=turn.question if turn.is_finished and turn.pages else None,
        data_asked=None if turn.is_finished else turn.question, data_turn=kept,
    )  # fmt: skip
    parts = [asked, text, _citations(language, turn)]
    if turn.notes:
        parts.append(items([esc(each) for each in turn.notes], "yomu-notes"))
    if turn.is_finished and turn.answer:
        parts.append(_take_away(language, turn))
    return section("answer", word(language, "answer"), *parts)


def _shortened(question: str) -> str:
    """Return the beginning of a pasted page: in full it would push its answer out of sight."""
    return question if len(question) <= MOST_SHOWN else question[:MOST_SHOWN].rstrip() + " …"


def _claims(language: str, turn: Turn) -> str:
    """Return the answer as text; what is quoted from several pages, each part below its page."""
    if not _is_parted(turn):
        whole = [page for page, text in turn.quoted if text == turn.answer]
        return _marked(turn, whole[0], turn.answer) if whole else esc(turn.answer)
    numbers = {page: number for number, page in enumerate(turn.pages, 1)}
    nothing = in_language_of(turn.question, NOTHING_TO_QUOTE)
    parts = []
    for page, text in turn.quoted:  # a neighbour is quoted and no citation: it has no number
        name = esc(page_name(language, *page))
        head = _chip(language, turn, numbers[page], page) if page in numbers else name
        said = tag("div", _marked(turn, page, text) if text else esc(nothing))
        parts.append(tag("div", head, said, class_="yomu-claim"))
    return "".join(parts)


def _marked(turn: Turn, page: tuple[str, int], text: str) -> str:
    """Return the part of an answer that is from a page, with what is asked for marked in it."""
    if turn.key is None or turn.key[0] != page:
        return esc(text)
    _, start, end = turn.key
    return esc(text[:start]) + tag("mark", esc(text[start:end])) + esc(text[end:])


def _is_parted(turn: Turn) -> bool:
    return len(turn.quoted) > 1 and set(turn.pages) <= dict(turn.quoted).keys()


def _citations(language: str, turn: Turn) -> str:
    """Return a chip for each page of an answer, unless its parts have them already."""
    if not turn.pages or _is_parted(turn):
        return ""
    label = tag("span", esc(word(language, "read_from")), class_="yomu-label")
    chips = (_chip(language, turn, number, page) for number, page in enumerate(turn.pages, 1))
    return tag("div", label, *chips, class_="yomu-cites")


def _chip(language: str, turn: Turn, number: int, page: tuple[str, int]) -> str:
    return tag(
        "button",
        tag("span", str(number), class_="yomu-number"),
        esc(page_name(language, *page)),
        type="button", data_event="select", data_document=page[0], data_page=page[1],
        data_query=turn.question, class_="yomu-chip yomu-cite",
    )  # fmt: skip


def _take_away(language: str, turn: Turn) -> str:
    """Return buttons that copy, save and clear in the browser; the server writes nothing."""
    copied = word(language, "copied")
    return tag(
        "div",
        tag("button", esc(word(language, "copy")), type="button", data_copy=turn.answer,
            data_done=copied, class_="yomu-tool"),
        tag("button", esc(word(language, "export_markdown")), type="button",
            data_save=as_markdown(language, turn), data_name="answer.md", class_="yomu-tool"),
        tag("button", esc(word(language, "export_json")), type="button",
            data_save=as_json(turn), data_name="answer.json", class_="yomu-tool"),
        button(word(language, "forget"), "clear", data_confirm=word(language, "forget_sure"),
               data_forget=True, class_="yomu-tool"),
        class_="yomu-tools",
    )  # fmt: skip


def as_markdown(language: str, turn: Turn) -> str:
    """Return a turn as Markdown, its text indented: a model's words are no markup there either."""
    lines = turn.answer.splitlines() or [""]
    cited = [f"{n}. `{name}`, {page}" for n, (name, page) in enumerate(
        ((name.replace("`", "'"), word(language, "page_short", page=page))
         for name, page in turn.pages), 1)]  # fmt: skip
    body = "\n".join(f"    {line}" for line in lines)
    asked = "\n".join(f"    {line}" for line in turn.question.splitlines())
    notes = [f"    {line}" for each in turn.notes for line in each.splitlines()]
    parts = [(word(language, "question"), [asked]), (word(language, "answer"), [body])]
    if notes:  # they say, for one, that these are words of the pages and no answer
        parts.append((word(language, "notes"), notes))
    if cited and not turn.abstained:
        parts.append((word(language, "read_from"), cited))
    return "\n".join(line for head, lines in parts for line in (f"# {head}", "", *lines, ""))


def as_json(turn: Turn) -> str:
    """Return a turn in the shape of `yomu ask --json`."""
    found = {
        "question": turn.question,
        "answer": turn.answer,
        "abstained": turn.abstained,
        "citations": [{"document": name, "page": page} for name, page in turn.pages],
        "hits": [{"document": name, "page": n, "score": score} for name, n, score in turn.hits],
        "seconds": round(turn.seconds, 3),
        "notes": list(turn.notes),
        **_key_json(turn),
    }
    return json.dumps(found, ensure_ascii=False, indent=2)


def _key_json(turn: Turn) -> dict[str, dict[str, str | int]]:
    if turn.key is None or turn.key[0] not in dict(turn.quoted):
        return {}
    page, start, end = turn.key
    text = dict(turn.quoted)[page][start:end]
    return {"key": {"text": text, "document": page[0], "page": page[1]}}


def earlier(language: str, turns: Sequence[Turn]) -> str:
    """Return the questions of this visit before the present one, newest first."""
    if not turns:
        return ""
    rows = [
        tag("details", tag("summary", esc(_shortened(turn.question))),
            tag("div", _claims(language, turn), class_="yomu-text", dir="auto"),
            _citations(language, turn))
        for turn in reversed(turns)
    ]  # fmt: skip
    return section("earlier", word(language, "earlier"), items(rows, "yomu-turns"))


def pdf_link(label: str, document: str, page: int, kind: str | None = None) -> str:
    """Return a link to a document at a page, or "" for one that was no PDF: no viewer opens it."""
    if not document.lower().endswith(".pdf"):
        return ""
    return tag("a", esc(label), href=pdf_url(document, page), target="_blank",
               rel="noopener noreferrer", class_=kind)  # fmt: skip


def viewer(language: str, sheet: Sheet | None, query: str = "") -> str:
    """Return a page with its tools: other pages, zoom, its PDF, heatmap of question and words."""
    title = word(language, "viewer")
    if sheet is None:
        hint = tag("p", esc(word(language, "viewer_empty")), class_="yomu-hint")
        return section("viewer", title, hint)
    parts = [_viewer_bar(language, sheet, query), _layer_bar(language, sheet)]
    if sheet.problem:
        parts.append(note(sheet.problem, "warn"))
    alt = word(language, "page_alt", document=sheet.document, page=sheet.page)
    overlays = "".join(
        image(layer.source, "", class_="yomu-heat" + ("" if n == 0 else " is-off"), data_layer=n)
        for n, layer in enumerate(sheet.layers)
    )
    boxes = "".join(_box(each) for each in sheet.boxes)
    if sheet.source:
        drawn = tag("div", image(sheet.source, alt, class_="yomu-page"), overlays, boxes,
                    class_="yomu-sheet")  # fmt: skip
        parts.append(tag("div", drawn, class_="yomu-scroll", tabindex="0", role="group",
                         aria_label=alt))  # fmt: skip
    if sheet.boxes:
        parts.append(tag("p", esc(word(language, "boxes")), class_="yomu-hint"))
    return section("viewer", title, *parts)


def _box(box: tuple[float, float, float, float]) -> str:
    left, top, right, bottom = (100 * each for each in box)
    place = f"left:{left:.2f}%;top:{top:.2f}%;width:{right - left:.2f}%;height:{bottom - top:.2f}%"
    return tag("span", class_="yomu-box", style=place)


def _viewer_bar(language: str, sheet: Sheet, query: str) -> str:
    def turn_to(page: int, sign: str, key: str) -> str:
        return button(
            sign, "select", data_document=sheet.document, data_page=page, data_query=query,
            class_="yomu-tool", aria_label=word(language, key),
            title=word(language, key), disabled=not 1 <= page <= sheet.n_pages,
        )  # fmt: skip

    def zoom(step: str, sign: str, key: str) -> str:
        return tag("button", sign, type="button", data_zoom=step, class_="yomu-tool",
                   aria_label=word(language, key), title=word(language, key))  # fmt: skip

    place = word(language, "page_of", page=sheet.page, total=sheet.n_pages)
    name = tag("p", tag("strong", esc(sheet.document)), " ", tag("span", esc(place)),
               class_="yomu-place")  # fmt: skip
    link = pdf_link(word(language, "open_pdf"), sheet.document, sheet.page, "yomu-tool")
    tools = tag(
        "div",
        turn_to(sheet.page - 1, "‹", "previous"), turn_to(sheet.page + 1, "›", "next"),
        zoom("out", "−", "zoom_out"), zoom("fit", "↔", "zoom_fit"), zoom("in", "+", "zoom_in"),
        link,
        class_="yomu-tools",
    )  # fmt: skip
    return tag("div", name, tools, class_="yomu-bar")


def _layer_bar(language: str, sheet: Sheet) -> str:
    if not sheet.layers:
        return ""
    label = tag("span", esc(word(language, "heatmap")), class_="yomu-label")

    def choice(name: object, text: str, *, is_on: bool) -> str:
        return tag("button", esc(text), type="button", data_show=name, class_="yomu-chip",
                   aria_pressed="true" if is_on else "false")  # fmt: skip

    total, *words = (choice(n, each.label, is_on=n == 0) for n, each in enumerate(sheet.layers))
    off = choice("none", word(language, "heat_none"), is_on=False)
    return tag("div", label, total, off, *words, class_="yomu-layers", role="group",
               aria_label=word(language, "heatmap"))  # fmt: skip


def comparison(
    language: str, columns: Sequence[tuple[str, Sequence[Card], str]], query: str
) -> str:
    """Return results of one question side by side: (mode, cards, what went wrong or "")."""
    parts = []
    for mode, found, problem in columns:
        body = cards(language, found, query) if found else ""
        if problem:
            body = note(problem, "warn")
        elif not found:
            body = note(word(language, "test_none"))
        parts.append(section("column", word(language, f"mode_{mode}"), body))
    return tag("div", *parts, class_="yomu-columns")
