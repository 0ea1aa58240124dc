"""The parts of the server that need neither model nor index: line, uploads, words, passwords."""

import asyncio
import errno
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient

from rag.errors import UsageError
from rag.ingest import IngestReport, Trouble
from rag.records import Cancellation, DocumentUnknown, IndexFull
from ui import api, openai_api
from ui.errors import OUR_FAULT, NotAllowed, NotKept, RequestTimeout, ServiceBusy, public
from ui.heat import query_heat, words_of
from ui.jobs import IngestProgress, _finished
from ui.queue import AnswerQueue
from ui.refusal_page import refusal_page
from ui.requests import AskRequest, Found, Piece, ServiceLimits
from ui.security import (
    Gate,
    GateOptions,
    Login,
    _Failures,
    add_user,
    credentials,
    is_loopback,
    read_users,
)
from ui.server import ServeOptions, _is_worth_saying
from ui.streaming import events, in_own_thread
from ui.uploads import safe_name, store
from ui.wire import status_of

PDF = b"%PDF-1.7\n"


def served_order(queue, tickets):
    """Serve the line to its end; returns which ticket came when."""
    order = []
    left = dict(tickets)
    while left:
        (name,) = [name for name, ticket in left.items() if queue.position(ticket) == 0]
        order.append(name)
        queue.leave(left.pop(name))
    return order


def test_clients_take_turns():
    queue = AnswerQueue(10)
    names = ["a1", "a2", "a3", "b1", "c1", "b2"]
    tickets = {name: queue.join(name[0]) for name in names}
    assert [queue.position(tickets[name]) for name in names] == [0, 1, 4, 2, 3, 5]
    assert served_order(queue, tickets) == ["a1", "a2", "b1", "c1", "a3", "b2"]
    assert queue.n_waiting == 0


def test_a_full_line_refuses_and_leaving_makes_room():
    queue = AnswerQueue(1)
    first, second = queue.join("a"), queue.join("a")
    with pytest.raises(ServiceBusy, match="1 questions are waiting"):
        queue.join("b")
    queue.leave(second)
    queue.leave(second)
    third = queue.join("b")
    queue.leave(first)
    assert queue.position(third) == 0


def test_one_client_takes_a_quarter_of_the_line():
    queue = AnswerQueue(32)
    tickets = [queue.join("a") for _ in range(9)]  # one of them is served
    with pytest.raises(ServiceBusy, match="8 of your questions are waiting"):
        queue.join("a")
    other = queue.join("b")
    queue.leave(tickets[0])
    assert queue.position(other) == 1
    queue.join("a")


def test_positions_end_with_the_turn_the_client_or_the_time():
    queue = AnswerQueue(5)
    first, second = queue.join("a"), queue.join("b")
    threading.Timer(0.05, queue.leave, (first,)).start()
    assert list(queue.positions(second, time.monotonic() + 60, lambda: False)) == [1]
    third = queue.join("c")
    assert list(queue.positions(third, time.monotonic() + 60, lambda: True)) == []
    with pytest.raises(RequestTimeout):
        list(queue.positions(third, time.monotonic() - 1, lambda: False))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("../../etc/cron.d/x.pdf", "x.pdf"),
        ("C:\\Users\\me\\報告.pdf", "報告.pdf"),
        ("a\u202efdp.pdf", "a_fdp.pdf"),
        ("..hidden.pdf", "hidden.pdf"),
        ("<img src=x onerror=alert(1)>.pdf", "<img src=x onerror=alert(1)>.pdf"),
        ("nul\0byte.pdf", "nul_byte.pdf"),
    ],
)
def test_names_cannot_lead_elsewhere(name, wanted):
    assert safe_name(name) == wanted


@pytest.mark.parametrize("name", ["", "..", ".pdf", "x.py", "x.html", "x.pdf/", "x.svg", "/"])
def test_names_that_are_no_document(name, tmp_path):
    with pytest.raises(NotAllowed):
        store(tmp_path, name, PDF, 100) if name != "x.pdf/" else store(tmp_path, "x", PDF, 100)


def test_long_names_fit_a_file_system(tmp_path):
    path = store(tmp_path, "長" * 300 + ".pdf", PDF, 100)
    assert len(path.name.encode()) <= 255
    assert path.read_bytes() == PDF


