"""The service in this process: order of events, cancelling, one ingest beside searches."""

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag.errors import DocumentError, UsageError
from rag.house import House
from rag.records import DocumentUnknown, Filters, IndexLocked, IndexMismatch, IndexMissing
from rag.settings import Settings
from tests import odd_files as odd
from tests.e2e.conftest import ROOT, SAMPLES
from tests.e2e.test_ask import answer_from
from ui.errors import NotAllowed, NotReady, RequestTimeout, ServiceBusy
from ui.requests import (
    AskRequest,
    Finished,
    Found,
    Piece,
    Queued,
    SearchRequest,
    ServiceLimits,
    Stage,
)
from ui.service import Service
from ui.uploads import Unread
from ui.wire import AskBody, status_of

KETTLE = "What is the capacity of the kettle?"


@pytest.fixture
def make(both_roles, samples_index, tmp_path):
    """Services on a copy of the samples' index (or none), closed at the end."""
    made = []

    def service(*, is_empty=False, threshold=0.0, model=None, **limits) -> Service:
        if not (tmp_path / "model").exists():
            shutil.copytree(both_roles, tmp_path / "model")
        answer_from(tmp_path / "model", threshold)
        if not is_empty and not (tmp_path / "index").exists():
            shutil.copytree(samples_index, tmp_path / "index")
        settings = Settings(
            index=tmp_path / "index", model=model or str(tmp_path / "model"), ocr="off",
            device="cpu", readers=1,
        )  # fmt: skip
        made.append(Service(settings, ServiceLimits(**limits), (SAMPLES,)))
        made[-1].start()
        return made[-1]

    yield service
    for each in made:
        each.close()


def wait_for_job(service):
    for _ in range(3000):
        if service.library.job().finished:
            return service.library.job()
        time.sleep(0.1)
    raise AssertionError(service.library.job())


def test_events_come_in_order(make):
    events = list(make().ask(AskRequest(KETTLE, max_new_tokens=4)))
    assert isinstance(events[0], Found)
    assert events[0].hits[0].document == "kettle-manual.pdf"
    kinds = [type(event) for event in events]
    assert kinds[1:3] == [Stage, Stage]
    assert set(kinds[3:-1]) == {Piece}
    assert [event.name for event in events if isinstance(event, Stage)] == ["reading", "writing"]
    pieces = "".join(event.text for event in events if isinstance(event, Piece))
    assert isinstance(events[-1], Finished)
    assert events[-1].answer.text == pieces.strip()


def test_nothing_found_needs_no_turn(make):
    service = make(threshold=1.1)
    first = service.ask(AskRequest(KETTLE))
    events = list(first)
    assert events[0].abstained
    assert events[0].pages == ()
    assert [type(event) for event in events] == [Found, Piece, Finished]


def test_a_quotation_does_not_wait_for_the_model(make, tmp_path):
    service = make()
    first = service.ask(AskRequest(KETTLE, client="a", max_new_tokens=64))
    assert isinstance(next(first), Found)
    assert next(first).name == "reading"  # has the turn
    (tmp_path / "model" / "answer.json").write_text('{"quotes": true}')
    events = list(service.ask(AskRequest(KETTLE, client="b")))
    assert [type(event) for event in events] == [Found, Piece, Finished]
    assert "1.7 litres" in events[-1].answer.text
    assert events[-1].answer.citations[0].document == "kettle-manual.pdf"
    first.close()


def test_a_model_that_quotes_writes_when_told_to(make, tmp_path):
    service = make()
    (tmp_path / "model" / "answer.json").write_text('{"quotes": true}')
    told = {"question": KETTLE, "max_new_tokens": 3, "generate": True}
    written = list(service.ask(AskBody.model_validate(told).request("a")))[-1]
    assert written.answer.stop_reason in ("end", "length")
    assert written.answer.timings.tokens <= 3
    quoted = list(service.ask(AskRequest(KETTLE)))[-1]
    assert quoted.answer.stop_reason == "quoted"


