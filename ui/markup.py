"""HTML of the page, built from escaped text only.

Everything that comes from a file, a page or a model passes `esc`; there is no other way into an
element. So a name such as `<img src=x onerror=…>` is read, never run, and a link the model writes
is its letters. Buttons say what they do in data attributes; page.js turns clicks into events.
"""

import html
from collections.abc import Iterable
from urllib.parse import quote

from ui.texts import word

LAST_PAGE = 2**31 - 1  # no document has more; the index counts no further


def esc(text: object) -> str:
    """Return text as HTML that shows exactly that text, in elements and attributes alike."""
    return html.escape(str(text), quote=True)


def tag(name: str, *children: str, **attributes: object) -> str:
    """Return an element; children are HTML already, attributes are text and get escaped here.

    `class_` stands for class, `data_page` for data-page; True is a bare attribute, and None or
    False leaves it out.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{esc(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return f"<{name}{written}>{''.join(children)}</{name}>"


def image(source: str, alt: str, **attributes: object) -> str:
    """Return an image; alt is what it shows, "" for decoration."""
    return tag("img", src=source, alt=alt, **attributes).removesuffix("</img>")


def button(label: str, event: str, **attributes: object) -> str:
    """Return a button whose click becomes the Gradio event `event` with its data attributes."""
    return tag("button", esc(label), type="button", data_event=event, **attributes)


def section(kind: str, title: str, *children: str) -> str:
    """Return a region with a heading."""
    return tag("section", tag("h2", esc(title)), *children, class_=f"yomu-{kind}", aria_label=title)


def note(text: str, kind: str = "info") -> str:
    """Return one line about what goes on; kind: info, wait, warn or error.

    What is waited for is not live: it changes all the time, and would be read aloud each time.
    """
    role = {"error": "alert", "wait": None}.get(kind, "status")
    return tag("p", esc(text), class_=f"yomu-note yomu-{kind}", role=role)


def items(rows: Iterable[str], kind: str) -> str:
    """Return a list of HTML items."""
    return tag("ul", *(tag("li", row) for row in rows), class_=kind)


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Return names and values (text) as a definition list."""
    return tag(
        "dl",
        *(tag("div", tag("dt", esc(name)), tag("dd", esc(value))) for name, value in rows),
        class_="yomu-pairs",
    )


def pdf_url(document: str, page: int) -> str:
    """Return where the server shows a document, opened at a page."""
    return f"/documents/{quote(document, safe='')}#page={page}"


def page_name(language: str, document: str, page: int) -> str:
    """Return "report.pdf, p. 3"."""
    separator = " " if language == "ja" else ", "
    return f"{document}{separator}{word(language, 'page_short', page=page)}"


def banner(language: str, notes: Iterable[tuple[str, str]]) -> str:
    """Return the head of the page: its name, and a line for each state worth knowing (kind, text).

    It carries the language, which page.js sets for the whole document.
    """
    name = tag("span", "Yomu ", tag("span", "読む", lang="ja"), class_="yomu-name")
    tagline = tag("span", esc(word(language, "tagline")), class_="yomu-tagline")
    lines = "".join(note(text, kind) for kind, text in notes)
    return tag("header", tag("h1", name), tagline, lines, class_="yomu-head", data_lang=language)
