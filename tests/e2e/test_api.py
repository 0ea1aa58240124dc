"""The API of a running server, used by real clients: httpx, openai, mcp, schemathesis."""

import asyncio
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from tests import odd_files as odd
from tests.e2e.conftest import SAMPLES

KETTLE = "What is the capacity of the kettle?"


@pytest.fixture(scope="module")
def api(served):
    with httpx.Client(base_url=served.url, timeout=120) as client:
        yield client


def events(lines):
    """Parse server-sent events."""
    found, name = [], ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            found.append((name, json.loads(line.removeprefix("data: "))))
    return found


def wait_for_job(api):
    for _ in range(1500):
        state = api.get("/api/job").json()
        if state["finished"]:
            return state
        time.sleep(0.2)
    raise AssertionError(state)


def test_search_has_the_shape_of_the_command(api):
    found = api.get("/api/search", params={"query": "kettle", "mode": "text"}).json()
    assert found.keys() >= {"id", "query", "mode", "hits", "seconds"}
    assert found["hits"][0]["document"] == "kettle-manual.pdf"
    body = {"query": "売上", "mode": "text", "document": "*-ja.pdf", "top_k": 1}
    assert len(api.post("/api/search", json=body).json()["hits"]) <= 1


def test_every_filter_of_a_search_counts(api):
    """Also in the short form, by GET."""
    for narrow in ({"document": "no*"}, {"folder": "no"}, {"language": "fr"},
                   {"date_to": "1999-01-01"}, {"date_from": "2999-01-01"}):  # fmt: skip
        query = {"query": "kettle", "mode": "text"} | narrow
        assert api.get("/api/search", params=query).json()["hits"] == [], narrow
        assert api.post("/api/search", json=query).json()["hits"] == [], narrow


def test_what_is_not_accepted_is_said_in_one_line(api):
    wrong = api.get("/api/search", params={"query": "x", "top_k": 0})
    assert wrong.status_code == 422
    assert wrong.json()["error"].startswith("top_k: ")
    half = b'{"query": "\\ud800", "top_k": "\\ud800", "\\ud800": 1}'
    wrong = api.post("/api/search", content=half, headers={"content-type": "application/json"})
    assert wrong.status_code == 422
    assert wrong.json()["error"]
    assert api.head("/documents/kettle-manual.pdf").status_code == 200
    part = {"type": "image_url", "image_url": {"url": "data:,"}}
    asked = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]}
    refused = api.post("/v1/chat/completions", json=asked).json()
    assert "only text is read" in refused["error"]["message"]


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data"])
def test_a_body_that_cannot_be_taken_in_is_refused_in_one_line(api, kind):
    """Too deep for JSON, or parts without what parts them."""
    for route in ("/api/documents", "/api/ask", "/v1/chat/completions"):
        refused = api.post(route, content=b"[" * 5000, headers={"content-type": kind})
        assert refused.status_code in (400, 422), route
        said = refused.json()["error"]
        assert "\n" not in (said["message"] if route.startswith("/v1") else said)


def test_an_event_without_a_name_can_be_cancelled(api):
    """As Gradio's page does for one that has only just begun."""
    asked = {"event_id": None, "session_hash": "x", "fn_index": 0}
    assert api.post("/gradio_api/cancel", json=asked).json() == {"success": True}
    assert api.post("/gradio_api/reset", json={"event_id": None}).status_code == 200
    assert api.post("/gradio_api/queue/join", json={"event_id": None}).status_code == 422


def test_the_server_says_where_it_is(served):
    assert f"Yomu is at {served.url}/ " in served.log.read_text()


def test_pages_are_found_by_a_picture_of_them(api):
    """A page's own image finds it; a file that is no image is refused, and none is kept."""
    picture = api.get("/api/documents/tourism-ja.pdf/pages/1.png").content
    found = api.post(
        "/api/search/image", files={"file": ("photo.png", picture)}, data={"top_k": 3}
    ).json()
    assert found["mode"] == "visual"
    assert (found["hits"][0]["document"], found["hits"][0]["page"]) == ("tourism-ja.pdf", 1)
    assert len(found["hits"]) == 3
    other = api.post(
        "/api/search/image",
        files={"file": ("photo.png", picture)},
        data={"document": "kettle*"},
    ).json()
    assert {hit["document"] for hit in other["hits"]} == {"kettle-manual.pdf"}
    wrong = api.post("/api/search/image", files={"file": ("photo.png", b"no picture")})
    assert wrong.status_code == 403
    broken = api.post("/api/search/image", files={"file": ("a.png", picture[:60])})
    assert broken.status_code == 400
    assert "/" not in broken.json()["error"]
    assert not list(Path(tempfile.gettempdir()).glob("yomu-query-*"))


