"""What is shown for each event, and that nothing from files, pages or models becomes markup."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from index.errors import IndexCorrupt
from index.records import Failure
from rag.answer import Key
from rag.errors import DocumentError, UsageError
from tests.unit.small_service import PAGES, SmallService, record
from ui import handlers, handlers_library
from ui.errors import NotAllowed, NotReady, ServiceBusy
from ui.handlers import Form, Selection, Shown, reason
from ui.jobs import IngestProgress, IngestSummary, JobFailure
from ui.markup import esc, pdf_url, tag
from ui.markup_ask import Turn, as_json, as_markdown
from ui.requests import Finished

EVIL = "<img src=x onerror=alert(1)>.pdf"


class Elements(HTMLParser):
    """Tags, attributes and text of HTML, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def having(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.tags if name in attrs]


def shown(service, question="total sales in 2023", language="en", turns=(), **form):
    return list(handlers.ask(service, Form(question, **form), turns, language))


def last(parts, name):
    return next(value for part in reversed(parts) if (value := getattr(part, name)) is not None)


def test_pages_are_shown_before_the_first_word():
    parts = shown(SmallService())
    at_pages = next(n for n, part in enumerate(parts) if part.evidence)
    at_words = next(n for n, part in enumerate(parts) if part.answer and "1,420" in part.answer)
    assert at_pages < at_words
    page = Elements(parts[at_pages].evidence)
    assert "report.pdf" in page.text and "p. 1" in page.text and "score" in page.text
    assert page.having("data-first") == ["report.pdf\n1\ntotal sales in 2023"]


def test_an_answer_grows_and_ends_with_its_pages_and_times():
    parts = shown(SmallService())
    texts = [Elements(part.answer).text for part in parts if part.answer]
    assert any("1,420" in text and "total1" not in text for text in texts)
    final = Elements(last(parts, "answer"))
    assert "1,420 in total" in final.text
    cited = [attrs for _, attrs in final.tags if "yomu-cite" in (attrs.get("class") or "").split()]
    assert [(each["data-document"], each["data-page"]) for each in cited] == [("report.pdf", "1")]
    assert "2.2 s" in Elements(last(parts, "progress")).text  # 0.1 + 0.15 + 0.5 + 0.5 + 1
    (turn,) = last(parts, "turns")
    assert turn.answer == "1,420 in total" and turn.is_finished


@pytest.mark.parametrize(("step_s", "n_shown"), [(0.001, 2), (0.06, 100), (0.2, 200)])
def test_a_growing_answer_is_shown_ten_times_a_second_at_most(monkeypatch, step_s, n_shown):
    """200 pieces, each `step_s` after the one before: each sight of them is the whole answer."""
    now = iter(n * step_s for n in range(10**6))
    monkeypatch.setattr(handlers, "time", SimpleNamespace(monotonic=lambda: next(now)))
    service = SmallService(answer=" ".join(f"w{n}" for n in range(200)))
    parts = shown(service)
    growing = [part for part in parts if part.answer and "is-writing" in part.answer]
    before = 2  # the question alone, then with the pages that are read
    assert len(growing) - before == pytest.approx(n_shown, abs=1)
    assert service.answer in Elements(last(parts, "answer")).text
    assert all(part != Shown() for part in parts)


def test_the_place_in_the_queue_is_shown():
    parts = shown(SmallService(), language="ja")
    assert any(part.progress and "前に2件" in part.progress for part in parts)


def test_nothing_relevant_says_so():
    final = shown(SmallService(), "zebra")
    assert "No page of these documents matches" in last(final, "evidence")
    assert last(final, "turns")[0].abstained


def test_an_empty_question_asks_nothing():
    service = SmallService()
    (only,) = shown(service, "  ")
    assert "the question is empty" in only.progress
    assert only == Shown(progress=only.progress)  # the answer before it stays
    assert service.asked == []