def test_found_comes_before_the_turn_and_closing_frees_it(make):
    service = make()
    first = service.ask(AskRequest(KETTLE, client="a", max_new_tokens=64))
    assert isinstance(next(first), Found)
    assert next(first).name == "reading"
    second = service.ask(AskRequest("kettle", client="b", max_new_tokens=2))
    assert isinstance(next(second), Found)
    assert next(second) == Queued(1)
    assert service.status().waiting == 1
    first.close()
    assert [type(event) for event in second][-1] is Finished
    assert service.status().waiting == 0


def test_searches_do_not_wait_for_answers(make):
    service = make()
    first = service.ask(AskRequest(KETTLE, client="a", max_new_tokens=64))
    assert isinstance(next(first), Found)
    assert next(first).name == "reading"  # has the turn, and keeps it
    second = service.ask(AskRequest("kettle", client="b", max_new_tokens=2))
    assert isinstance(next(second), Found)
    assert next(second) == Queued(1)
    with ThreadPoolExecutor(1) as pool:
        try:
            assert pool.submit(service.search, SearchRequest("kettle")).result(300).hits
            assert service.status().waiting == 1
        finally:
            first.close()
            second.close()


def test_a_full_line_and_a_long_wait_are_told(make):
    service = make(most_waiting=1, wait_s=0.0)
    first = service.ask(AskRequest(KETTLE))
    next(first), next(first)
    second = service.ask(AskRequest(KETTLE))
    next(second), next(second)
    with pytest.raises(ServiceBusy):
        list(service.ask(AskRequest(KETTLE)))
    with pytest.raises(RequestTimeout):
        list(second)
    first.close()
    assert service.status().waiting == 0


def test_an_answer_that_takes_too_long_is_stopped(make):
    service = make(answer_s=0.0)
    with pytest.raises(RequestTimeout):
        list(service.ask(AskRequest(KETTLE, max_new_tokens=500)))
    assert isinstance(list(make().ask(AskRequest(KETTLE, max_new_tokens=2)))[-1], Finished)


def test_no_index_is_a_state_not_a_fault(make, tmp_path):
    service = make(is_empty=True)
    assert service.status().n_documents == 0
    assert service.library.documents() == ((), [])
    with pytest.raises(IndexMissing, match="nothing is indexed yet"):
        service.search(SearchRequest("x", mode="text"))
    id_of_job = service.library.ingest([SAMPLES / "kettle-manual.pdf"], uploaded=False)
    state = wait_for_job(service)
    assert (state.id, state.error, state.report.added, state.pages_done) == (id_of_job, "", 1, 2)
    found = service.search(SearchRequest("kettle"))
    assert found.hits[0].document == "kettle-manual.pdf"
    assert service.status().n_pages == 2


def test_searches_go_on_while_documents_are_added_and_it_can_be_stopped(make, tmp_path):
    service = make()
    big = odd.text_pdf(tmp_path / "big.pdf", [f"walnut {n} " * 30 for n in range(300)])
    path = service.library.store_upload("big.pdf", big)
    service.library.ingest([path], uploaded=True)
    with pytest.raises(ServiceBusy):
        service.library.reread("kettle-manual.pdf")
    assert service.search(SearchRequest("kettle")).hits
    service.library.cancel_job()
    state = wait_for_job(service)
    assert state.stopped
    assert state.pages_done < 300
    service.library.remove("big.pdf")
    assert not path.exists()
    assert service.search(SearchRequest("walnut", mode="text")).hits == ()


def test_uploads_during_a_job_are_read_by_it(make, tmp_path):
    service = make()
    first = odd.text_pdf(tmp_path / "a.pdf", [f"walnut {n}" for n in range(20)])
    second = odd.text_pdf(tmp_path / "b.pdf", ["hazelnut"])
    library = service.library
    number = library.ingest([library.store_upload("a.pdf", first)], uploaded=True)
    assert library.ingest([library.store_upload("b.pdf", second)], uploaded=True) == number
    state = wait_for_job(service)
    assert (state.id, state.report.added, state.report.pages_added) == (number, 2, 21)
    assert service.search(SearchRequest("hazelnut", mode="text")).hits[0].document == "b.pdf"
    assert library.ingest([library.store_upload("b.pdf", second)], uploaded=True) != number
    assert wait_for_job(service).report.unchanged == 1