def test_an_empty_file_is_called_empty(tmp_path):
    with pytest.raises(NotAllowed, match=r"a.pdf is empty \(0 bytes\)"):
        store(tmp_path, "a.pdf", b"", 1000)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.pdf", b"<html><script>alert(1)</script>"),
        ("a.png", PDF),
        ("a.docx", b"\x7fELF"),
        ("a.webp", b"RIFF1234AVI "),
    ],
)
def test_files_that_are_not_what_they_say(name, data, tmp_path):
    with pytest.raises(NotAllowed, match="is not what its name says"):
        store(tmp_path / "library", name, data, 1000)
    assert not (tmp_path / "library").exists()


def test_files_that_are_too_large(tmp_path):
    with pytest.raises(NotAllowed, match="larger than"):
        store(tmp_path, "a.pdf", PDF + b"x" * 100, 50)
    (tmp_path / "big").write_bytes(PDF + b"x" * 100)
    with pytest.raises(NotAllowed, match="larger than"):
        store(tmp_path, "a.pdf", tmp_path / "big", 50)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr("ui.uploads.os.replace", full)
    with pytest.raises(NotKept, match="could not be kept") as told:
        store(tmp_path, "a.pdf", PDF, 100)
    assert "No space left on device" in str(told.value)
    assert str(tmp_path) not in str(told.value)
    assert status_of(told.value) == status_of(IndexFull("index.db: could not write")) == 507
    assert list(tmp_path.iterdir()) == []


class Broken:
    """A service whose answers break off by a bug of ours."""

    model_name = "small"
    limits = ServiceLimits()

    def ask(self, request, cancellation):
        if request.question == "at once":
            raise ZeroDivisionError("/srv/secret")
        yield Found((), (), abstained=False, seconds=0.1)
        raise ZeroDivisionError("/srv/secret")


@pytest.fixture
def broken():
    app = FastAPI()
    api.install(app, Broken())
    openai_api.install(app, Broken())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_an_answer_that_breaks_off_ends_with_an_error_event(broken, caplog):
    told = broken.post("/api/ask", json={"question": "later"})
    assert told.text.endswith(
        'event: error\ndata: {"error": "an error of the server; its log has the cause", '
        '"status": 500}\n\n'
    )
    asked = {"messages": [{"role": "user", "content": "later"}], "stream": True}
    chunks = broken.post("/v1/chat/completions", json=asked).text
    assert "an error of the server" in chunks
    assert chunks.endswith("data: [DONE]\n\n")
    assert caplog.text.count("an answer broke off") == 2
    early = broken.post("/api/ask", json={"question": "at once"})
    assert (early.status_code, early.json()) == (500, {"error": OUR_FAULT})


@pytest.mark.parametrize(
    ("said", "address"),
    [
        (None, "http://yomu.example.org/"), ("https", "https://yomu.example.org/"),
        ("https, http", "https://yomu.example.org/"), ("javascript", "http://yomu.example.org/"),
    ],
)  # fmt: skip
def test_cited_pages_are_at_the_address_the_client_sees(said, address):
    headers = [(b"host", b"yomu.example.org")]
    headers += [(b"x-forwarded-proto", said.encode())] if said else []
    scope = {"type": "http", "scheme": "http", "path": "/v1", "query_string": b""}
    assert openai_api._address(Request(scope | {"headers": headers})) == address


def test_a_stream_is_never_silent_for_long(broken, monkeypatch):
    def slow(self, request, cancellation):
        yield Found((), (), abstained=False, seconds=0.1)
        time.sleep(1.5)
        yield Piece("done")

    monkeypatch.setattr("ui.streaming.SILENCE_S", 0.05)
    monkeypatch.setattr(Broken, "ask", slow)
    asked = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    for path, body in (("/api/ask", {"question": "x"}), ("/v1/chat/completions", asked)):
        told = broken.post(path, json=body)
        assert ": wait\n\n" in told.text
        assert told.text.index(": wait") < told.text.index("done")
        assert told.headers["cache-control"] == "no-cache"
        assert told.headers["x-accel-buffering"] == "no"