@pytest.mark.parametrize(
    "error",
    [
        ServiceBusy("50 are waiting; try again soon"),
        NotReady("the model is being opened"),
        UsageError("no document matches 'x'"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_expected_error_is_one_line(error):
    final = shown(SmallService(fails={"ask": error}))
    assert str(error) in Elements(last(final, "progress")).text
    assert 'role="alert"' in last(final, "progress")


def test_an_error_in_mid_answer_keeps_the_pages():
    final = shown(SmallService(fails={"writing": DocumentError("no page can be read any more")}))
    assert "no page can be read any more" in Elements(last(final, "progress")).text
    assert "report.pdf" in last(final, "evidence")


@pytest.mark.parametrize("at", ["ask", "writing"])
def test_our_own_bugs_are_said_and_logged(at, caplog):
    """Raised on, they would leave the page with nothing said and its buttons disabled."""
    final = shown(SmallService(fails={at: ZeroDivisionError("/srv/x")}), language="ja")
    assert "サーバーのエラーです" in Elements(last(final, "progress")).text
    assert 'aria-busy="true"' not in last(final, "answer")
    assert "ZeroDivisionError" in caplog.text


def test_a_stopped_answer_is_kept_and_called_stopped():
    service, own = SmallService(answer="one two three"), SimpleNamespace(cancelled=False)
    parts = []
    for part in handlers.ask(service, Form("total sales"), (), "en", own):
        parts.append(part)
        own.cancelled = bool(part.answer and "one" in part.answer)
    (turn,) = last(parts, "turns")
    assert turn.answer == "one" and "Stopped." in turn.notes


@pytest.mark.parametrize(
    ("stop_reason", "note"),
    [("length", "The answer reached"), ("repetition", "it repeated itself"), ("end", None)],
)
def test_an_answer_that_was_cut_says_why(stop_reason, note):
    class Cut(SmallService):
        def ask(self, request, cancellation=None):
            for event in super().ask(request, cancellation):
                if isinstance(event, Finished):
                    event = Finished(replace(event.answer, stop_reason=stop_reason))
                yield event

    (turn,) = last(shown(Cut()), "turns")
    assert any(note in each for each in turn.notes) if note else not turn.notes


@pytest.mark.parametrize(("words", "is_said"), [("It was 1,420", True), ("", False)])
def test_only_words_of_a_page_are_called_a_quotation(words, is_said):
    class Quoting(SmallService):
        def ask(self, request, cancellation=None):
            for event in super().ask(request, cancellation):
                if isinstance(event, Finished):
                    quoted = tuple((page, words) for page in event.answer.pages)
                    key = Key(event.answer.pages[0], "1,420", 7) if words else None
                    answer = replace(event.answer, stop_reason="quoted", quotations=quoted, key=key)
                    event = Finished(answer)
                yield event

    (turn,) = last(shown(Quoting()), "turns")
    assert any("words of the pages" in note for note in turn.notes) == is_said
    assert turn.key == ((turn.pages[0], 7, 12) if is_said else None)


def test_closing_the_generator_closes_the_stream():
    closed = []

    class Watched(SmallService):
        def ask(self, request, cancellation=None):
            try:
                yield from super().ask(request, cancellation)
            finally:
                closed.append(True)

    going = handlers.ask(Watched(), Form("total sales"), (), "en")
    next(going), next(going)
    going.close()
    assert closed == [True]


def test_the_form_becomes_a_request():
    service = SmallService()
    past = (Turn("before?", "yes", (("report.pdf", 2),), is_finished=True),)
    shown(service, turns=past, document=" re*.pdf ", date_from="2023-01-01", mode="text", top_k=3,
          pages=2, neighbours=1, is_follow_up=True)  # fmt: skip
    (request,) = service.asked
    assert (request.mode, request.top_k, request.pages, request.neighbours) == ("text", 3, 2, 1)
    assert (request.filters.document, request.filters.date_from) == ("re*.pdf", "2023-01-01")
    assert request.history == (("before?", "yes"),)
    assert [each.key for each in request.kept] == [("report.pdf", 2)]


def test_a_follow_up_goes_on_without_pages_that_were_removed_meanwhile():
    service = SmallService()
    pages = (("gone.pdf", 1), ("kettle.pdf", 1))
    past = (Turn("before?", "yes", pages, is_finished=True),)
    parts = shown(service, turns=past, is_follow_up=True)
    assert [each.key for each in service.asked[0].kept] == [("kettle.pdf", 1)]
    assert last(parts, "turns")[-1].is_finished


def test_a_question_that_is_too_long_is_refused_and_not_cut():
    """Cut, it would lose its end, which is where the question stands below a pasted page."""
    service, long = SmallService(), "word " * 5000 + "what is it?"
    parts = shown(service, long)
    assert service.asked[0].question == long  # the service says how long it may be
    assert len(Elements(last(parts, "answer")).text) < 1000  # and it does not hide its answer


def test_a_new_question_leaves_the_conversation_behind():
    service = SmallService()
    shown(service, turns=(Turn("before?", "yes"),))
    assert service.asked[0].history == () and service.asked[0].pages is None


def test_earlier_questions_stay_in_view():
    parts = shown(SmallService(), turns=(Turn("before?", "yes", is_finished=True),))
    assert "before?" in last(parts, "earlier")
    assert [turn.question for turn in last(parts, "turns")] == ["before?", "total sales in 2023"]


# -- the page viewer -------------------------------------------------------------------------------


def test_a_page_comes_first_and_then_its_heatmap():
    first, second = handlers.show_page(SmallService(), Selection("report.pdf", 1, "total sales"),
                                       (), "en")  # fmt: skip
    assert Elements(first).having("data-layer") == []
    page = Elements(second)
    assert page.having("data-layer") == ["0", "1", "2"]  # whole question, then each word
    assert page.having("data-show") == ["0", "none", "1", "2"]
    assert all(source.startswith("data:image/") for source in page.having("src"))


def test_of_a_very_long_question_the_first_words_have_heatmaps():
    long = " ".join(f"word{n}" for n in range(300))
    *_, html = handlers.show_page(SmallService(), Selection("report.pdf", 1, long), (), "en")
    shown = Elements(html).having("data-show")
    assert shown == ["0", "none", *map(str, range(1, handlers.MAX_WORDS + 1))]


@pytest.mark.parametrize(
    ("question", "labels"),
    [
        ("What were the total sales in 2023", ["total", "sales", "2023"]),
        ("花火 大会 は いつ ですか", ["花火", "大会"]),
        ("what is it", []),
        ("Sales in 2022 and sales in 2023", ["Sales", "2022", "2023"]),
    ],
)
def test_words_that_match_anywhere_or_came_before_have_no_heatmap(question, labels):
    chosen = Selection("report.pdf", 1, question)
    *_, html = handlers.show_page(SmallService(), chosen, (), "en")
    bar = html[html.index("yomu-layers") : html.index("yomu-scroll")]
    assert re.findall(r">([^<>]+)</button>", bar) == ["Whole question", "Off", *labels]


def test_words_of_the_answer_are_framed_on_the_page_it_was_read_from():
    turns = (Turn("total sales", "It was 1,420", (("report.pdf", 1),), is_finished=True),)
    service = SmallService()
    *_, html = handlers.show_page(service, Selection("report.pdf", 1, "total sales"), turns, "en")
    assert "left:10.00%;top:20.00%;width:20.00%;height:5.00%" in html
    assert ("text_boxes", ("1,420",)) in service.done
    *_, other = handlers.show_page(service, Selection("report.pdf", 2, "total sales"), turns, "en")
    assert "yomu-box" not in other


def test_of_a_quoted_answer_only_the_words_of_that_page_are_framed():
    pages = (("report.pdf", 1), ("report.pdf", 2))
    quoted = tuple(zip(pages, ("It was 1,420", ""), strict=True))
    turn = Turn("sales", "report.pdf, p. 1: It was 1,420 …", pages, is_finished=True, quoted=quoted)
    service = SmallService()
    for page in (1, 2):
        list(handlers.show_page(service, Selection("report.pdf", page, "sales"), (turn,), "en"))
    framed = [done[1] for done in service.done if done[0] == "text_boxes"]
    assert framed == [("1,420",), ()]


def test_a_page_without_a_heatmap_says_why():
    service = SmallService(fails={"heatmap": NotReady("the model is being opened")})
    *_, html = handlers.show_page(service, Selection("report.pdf", 1, "sales"), (), "en")
    assert "No heatmap: the model is being opened" in html and "yomu-page" in html


def test_a_page_that_is_gone_is_one_line():
    service = SmallService(fails={"page_image": DocumentError("is not in the index")})
    (html,) = handlers.show_page(service, Selection("gone.pdf", 1), (), "en")
    assert "is not in the index" in html


def test_the_first_and_last_page_turn_no_further():
    (html,) = handlers.show_page(SmallService(), Selection("report.pdf", 2), (), "en")
    turns = [attrs for _, attrs in Elements(html).tags if attrs.get("data-event") == "select"]
    assert [("disabled" in each, each["data-page"]) for each in turns] == [
        (False, "1"),
        (True, "3"),
    ]


@pytest.mark.parametrize(
    "data", [None, "x", {}, {"document": 3, "page": "1"}, {"document": "a", "page": "-1"},
             {"document": "a", "page": "1; drop"}, {"document": "a", "page": "0"},
             {"document": "a", "page": "9" * 5000}, {"document": "a", "page": "2147483648"}],
)  # fmt: skip
def test_a_click_that_names_no_page_is_ignored(data):
    assert Selection.read(data) is None


def test_a_click_that_names_a_page():
    assert Selection.read({"document": "a", "page": "2", "query": "q"}) == Selection("a", 2, "q")


def test_three_ways_are_compared_and_one_that_fails_leaves_the_others():
    class NoModel(SmallService):
        def search(self, request):
            if request.mode != "text":
                raise NotReady("the model is being opened")
            return super().search(request)

    *_, html = handlers.compare(NoModel(), "total sales", 3, "en")
    page = Elements(html)
    assert page.text.count("the model is being opened") == 2 and "report.pdf" in page.text


# -- library and status ----------------------------------------------------------------------------


def progress(**changed):
    known = IngestProgress("1", 1, 3, 5, 10, 2.5, 2.0)
    return replace(known, **changed)


class House(SmallService):
    """The small service with what library and status ask for."""

    index_error = ""

    def status(self):
        return SimpleNamespace(
            state=self.state, reason="/srv/models/x: no such folder", model="embedded",
            is_embedded=True, device="cpu", precision="int8", index="/srv/secret/.yomu",
            n_documents=len(self.records), n_pages=4, bytes={"total": 12_345_678},
            index_error=self.index_error, versions={"gradio": "6.31.0"}, job=self.progress,
            waiting=0,
        )  # fmt: skip

    def job(self):
        return self.progress

    def mark(self):
        return (tuple(self.records),)

    def sizes(self):
        return len(self.records), 4, {"total": 2_500_000, "images": 1_000}

    def store_upload(self, name, given):
        self._do("store_upload", name)
        return given

    def ingest(self, sources, *, uploaded, passwords=()):
        self._do("ingest", [str(each) for each in sources], uploaded)
        return "1"

    def remove(self, document):
        self._do("remove", document)

    def reread(self, document, passwords=()):
        self._do("reread", document)
        return "1"


def test_an_index_that_cannot_be_read_is_said_in_the_head():
    house = House(records=[], fails={"documents": IndexCorrupt("index.db: damaged")})
    house.index_error = "index.db: damaged"
    found = handlers_library.look(house, "en")
    assert "index.db: damaged" in found.banner and "index.db: damaged" in found.documents
    assert "No documents yet" not in found.banner


@pytest.mark.parametrize("what", ["no document matches 'x*'", "the index .yomu holds no document"])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_where_nothing_is_to_look_at_the_page_names_its_own_tab(what, language):
    said = reason(f"{what}; `yomu list` shows all, `yomu ingest` adds some", language)
    assert "yomu list" not in said and "yomu ingest" not in said
    assert language == "ja" or said.endswith("; the Library tab shows all and adds some")


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_document_that_was_removed_is_looked_for_on_the_page(language):
    said = reason("no document 'a.pdf' in the index; `yomu list` shows all names", language)
    assert "a.pdf" in said and "yomu" not in said
    assert language == "en" or re.search("[ぁ-ん]", said)


def test_an_index_of_another_model_is_said_without_the_command_line():
    house = House()
    house.index_error = (
        "index: this index was made with model a1 (now b2); use --model colqwen2, or ingest again "
        "into a new folder with `yomu ingest PATH --index NEW`"
    )
    for language in ("en", "ja"):
        for html in (
            handlers_library.look(house, language).banner,
            handlers_library.status_page(house, language),
        ):
            assert "model a1 (now b2)" in html and "yomu ingest" not in html


def test_a_run_that_was_stopped_is_not_called_finished():
    note = JobFailure("links", None, "is a link to a folder and was not followed; name it")
    summary = IngestSummary(1, 0, 0, 0, 2, 0, 1.0, (note,))
    for stopped, title in ((True, "Stopped"), (False, "Finished")):
        progress = IngestProgress("1", finished=True, stopped=stopped, report=summary)
        shown = handlers_library.look(House(progress=progress), "en").job
        assert title in shown
        assert "was not followed" in shown and "Remarks" in shown


def test_a_run_is_not_read_aloud_on_its_way():
    """Its numbers change every two seconds: a screen reader would never come to an end."""
    running = handlers_library.look(House(progress=progress()), "en")
    assert "of 10 pages" in running.banner
    for html in (running.banner, running.job):
        assert Elements(html).having("role") in ([], ["progressbar"])
    assert 'role="status"' in handlers_library.add_files(House(), [("a.pdf", "/t/1")], "en")
    report = IngestSummary(2, 0, 0, 1, 5, 0, 3.0)
    done = handlers_library.look(House(progress=progress(finished=True, report=report)), "en")
    assert "status" in Elements(done.job).having("role")


def test_uploads_that_were_dropped_are_named():
    html = handlers_library.look(House(progress=progress(finished=True, dropped=(EVIL,))), "ja").job
    assert "保存していないもの" in html and esc(EVIL) in html and EVIL not in html


def test_nothing_indexed_says_what_to_do():
    found = handlers_library.look(House(records=[]), "en")
    assert "Nothing is indexed yet" in found.banner and "ingest.py samples/" in found.banner
    assert found.examples == "" and found.names == []
    assert "Nothing is indexed yet" in found.documents and "Library" not in found.documents


def test_a_run_shows_how_far_it_is():
    found = handlers_library.look(House(progress=progress()), "en")
    assert "5 of 10 pages" in found.banner
    assert 'aria-valuenow="50"' in found.job
    assert "2.5 pages per second" in found.job and "0:02" in found.job


def test_a_finished_run_lists_what_failed_and_why():
    report = IngestSummary(2, 0, 0, 1, 5, 0, 3.0)
    failed = (JobFailure("bad.pdf", None, "encrypted: give --password"),)
    done = progress(finished=True, report=report, failures=failed)
    html = handlers_library.look(House(progress=done), "en").job
    assert "2 added, 0 updated, 0 unchanged, 1 failed" in html
    assert "bad.pdf" in html and "encrypted" in html


def test_documents_show_their_state_and_reasons():
    rows = [record("a.pdf", status="damaged"), record("b.pdf", status="failed", reason="is empty")]
    service = House(records=rows, failures=[Failure("a.pdf", 3, "took longer than 60 s")])
    text = Elements(handlers_library.look(service, "en").documents).text
    assert "some pages failed" in text and "p. 3: took longer than 60 s" in text
    assert "could not be read" in text and "is empty" in text
    assert "File changed (uploads: day of upload)" in text
    assert "アップロード" in Elements(handlers_library.look(service, "ja").documents).text


def test_what_is_unchanged_is_not_sent_again():
    service = House()
    seen = handlers_library.look(service, "en").seen
    again = handlers_library.look(service, "en", seen)
    assert again == handlers_library.Looked(seen=seen)
    service.progress = progress()
    assert handlers_library.look(service, "en", seen).banner is not None
    service.progress = None
    service.records[0] = record(service.records[0].name, status="damaged")  # as many as before
    assert "some pages failed" in handlers_library.look(service, "en", seen).documents


def test_a_run_that_ends_while_it_is_looked_at_is_not_called_running_for_good():
    class Ending(House):
        def status(self):
            found = super().status()
            report = IngestSummary(1, 0, 0, 0, 5, 0, 1.0)
            if self.progress is not None and not self.progress.finished:
                self.progress = progress(finished=True, report=report)
            else:
                found.job = None
            return found

    house = Ending(progress=progress())
    first = handlers_library.look(house, "en")
    assert "Still indexing" in first.banner and "Finished" in first.job
    then = handlers_library.look(house, "en", first.seen)
    assert "Still indexing" not in then.banner and then.is_busy is False
    assert handlers_library.look(house, "en", then.seen).banner is None


@pytest.mark.parametrize(
    ("house", "is_busy"),
    [
        (House(), False), (House(state="loading"), True), (House(progress=progress()), True),
        (House(state="failed"), False), (House(fails={"documents": IndexCorrupt("x")}), False),
    ],
)  # fmt: skip
def test_the_page_is_told_whether_something_goes_on(house, is_busy):
    found = handlers_library.look(house, "en")
    assert found.is_busy is is_busy
    assert handlers_library.look(house, "en", found.seen).is_busy is None


def test_uploads_are_taken_one_by_one():
    class Picky(House):
        def store_upload(self, name, given):
            if name == "x.exe":
                raise NotAllowed("x.exe is no PDF, image or Office file")
            return super().store_upload(name, given)

    service = Picky()
    html = handlers_library.add_files(service, [("a.pdf", "/t/1"), ("x.exe", "/t/2")], "en")
    assert "is no PDF" in html and "1 file was taken" in html
    assert ("ingest", ["/t/1"], True) in service.done


def test_a_folder_that_is_not_allowed_is_refused_in_one_line():
    service = House(fails={"ingest": NotAllowed("only folders below samples may be read")})
    assert "only folders below samples" in handlers_library.read_folder(service, "/etc", "en")
    assert handlers_library.read_folder(service, " ", "en") == ""


def test_removing_and_reading_again_reach_the_service():
    service = House()
    assert "was removed" in handlers_library.remove(service, "a.pdf", "en")
    assert "read again" in handlers_library.reread(service, "a.pdf", "en")
    assert service.done == [("remove", "a.pdf"), ("reread", "a.pdf")]


@pytest.mark.parametrize(("state", "says"), [("loading", "準備"), ("failed", "使えません")])
def test_the_state_of_the_model_is_in_the_head(state, says):
    assert says in handlers_library.look(House(state=state), "ja").banner


def test_the_status_page_says_what_the_model_can_do():
    html = handlers_library.status_page(House(), "en")
    assert (
        "12.3 MB" in html and "does not write answers of its own yet" in html and "gradio" in html
    )


# -- safety ----------------------------------------------------------------------------------------


def test_names_page_text_and_answers_are_text():
    service = House(answer="<script>alert(1)</script> ![x](http://evil.example/x.png) [a](b)")
    parts = shown(service, "sales <b>now</b>")
    *_, sheet = handlers.show_page(service, Selection(EVIL, 1, "<i>sales</i>"), (), "en")
    *_, columns = handlers.compare(service, "sales", 5, "en")
    library = handlers_library.look(service, "en")
    htmls = [
        last(parts, "evidence"), last(parts, "answer"), sheet, columns, library.documents,
        handlers_library.remove(service, EVIL, "en"),
    ]  # fmt: skip
    for html in htmls:
        found = Elements(html)
        assert not {name for name, _ in found.tags} & {"script", "b", "i", "iframe", "object"}
        assert not [key for _, attrs in found.tags for key in attrs if key.startswith("on")]
        assert all(each.startswith("data:image/") for each in found.having("src"))
        assert all(each.startswith("/documents/") for each in found.having("href"))
    assert EVIL in Elements(last(parts, "evidence")).text
    assert "<script>alert(1)</script>" in Elements(last(parts, "answer")).text


def test_no_path_of_the_server_reaches_the_page():
    line = "/srv/secret/.yomu: index is locked by 12; see '/home/x/a b.txt' and ../q and 3/4 pages"
    assert "/srv" not in reason(line) and "/home" not in reason(line)
    assert "index is locked by 12" in reason(line) and "3/4 pages" in reason(line)
    for html in (
        handlers_library.status_page(House(), "en"),
        handlers_library.look(House(state="failed"), "en").banner,
        handlers_library.look(House(), "en").documents,
    ):
        assert "/srv" not in html


def test_escaping_holds_in_elements_and_attributes():
    html = tag("p", esc("<&\"'>"), data_x="\"'><script>")
    assert Elements(html).text == "<&\"'>"
    assert Elements(html).tags == [("p", {"data-x": "\"'><script>"})]


def test_a_pdf_address_cannot_leave_its_place():
    assert pdf_url("../a b#c?.pdf", 3) == "/documents/..%2Fa%20b%23c%3F.pdf#page=3"


def test_exports_hold_the_answer_and_its_pages():
    turn = Turn("q?", "a\n# not a heading", (("`x`.pdf", 2),), (("`x`.pdf", 2, 0.5),))
    found = json.loads(as_json(turn))
    assert found["citations"] == [{"document": "`x`.pdf", "page": 2}]
    assert found["hits"] == [{"document": "`x`.pdf", "page": 2, "score": 0.5}]
    assert "\n    # not a heading\n" in as_markdown("en", turn)
    assert "1. `'x'.pdf`, p. 2" in as_markdown("en", turn)


def test_every_page_of_the_small_service_can_be_found():
    assert {hit.document for hit in SmallService().search(
        SimpleNamespace(text="sales kettle", mode="text", top_k=9)).hits} == set(PAGES)  # fmt: skip