def test_passwords_of_uploads_that_wait_are_tried(make, tmp_path):
    service = make()
    library = service.library
    first = odd.text_pdf(tmp_path / "a.pdf", [f"walnut {n}" for n in range(20)])
    locked = odd.encrypted_pdf(tmp_path / "b.pdf", "secret")
    number = library.ingest([library.store_upload("a.pdf", first)], uploaded=True)
    uploads = [library.store_upload("b.pdf", locked)]
    assert library.ingest(uploads, uploaded=True, passwords=("secret",)) == number
    assert wait_for_job(service).report.added == 2


def test_uploads_that_are_not_read_are_not_kept(make, tmp_path):
    service = make()
    library = service.library
    kept = library.store_upload("own.pdf", (SAMPLES / "kettle-manual.pdf").read_bytes())
    library.ingest([kept], uploaded=True)
    wait_for_job(service)
    big = odd.text_pdf(tmp_path / "big.pdf", [f"walnut {n} " * 30 for n in range(300)])
    unread = library.store_upload("z.pdf", odd.text_pdf(tmp_path / "z.pdf", ["never begun"]))
    library.ingest([library.store_upload("big.pdf", big), unread], uploaded=True)
    more = library.store_upload("more.pdf", odd.text_pdf(tmp_path / "more.pdf", ["hazelnut"]))
    library.ingest([more, kept], uploaded=True)
    library.cancel_job()
    stopped = wait_for_job(service)
    assert stopped.stopped
    assert {"more.pdf", "z.pdf"} <= set(stopped.dropped)
    assert "own.pdf" not in stopped.dropped
    assert not (library.folder / ".unread").exists()
    assert not more.exists()
    assert not unread.exists()
    assert kept.exists()  # a document was read from it
    with library._writing:  # as while a document is removed
        again = library.store_upload("more.pdf", odd.text_pdf(tmp_path / "more.pdf", ["hazelnut"]))
        with pytest.raises(ServiceBusy):
            library.ingest([again, kept], uploaded=True)
    assert not again.exists()
    assert kept.exists()


def test_uploads_that_were_taken_are_read_after_a_restart(make, tmp_path):
    service = make()
    library = service.library
    big = odd.text_pdf(tmp_path / "big.pdf", [f"walnut {n} " * 30 for n in range(60)])
    library.ingest([library.store_upload("big.pdf", big)], uploaded=True)
    more = odd.text_pdf(tmp_path / "more.pdf", ["hazelnut"])
    library.ingest([library.store_upload("more.pdf", more)], uploaded=True)
    service.close()
    assert library.job().dropped == ()
    again = make()
    again.wait(300)
    state = wait_for_job(again)
    assert (state.error, state.n_failed) == ("", 0)
    status = {each.name: each.status for each in again.library.documents()[0]}
    assert (status["big.pdf"], status["more.pdf"]) == ("complete", "complete")
    assert not (library.folder / ".unread").exists()
    again.close()
    House(tmp_path / "index").remove_documents(
        ["more.pdf"]
    )  # its file stays, and is not read again
    third = make()
    third.wait(300)
    assert third.library.job() is None


def test_what_is_owed_stays_where_a_resumed_job_fails(make, monkeypatch, tmp_path):
    service = make()
    service.wait(300)
    library = service.library
    path = library.store_upload("own.pdf", odd.text_pdf(tmp_path / "own.pdf", ["own"]))
    Unread(library.folder).add([path])

    def refused(*_):
        raise IndexLocked("index: another process is writing to this index; wait")

    with monkeypatch.context() as broken:
        broken.setattr("ui.library.Pipeline", refused)
        library.resume()
        assert wait_for_job(service).error
    assert path.exists()
    library.resume()
    assert wait_for_job(service).report.added == 1


def test_uploads_after_a_job_that_could_not_begin_are_read(make, monkeypatch, tmp_path):
    service = make()
    library = service.library

    def refused(*_):
        raise DocumentUnknown("'kettle-manual.pdf' went away")

    with monkeypatch.context() as broken:
        broken.setattr("rag.house.House.read_again", refused)
        library.reread("kettle-manual.pdf")
        assert "went away" in wait_for_job(service).error
    own = library.store_upload("own.pdf", (SAMPLES / "kettle-manual.pdf").read_bytes())
    library.ingest([own], uploaded=True)
    assert wait_for_job(service).report.added == 1
    with monkeypatch.context() as broken:
        broken.setattr("ui.library.Pipeline", refused)
        lost = library.store_upload("lost.pdf", odd.text_pdf(tmp_path / "lost.pdf", ["lost"]))
        library.ingest([lost], uploaded=True)
        assert wait_for_job(service).error
    assert not lost.exists()
    again = library.store_upload("lost.pdf", odd.text_pdf(tmp_path / "lost.pdf", ["lost"]))
    library.ingest([again], uploaded=True)
    assert wait_for_job(service).report.added == 1