def test_questions_of_the_page_take_no_threads_of_the_pool(monkeypatch):
    own, names = Cancellation(), []

    def produce():
        names.append(threading.current_thread().name)
        yield 1
        while not own.cancelled:
            time.sleep(0.01)
        names.append("ended")

    async def listen():
        async with aclosing(in_own_thread(produce, own)) as shown:
            assert await anext(shown) == 1

    asyncio.run(listen())
    for _ in range(6000):
        if "ended" in names:
            break
        time.sleep(0.01)
    assert names == ["answer", "ended"]


def test_files_that_came_before_one_that_could_not_be_kept_are_dropped():
    class Full:
        dropped: list[Path] = []  # noqa: RUF012 - one test, one list

        def store_upload(self, name, data):
            if name == "b.pdf":
                raise NotKept("b.pdf could not be kept (No space left on device); make room")
            return Path(name)

        def discard(self, paths):
            self.dropped += paths

    app, service = FastAPI(), Broken()
    service.library = Full()
    api.install(app, service)
    files = [("files", (name, PDF)) for name in ("a.pdf", "b.pdf")]
    with TestClient(app) as client:
        told = client.post("/api/documents", files=files)
    assert told.status_code == 507
    assert "No space left" in told.json()["error"]
    assert service.library.dropped == [Path("a.pdf")]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/api/nope", "/api", "/v1/chat/nope", "/v1/"])
def test_what_is_no_route_is_an_error_like_all_others(method, path):
    app, service = FastAPI(), Broken()
    api.install(app, service)
    openai_api.install(app, service)
    api.install_rest(app)
    with TestClient(app) as client:
        told = client.request(method, path)
    error = told.json()["error"]
    assert told.status_code == 404
    assert "/api/docs" in (error["message"] if path.startswith("/v1") else error)


def test_a_body_that_is_no_json_is_called_so():
    app, service = FastAPI(), Broken()
    openai_api.install(app, service)
    api.install(app, service)
    with TestClient(app) as client:
        headers = {"content-type": "application/json"}
        told = client.post("/v1/chat/completions", content="{bad", headers=headers)
    assert told.status_code == 422
    assert told.json()["error"]["message"] == "body: JSON decode error"


def test_remarks_of_a_job_tell_no_paths():
    report = IngestReport(notes=[Trouble("links", None, "/srv/secret/a: is a link")])
    done = _finished(IngestProgress("1"), report, "", False)
    assert done.report.notes[0].reason == "a: is a link"


def test_another_file_of_the_same_name_is_kept_beside_the_first(tmp_path):
    paths = [store(tmp_path, "a.pdf", PDF + text, 100) for text in (b"1", b"2", b"1", b"2", b"3")]
    assert [path.name for path in paths] == [
        "a.pdf", "a (2).pdf", "a.pdf", "a (2).pdf", "a (3).pdf",
    ]  # fmt: skip
    assert [path.read_bytes()[-1:] for path in sorted(tmp_path.iterdir())] == [b"2", b"3", b"1"]


def test_many_files_of_one_name_at_the_same_moment(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda n: store(tmp_path, "a.pdf", PDF + b"%d" % n, 100), range(16)))
    assert {path.read_bytes() for path in paths} == {PDF + b"%d" % n for n in range(16)}
    assert len(list(tmp_path.iterdir())) == 16


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("/home/me/My Files/secret plan/.yomu/index.db: busy", "index.db: busy"),
        ("/home/me/My Files/the report.pdf: 0 bytes", "the report.pdf: 0 bytes"),
        ("no index in /srv/Old (2023), new/data; make one", "no index in data; make one"),
        ("model 'C:\\My Models\\big one' is gone", "model 'big one' is gone"),
        ("model `/opt/My Models/big`: gone", "model `big`: gone"),
        ("nothing to read in /a b/c, /d e/f: no PDF", "nothing to read in c, f: no PDF"),
        ("[Errno 2] No such file: '/a b/c d/'", "[Errno 2] No such file: '…'"),
        ("a.pdf: 3 / 4 of it", "a.pdf: 3 / 4 of it"),
        ("first\n/a b/c: second", "first\nc: second"),
    ],
)
def test_messages_tell_no_paths_with_spaces(message, wanted):
    assert public(message) == wanted