def test_ask_streams_pages_before_text(api):
    body = {"question": KETTLE, "max_new_tokens": 6}
    with api.stream("POST", "/api/ask", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = events(answer.iter_lines())
    names = [name for name, _ in found]
    assert names[0] == "found"
    assert names.index("stage") < names.index("piece")
    assert names[-1] == "finished"
    finished = found[-1][1]
    assert finished["citations"][0]["document"] == "kettle-manual.pdf"
    pieces = "".join(data["text"] for name, data in found if name == "piece")
    assert pieces.strip() == finished["answer"]


def test_ask_without_stream_is_what_the_command_prints(api):
    body = {"question": KETTLE, "max_new_tokens": 4, "stream": False}
    answer = api.post("/api/ask", json=body).json()
    assert answer.keys() >= {
        "id", "question", "answer", "abstained", "citations", "hits", "timings",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"question": " "}, 400),
        ({"question": "x", "document": "no-such*"}, 400),
        ({"question": "x", "kept": [{"document": "../x", "page": 1}]}, 404),
        ({"question": "x", "date_from": "yesterday"}, 400),
        ({"question": "x" * 9000}, 422),
        ({"question": "x", "typo": 1}, 422),
    ],
)
def test_questions_that_cannot_be_meant(api, body, status):
    answer = api.post("/api/ask", json=body)
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.json()["error"]
    assert "Traceback" not in answer.text


def test_of_files_that_are_not_all_accepted_none_is_kept(api, served):
    good = (SAMPLES / "tourism-ja.pdf").read_bytes()
    files = [("files", ("fine.pdf", good)), ("files", ("fake.pdf", b"no PDF"))]
    assert api.post("/api/documents", files=files).status_code == 403
    assert not list(served.index.parent.rglob("fine*.pdf"))


def test_an_upload_is_answered_with_the_name_it_will_have(api, served):
    """Where another document has the file's name, the index gives it a longer one."""
    data = odd.text_pdf(served.index.parent / "same.pdf", ["quinces and medlars"]).read_bytes()
    added = api.post("/api/documents", files={"files": ("kettle-manual.pdf", data)}).json()
    assert wait_for_job(api)["report"]["added"] == 1
    (name,) = added["documents"]
    assert name != "kettle-manual.pdf"
    found = api.get("/api/search", params={"query": "quinces", "mode": "text"}).json()["hits"]
    assert found[0]["document"] == name
    assert api.delete(f"/api/documents/{name}").json() == {"removed": [name]}
    assert api.get("/api/documents/kettle-manual.pdf/pages/1.webp").status_code == 200


def test_documents_come_are_found_and_go(api, served):
    data = (SAMPLES / "tourism-ja.pdf").read_bytes()
    added = api.post("/api/documents", files={"files": ("写し.pdf", data)})
    assert added.status_code == 202, added.text
    assert wait_for_job(api)["report"]["added"] == 1
    listed = api.get("/api/documents").json()["documents"]
    (own,) = [each for each in listed if each["document"] == "写し.pdf"]
    assert own["status"] == "complete"
    assert "source" not in own
    kept = served.index.parent / "index-library" / "写し.pdf"
    assert kept.exists()
    assert api.delete("/api/documents/写し.pdf").json() == {"removed": ["写し.pdf"]}
    assert not kept.exists()
    names = [each["document"] for each in api.get("/api/documents").json()["documents"]]
    assert "写し.pdf" not in names
    assert api.get("/api/documents/写し.pdf/pages/1.webp").status_code == 404
    assert api.get("/documents/写し.pdf").status_code == 404


def test_reread(api):
    before = api.get("/api/status").json()["n_pages"]
    assert api.post("/api/documents/kettle-manual.pdf/reread").status_code == 202
    assert wait_for_job(api)["report"]["pages_added"] == 2
    assert api.get("/api/status").json()["n_pages"] == before


def test_pages_as_images_and_the_pdf(api):
    for kind, magic in (("webp", b"RIFF"), ("png", b"\x89PNG")):
        image = api.get(f"/api/documents/kettle-manual.pdf/pages/1.{kind}")
        assert image.content.startswith(magic)
    assert api.get("/api/documents/kettle-manual.pdf/pages/99.png").status_code == 404
    pdf = api.get("/documents/kettle-manual.pdf")
    assert pdf.content == (SAMPLES / "kettle-manual.pdf").read_bytes()
    headers = {"content-type": "application/pdf", "content-disposition": "inline",
               "x-content-type-options": "nosniff", "x-frame-options": "DENY",
               "content-security-policy": "frame-ancestors 'none'"}  # fmt: skip
    assert {name: pdf.headers.get(name) for name in headers} == headers


def test_documentation_needs_no_network(api):
    page = api.get("/api/docs").text
    assert "/api/ask" in page
    assert "https://" not in page
    assert "http://" not in page
    paths = api.get("/api/openapi.json").json()["paths"]
    assert {"/api/search", "/api/ask", "/v1/chat/completions"} <= paths.keys()


def test_status_and_health(api, served):
    assert api.get("/api/health").json() == {"status": "ok"}
    status = api.get("/api/status")
    assert status.json()["state"] == "ready"
    assert str(served.index) not in status.text