def test_uploads_of_a_linked_folder_go_when_they_are_removed(samples_index, tiny_model, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    settings = Settings(index=tmp_path / "link/index", model=str(tiny_model), ocr="off")
    service = Service(settings, ServiceLimits(), ())
    service.start()
    try:
        path = service.library.store_upload("own.pdf", odd.text_pdf(tmp_path / "own.pdf", ["own"]))
        service.library.ingest([path], uploaded=True)
        assert wait_for_job(service).report.added == 1
        service.library.remove("own.pdf")
        assert not path.exists()
    finally:
        service.close()


def test_what_was_said_before_may_be_long(make):
    asked = AskRequest(KETTLE, history=(("And?", "word " * 3000),), max_new_tokens=1)
    assert isinstance(list(make().ask(asked))[-1], Finished)


def test_an_index_is_weighed_again_only_when_it_has_changed(make, monkeypatch, tmp_path):
    weighed = []
    stats = House.stats
    monkeypatch.setattr(House, "stats", lambda self: weighed.append(1) or stats(self))
    service = make()
    before = service.status()
    assert service.search(SearchRequest("kettle", mode="text")).hits
    assert [service.status().n_pages for _ in range(3)] == [before.n_pages] * 3
    assert service.model_name == before.model
    assert len(weighed) == 1
    House(tmp_path / "index").remove_documents(["kettle-manual.pdf"])  # as another process does
    after = service.status()
    assert after.n_documents == before.n_documents - 1
    assert after.bytes["total"] != before.bytes["total"]
    assert len(weighed) == 2


def other_model(folder: Path) -> Path:
    """Make a model another one as far as an index can tell."""
    path = folder / "model.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"skip_blank_blocks": not said["skip_blank_blocks"]}))
    return folder


def test_an_index_of_another_model_is_named_by_the_status(make, both_roles, tmp_path):
    service = make(model=str(other_model(Path(shutil.copytree(both_roles, tmp_path / "other")))))
    service.wait(300)
    status = service.status()
    assert "was made with model" in status.index_error
    assert str(tmp_path) not in status.index_error
    assert status.n_documents == 5
    for _ in range(3):
        assert service.search(SearchRequest("kettle", mode="text")).hits
        with pytest.raises(IndexMismatch) as told:
            service.search(SearchRequest("kettle"))
    assert status_of(told.value) == 409
    assert service._pipeline._retired == []  # nor does it keep an open file for each try
    shutil.rmtree(tmp_path / "index")
    assert service.status().index_error == ""


def test_the_model_that_ships_is_known_by_its_path_as_well(tmp_path):
    by_path = str(ROOT / "models/../models/embedded")
    for model, is_it in (("embedded", True), (by_path, True), ("gone", False)):
        service = Service(Settings(index=tmp_path / "none", model=model), ServiceLimits(), ())
        assert service.status().is_embedded is is_it


def test_an_index_that_is_deleted_no_longer_answers(make, samples_index, tmp_path):
    service = make()
    request = SearchRequest("kettle")
    assert service.search(request).hits
    shutil.rmtree(tmp_path / "index")
    for mode in ("text", "hybrid"):
        with pytest.raises(IndexMissing, match="nothing is indexed yet"):
            service.search(replace(request, mode=mode))
    assert service.status().n_documents == 0
    shutil.copytree(samples_index, tmp_path / "index")
    House(tmp_path / "index").remove_documents(["kettle-manual.pdf"])
    assert "kettle-manual.pdf" not in {hit.document for hit in service.search(request).hits}


def test_a_damaged_index_is_named_by_the_status(make, tmp_path):
    service = make()
    service.close()
    (tmp_path / "index" / "index.db").write_bytes(b"no database at all" * 1000)
    status = make().status()
    assert "index.db" in status.index_error
    assert "/" not in status.index_error
    assert (status.n_documents, status.n_pages) == (0, 0)


def test_a_document_that_cannot_be_read_again_is_not_lost(make):
    service = make()
    path = service.library.store_upload("own.pdf", (SAMPLES / "kettle-manual.pdf").read_bytes())
    service.library.ingest([path], uploaded=True)
    assert wait_for_job(service).report.added == 1

    def found():
        request = SearchRequest("kettle", mode="text", filters=Filters(document="own.pdf"))
        return [(hit.document, hit.page) for hit in service.search(request).hits]

    before = found()
    path.write_bytes(b"%PDF-1.7 and no more")
    service.library.reread("own.pdf")
    assert wait_for_job(service).n_failed == 1
    path.unlink()
    with pytest.raises(DocumentError, match=r"own\.pdf: its file is gone"):
        service.library.reread("own.pdf")
    assert before
    assert found() == before
    with pytest.raises(DocumentUnknown):
        service.library.reread("other.pdf")


def test_only_allowed_folders_are_read(make, tmp_path):
    service = make()
    link = tmp_path / "index-library" / "link.pdf"
    link.parent.mkdir()
    link.symlink_to("/etc/passwd")
    for path in (Path("/etc"), SAMPLES / ".." / "pyproject.toml", SAMPLES.parent):
        with pytest.raises(NotAllowed) as told:
            service.library.ingest([path], uploaded=False)
        assert str(SAMPLES.parent) not in str(told.value)
    with pytest.raises(NotAllowed):
        service.library.ingest([link], uploaded=True)
    with pytest.raises(NotAllowed):
        service.library.ingest([SAMPLES / "kettle-manual.pdf"], uploaded=True)


def test_a_model_that_is_not_there_is_told(make, tmp_path):
    service = make(model=str(tmp_path / "gone"))
    service.wait(300)
    status = service.status()
    assert status.state == "failed"
    assert str(tmp_path) not in status.reason
    assert service.search(SearchRequest("kettle", mode="text")).hits
    with pytest.raises(NotReady):
        service.search(SearchRequest("kettle"))
    events = service.ask(AskRequest(KETTLE))
    assert next(events).hits[0].document == "kettle-manual.pdf"  # by its text, as the page says
    with pytest.raises(NotReady):
        next(events)


def test_pages_words_and_heat(make):
    service = make()
    heat = service.heatmap("kettle 容量", "kettle-manual.pdf", 1)
    assert heat.words == ("kettle", "容量")
    assert heat.scores.shape == (2, *heat.total.shape)
    assert np.nanmax(heat.total) == np.nanmax(heat.scores)
    boxes = service.library.text_boxes("kettle-manual.pdf", 1, ["kettle"])
    assert boxes
    assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for x0, y0, x1, y1 in boxes)
    assert service.library.text_boxes("invoice-scan.pdf", 1, ["kettle"]) == ()
    assert service.library.text_boxes("tourism-ja.pdf", 1, ["花火"])
    assert max(service.library.page_image("kettle-manual.pdf", 1, 700).size) == 700
    assert service.library.thumbnail("kettle-manual.pdf", 1).startswith(b"RIFF")
    for call in (service.library.page_image, service.library.text_boxes):
        with pytest.raises(DocumentUnknown):
            call("../secret", 1, 700 if call == service.library.page_image else [])


def test_impossible_numbers_are_told(make):
    service = make()
    for request in (
        AskRequest("x", pages=99), AskRequest("x", neighbours=-1), AskRequest("x", top_k=0),
        AskRequest("x" * 9000), AskRequest("x", max_new_tokens=10**6),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            list(service.ask(request))


def test_many_threads_search_one_service(make):
    service, faults = make(), []

    def search(n):
        try:
            mode = ("hybrid", "text", "visual")[n % 3]
            assert service.search(SearchRequest("kettle", mode=mode)).hits
            assert service.library.page_image("kettle-manual.pdf", 1 + n % 2, 300)
        except Exception as error:  # noqa: BLE001 - looked at below
            faults.append(error)

    threads = [threading.Thread(target=search, args=(n,)) for n in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert faults == []