def test_messages_tell_no_paths():
    assert public("/home/me/secret/.yomu/index.db: busy") == "index.db: busy"
    assert public("no index in /srv/data; make one") == "no index in data; make one"
    assert public("報告/third.pdf, p. 2: 3/4 of it") == "報告/third.pdf, p. 2: 3/4 of it"
    assert public("model 'C:\\models\\big' is gone") == "model 'big' is gone"


def test_words_of_a_query_in_two_scripts():
    query = "花火大会 kettle's price"
    spans = (None, (0, 2), (2, 4), (5, 8), (8, 11), (11, 13), (13, 19), None)
    words, rows = words_of(query, spans)
    assert words == ("花火大会", "kettle's", "price")
    assert rows == [[1, 2], [3, 4, 5], [6]]


def test_a_word_is_as_warm_as_its_warmest_token():
    nan = np.nan
    scores = np.array([[[9, 9, nan]], [[0.1, 0.5, nan]], [[0.3, 0.2, nan]]], np.float32)
    heat = query_heat("kettle", (None, (0, 3), (3, 6)), scores)
    assert heat.words == ("kettle",)
    np.testing.assert_allclose(heat.scores[0], [[0.3, 0.5, nan]], rtol=1e-6)
    np.testing.assert_allclose(heat.total, [[0.3, 0.5, nan]], rtol=1e-6)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_other_machines_need_a_password(host):
    with pytest.raises(UsageError, match="--auth-file"):
        ServeOptions(host=host).check()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_none(host):
    assert is_loopback(host)
    ServeOptions(host=host).check()


def test_passwords_are_kept_hashed_and_only_for_the_owner(tmp_path):
    path = tmp_path / "users"
    add_user(path, "花子", "correct horse")
    add_user(path, "bob", "battery staple")
    add_user(path, "bob", "another word")
    assert "horse" not in path.read_text("utf-8")
    assert path.stat().st_mode & 0o077 == 0
    login = Login(read_users(path))
    assert login.check("x", "花子", "correct horse") == "花子"
    assert login.check("x", "花子", "correct horse") == "花子"  # from memory this time
    assert login.check("x", "bob", "battery staple") is None
    assert login.check("x", "nobody", "") is None
    assert login.check("x", "bob", "another word") == "bob"


def test_guessing_is_slowed_down_for_the_guesser_alone(tmp_path):
    path = tmp_path / "users"
    add_user(path, "bob", "another word")
    login = Login(read_users(path))
    for n in range(6):
        assert login.check("guesser", "bob", f"guess {n}") is None
    assert login.wait_s("guesser", "bob") > 0
    assert login.wait_s("other", "bob") == 0
    others = [f"user {n}" for n in range(200)]  # behind the same proxy
    assert sum(login.wait_s("guesser", name) > 0 for name in others) < 20


@pytest.mark.parametrize("text", ["bob:secret\n", "bob:scrypt$zz$11\n", "", ":scrypt$aa$bb"])
def test_damaged_auth_files_let_nobody_in(tmp_path, text):
    path = tmp_path / "users"
    path.write_text(text)
    with pytest.raises(UsageError, match="add-user"):
        read_users(path)


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !!", "Basic Ym9i", "Digest a:b", "Bearer x"]
)
def test_headers_without_credentials(header):
    assert credentials(header) is None


def test_short_passwords_are_refused(tmp_path):
    with pytest.raises(UsageError, match="at least 8"):
        add_user(tmp_path / "users", "bob", "short")
    assert not (tmp_path / "users").exists()


def test_guesses_at_once_are_not_free(tmp_path, monkeypatch):
    path = tmp_path / "users"
    add_user(path, "hanako", "correct horse")
    login, tried = Login(read_users(path)), []
    monkeypatch.setattr("ui.security._key", lambda *given: tried.append(given) or b"")
    with ThreadPoolExecutor(30) as pool:
        found = pool.map(lambda n: login.check("10.0.0.1", "hanako", f"guess {n}"), range(30))
    assert set(found) == {None}
    assert len(tried) <= 6
    assert login.wait_s("10.0.0.1", "hanako") > 0