# -- openai --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_client_whole_answer(client):
    (model,) = client.models.list().data
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is this about?"},
        {"role": "assistant", "content": "A kettle."},
    ]
    answer = client.chat.completions.create(
        model=model.id, messages=[*history, {"role": "user", "content": KETTLE}], max_tokens=4
    )
    message = answer.choices[0].message
    assert message.role == "assistant"
    citation = message.annotations[0].url_citation
    assert citation.title == "kettle-manual.pdf, p. 1"
    assert citation.url.endswith("/documents/kettle-manual.pdf#page=1")
    assert answer.usage.completion_tokens <= 4


def test_openai_client_stream(client):
    messages = [{"role": "user", "content": [{"type": "text", "text": KETTLE}]}]
    asked = {"model": "x", "messages": messages, "max_tokens": 4, "stream": True}
    *chunks, last = client.chat.completions.create(**asked, stream_options={"include_usage": True})
    assert not last.choices
    assert last.usage.completion_tokens <= 4
    assert all(chunk.usage is None for chunk in chunks)
    assert len(list(client.chat.completions.create(**asked))) == len(chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    last = chunks[-1].choices[0]
    assert last.finish_reason in ("stop", "length")
    assert last.delta.annotations[0]["url_citation"]["title"] == "kettle-manual.pdf, p. 1"


def test_openai_clients_ask_for_more_and_send_more_than_is_used(client):
    history = [{"role": "system", "content": "x" * 20_000}]
    for n in range(45):
        history += [
            {"role": "user", "content": f"kettle {n}?"},
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "tool", "content": "{}", "tool_call_id": "1"},
            {"role": "assistant", "content": "A kettle."},
        ]
    stream = client.chat.completions.create(
        model="x", messages=[*history, {"role": "user", "content": KETTLE}], max_tokens=100_000,
        stream=True,
    )  # fmt: skip
    assert next(iter(stream)).choices[0].delta.role == "assistant"
    stream.close()


def test_openai_client_errors(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="x", messages=[{"role": "assistant", "content": "no question"}]
        )
    assert refused.value.body["message"] == "the last message is to be the user's question"
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(model="x", messages=[])
    assert refused.value.body["message"].startswith("messages: ")


# -- mcp -----------------------------------------------------------------------------------------


async def with_tools(url, work):
    address = f"{url}/tools/gradio_api/mcp/"
    async with (
        streamable_http_client(address) as (read, write, *_),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        return await work(session)


def test_mcp_client(served):
    async def work(session):
        tools = {each.name: each.description for each in (await session.list_tools()).tools}
        found = await session.call_tool("search_pages", {"query": "kettle", "top_k": 2})
        asked = await session.call_tool("ask_documents", {"question": KETTLE})
        arguments = {"document": "kettle-manual.pdf", "page": 1}
        read = await session.call_tool("read_page", arguments)
        wrong = await session.call_tool("read_page", {"document": "/etc/passwd", "page": 1})
        listed = await session.call_tool("list_documents", {"document": "kettle*"})
        return tools, found, asked, read, wrong, listed

    tools, found, asked, read, wrong, listed = asyncio.run(with_tools(served.url, work))
    assert tools.keys() == {"search_pages", "ask_documents", "read_page", "list_documents"}
    assert "Where `answered` is false" in tools["search_pages"]
    assert "`notes` says so" in tools["ask_documents"]
    for source in ("healthy", "thin", "missing", "garbage", "ocr"):
        assert f'"{source}"' in tools["read_page"]
    (own,) = json.loads(listed.content[0].text)["documents"]
    assert (own["document"], own["n_pages"], own["status"]) == ("kettle-manual.pdf", 2, "complete")
    assert "source" not in own
    hits = json.loads(found.content[0].text)["hits"]
    assert hits[0]["document"] == "kettle-manual.pdf"
    assert json.loads(asked.content[0].text)["citations"][0]["document"] == "kettle-manual.pdf"
    assert "kettle" in json.loads(read.content[0].text)["text"].lower()
    assert wrong.isError


# -- many at once --------------------------------------------------------------------------------


def test_fifty_at_once(served):
    def one(n):
        with httpx.Client(base_url=served.url, timeout=300) as client:
            if n % 6:  # nine questions: one client may have eight waiting
                return client.get("/api/search", params={"query": f"kettle {n}"}).status_code
            body = {"question": f"kettle {n}", "max_new_tokens": 3, "stream": False}
            return client.post("/api/ask", json=body).status_code

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(one, range(50))) == {200}
    assert httpx.get(f"{served.url}/api/status", timeout=60).json()["waiting"] == 0


def test_fuzzed_requests_get_no_server_error(served):
    """Schemathesis on every operation of the OpenAPI document, a few examples each."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_url(f"{served.url}/api/openapi.json")
    limits = settings(
        max_examples=8, deadline=None, derandomize=True, database=None,
        phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    statuses: dict[str, set[int]] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        seen = statuses.setdefault(operation.label, set())
        limits(given(case=operation.as_strategy())(_calling(seen)))()
    assert len(statuses) >= 12
    assert not {label: seen for label, seen in statuses.items() if max(seen) >= 500}


def _calling(seen):
    def call(case):
        seen.add(case.call(timeout=120).status_code)

    return call
