"""HTML of the library and of the status page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ui.markup import button, esc, items, note, page_name, pairs, section, tag
from ui.markup_ask import pdf_link
from ui.texts import size_text, time_text, word


@dataclass(frozen=True)
class Row:
    """A document in the table; problems: (page or None, reason)."""

    name: str
    status: str
    n_pages: int
    n_stored: int
    n_bytes: int
    date: str = ""
    problems: tuple[tuple[int | None, str], ...] = ()


@dataclass(frozen=True)
class Job:
    """A run of ingestion as it goes; seconds_left None: not known yet."""

    documents: tuple[int, int]  # done, total
    pages: tuple[int, int]
    pages_per_second: float = 0.0
    seconds_left: float | None = None
    is_finished: bool = False
    is_stopped: bool = False  # by someone, before its end
    remarks: tuple[tuple[str, int | None, str], ...] = ()  # as problems, of what was read
    problems: tuple[tuple[str, int | None, str], ...] = ()  # document, page, reason
    dropped: tuple[str, ...] = ()  # uploads that were not read and are not kept
    summary: Mapping[str, int] | None = None  # added, updated, unchanged, failed
    error: str = ""


def job(language: str, running: Job | None) -> str:
    """Return the progress of a run, or what it came to."""
    if running is None:
        return tag("p", esc(word(language, "job_idle")), class_="yomu-hint")
    ended = "job_stopped" if running.is_stopped else "job_finished"
    title = word(language, ended if running.is_finished else "job_running")
    bar = [] if running.is_finished else [_bar(title, *running.pages)]
    parts = [*bar, _job_numbers(language, running)]
    if running.error:
        parts.append(note(word(language, "error", reason=running.error), "error"))
    for key, found in (("job_failures", running.problems), ("job_remarks", running.remarks)):
        if found:
            rows = [_problem(language, *each) for each in found]
            parts += [tag("h3", esc(word(language, key))), items(rows, "yomu-problems")]
    if running.dropped:
        names = [tag("strong", esc(name)) for name in running.dropped]
        parts += [tag("h3", esc(word(language, "job_dropped"))), items(names, "yomu-problems")]
    if not running.is_finished:
        parts.append(button(word(language, "job_cancel"), "clear", class_="yomu-tool"))
    return section("job", title, *parts)


def _bar(label: str, done: int, total: int) -> str:
    share = 100 * done / total if total else 0
    filled = tag("span", style=f"width:{share:.1f}%")
    return tag(
        "div", filled, class_="yomu-meter", role="progressbar", aria_label=label,
        aria_valuemin=0, aria_valuemax=100, aria_valuenow=round(share),
    )  # fmt: skip


def _job_numbers(language: str, running: Job) -> str:
    counts = [
        word(language, key, done=done, total=total)
        for key, (done, total) in (
            ("job_documents", running.documents), ("job_pages", running.pages),
        ) if total
    ]  # fmt: skip
    if running.summary is not None:
        counts = [word(language, "job_summary", **running.summary)]
    elif running.pages_per_second:
        counts.append(word(language, "job_speed", speed=f"{running.pages_per_second:.1f}"))
    if running.seconds_left is not None and not running.is_finished:
        counts.append(word(language, "job_left", left=time_text(running.seconds_left)))
    is_live = running.is_finished  # read aloud is the end, not every number on the way
    role = "status" if is_live else None
    return tag("p", esc(" · ".join(counts)), class_="yomu-hint", role=role)


def _problem(language: str, document: str, page: int | None, reason: str) -> str:
    whole = word(language, "whole_document", document=document)
    name = whole if page is None else page_name(language, document, page)
    return tag("strong", esc(name)) + esc(f"{': ' if language == 'en' else '：'}{reason}")


def documents(language: str, rows: Sequence[Row]) -> str:
    """Return the documents with pages, state and what can be done with each."""
    title = word(language, "documents")
    if not rows:
        return section("documents", title, note(word(language, "empty_title")))
    heads = ("name", "page_count", "size", "date", "state", "actions")
    head = tag("tr", *(tag("th", esc(word(language, each)), scope="col") for each in heads))
    body = "".join(_row(language, row) for row in rows)
    table = tag("table", tag("thead", head), tag("tbody", body))
    wrapped = tag("div", table, class_="yomu-table", tabindex="0", role="group", aria_label=title)
    return section("documents", title, wrapped)


def _row(language: str, row: Row) -> str:
    pages = f"{row.n_stored} / {row.n_pages}" if row.n_stored != row.n_pages else str(row.n_pages)
    is_known = row.n_pages > 0 or row.n_bytes > 0  # what could not be opened has neither
    link = pdf_link(row.name, row.name, 1) if row.n_stored else ""  # unread: may be no PDF at all
    name = link or esc(row.name)
    status = row.status if row.n_stored or row.status != "damaged" else "failed"
    state = tag("span", esc(word(language, f"status_{status}")),
                class_=f"yomu-state is-{row.status}")  # fmt: skip
    reasons = "".join(_reason(language, page, reason) for page, reason in row.problems)
    cells = (
        ("name", name), ("page_count", esc(pages) if is_known else ""),
        ("size", esc(size_text(row.n_bytes)) if is_known else ""),
        ("date", esc(row.date)), ("state", state + reasons), ("actions", _actions(language, row)),
    )  # fmt: skip
    return tag(
        "tr",
        *(tag("td", cell, data_label=word(language, key), class_=f"is-{key}")
          for key, cell in cells),
        data_document=row.name,
    )  # fmt: skip


def _reason(language: str, page: int | None, reason: str) -> str:
    where = "" if page is None else word(language, "page_short", page=page) + ": "
    return tag("p", esc(where + reason), class_="yomu-reason")


def _actions(language: str, row: Row) -> str:
    def act(event: str, key: str, confirm: str | None) -> str:
        label = word(language, key)
        return button(
            label, event, data_document=row.name, data_confirm=confirm, class_="yomu-tool",
            aria_label=f"{label}: {row.name}",
        )  # fmt: skip

    sure = word(language, "remove_sure")
    return act("select", "reread", None) + act("delete", "remove", sure)


def usage(language: str, sizes: Mapping[str, int]) -> str:
    """Return the space used, part by part, and what it comes to."""
    known = [
        (word(language, f"usage_{part}"), size_text(sizes[part]))
        for part in _PARTS
        if part in sizes
    ]
    return section("usage", word(language, "usage"), pairs(known))


# As they are shown: the parts stand right above their sum, and what is no part of it before them.
_PARTS = ("per_page", "vectors", "codes", "images", "database", "uploads", "total")


def status(
    language: str, rows: Sequence[tuple[str, str]], versions: Sequence[tuple[str, str]], about: str
) -> str:
    """Return model, device, index and versions, and in plain words what the model can do."""
    can = tag("p", esc(about))
    return tag(
        "div",
        section("about", word(language, "about_model"), can),
        section("facts", word(language, "tab_status"), pairs(rows)),
        section("facts", word(language, "status_versions"), pairs(versions)),
        class_="yomu-status",
    )