def test_guesses_do_not_throw_out_who_is_logged_in(tmp_path):
    """All clients have one address, as behind a proxy."""
    add_user(tmp_path / "users", "hanako", "correct horse")

    async def hello(scope, receive, send):
        await PlainTextResponse(scope["state"]["user"])(scope, receive, send)

    gate = Gate(hello, GateOptions(1000, login=Login(read_users(tmp_path / "users"))))
    client = TestClient(gate, base_url="http://127.0.0.1")
    right, wrong = ("hanako", "correct horse"), ("hanako", "wrong")
    assert client.get("/", auth=right).text == "hanako"
    said = {client.get("/", auth=wrong).status_code for _ in range(8)}
    assert said == {401, 429}
    assert client.get("/", auth=right).text == "hanako"


@pytest.mark.parametrize(
    ("language", "lang", "words", "link"),
    [
        ("ja-JP,ja;q=0.9,en;q=0.8", "ja", "名前とパスワードでログインしてください", "もう一度試す"),
        ("en-GB", "en", "Log in with a name and a password", "Try again"),
    ],
)
def test_who_gives_up_logging_in_reads_a_page_in_his_language(
    tmp_path, language, lang, words, link
):
    add_user(tmp_path / "users", "hanako", "correct horse")
    gate = Gate(None, GateOptions(1000, login=Login(read_users(tmp_path / "users"))))
    client = TestClient(gate, base_url="http://127.0.0.1")
    asking = {"accept": "text/html,*/*;q=0.8", "accept-language": language}
    told = client.get("/", headers=asking)
    assert told.status_code == 401 and "Basic" in told.headers["www-authenticate"]
    assert f"<html lang={lang}>" in told.text and words in told.text and link in told.text
    program = client.get("/api/status", headers={"accept-language": language})
    assert program.status_code == 401
    assert program.json() == {"error": "log in with a name and a password"}


def test_a_refusal_is_text():
    page = refusal_page("<script>x</script>", "en")
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_however_often_someone_guesses_there_is_a_wait(tmp_path, monkeypatch):
    path = tmp_path / "users"
    add_user(path, "hanako", "correct horse")
    login = Login(read_users(path))
    monkeypatch.setattr("ui.security._key", lambda *given: b"")
    login._failures[login._guesser("10.0.0.1", "hanako")] = _Failures(5000)
    assert login.check("10.0.0.1", "hanako", "wrong") is None
    assert 0 < login.wait_s("10.0.0.1", "hanako") <= 900


def test_several_files_may_come_at_once():
    gate = Gate(None, GateOptions(upload_bytes=100, body_bytes=10))
    assert gate._most_bytes({"path": "/api/documents"}) == 410
    assert gate._most_bytes({"path": "/gradio_api/upload"}) == 410
    assert gate._most_bytes({"path": "/api/ask"}) == 10


@pytest.mark.parametrize("pause_s", [0.01, 2.0])
def test_an_answer_ends_when_its_client_is_gone_however_fast_it_comes(pause_s):
    ended = threading.Event()

    class Endless:
        def ask(self, request, cancellation):
            while not cancellation.cancelled:
                yield Piece("x")
                time.sleep(pause_s)
            ended.set()

    async def gone() -> bool:
        return True

    async def listen() -> None:
        async for _ in events(Endless(), AskRequest("kettle"), gone):
            pass

    asyncio.run(asyncio.wait_for(listen(), 60))
    assert ended.wait(60)


@pytest.mark.parametrize(
    ("message", "error", "is_said"),
    [
        ("Exception in ASGI application", asyncio.CancelledError(), False),
        ("Exception in ASGI application", ZeroDivisionError(), True),
        ("Cancel 3 running task(s), timeout graceful shutdown exceeded", None, False),
        ("Shutting down", None, True),
    ],
)
def test_only_the_end_of_open_streams_is_left_out_of_the_log(message, error, is_said):
    about = None if error is None else (type(error), error, None)
    record = logging.LogRecord("uvicorn.error", logging.ERROR, "x", 1, message, (), about)
    assert _is_worth_saying(record) is is_said


def test_an_error_of_an_mcp_tool_names_a_tool_and_no_command():
    from gradio import Error

    from ui.mcp import _told

    line = "no document 'x.pdf' in the index; `yomu list` shows all names"
    with pytest.raises(Error, match="`list_documents` shows all names"), _told():
        raise DocumentUnknown(line)
