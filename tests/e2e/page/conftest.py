"""One server and one headless Chromium for all tests of the page."""

import gc
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    expect,
    sync_playwright,
)

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "samples"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-default-apps", "--no-first-run",
]  # fmt: skip
PATIENCE_MS = 60_000  # a busy machine is slow; nothing here asserts a time
expect.set_options(timeout=PATIENCE_MS)
READ_MS = 700  # page.js takes no earlier click for a yes
ENGLISH, JAPANESE = "en-GB", "ja-JP"
SALES = "What were the total sales in 2023?"
FIREWORKS = "花火大会はいつ開かれましたか。"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A browser. These tests run last (tests/conftest.py): its event loop suffers no other."""
    binary = shutil.which("chromium")
    if binary is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with warnings.catch_warnings():  # what other tests left behind is no fault of the page
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(served) -> Iterator[str]:
    """Where a server over an empty index answers."""
    with serving(served / "index", served / "server.log") as address:
        yield address


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> Path:
    """The folder of the server's index."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture
def writing(indexed, served, tmp_path) -> Iterator[str]:
    """Where a second server over the same index writes on and on, as the shipped model does not."""
    model = shutil.copytree(ROOT / "models" / "embedded", tmp_path / "model")
    (model / "answer.json").write_text('{"pages": 1, "system": null, "max_new_tokens": 6000}')
    # no end, and no loop that would be taken for one
    anything = {"do_sample": True, "temperature": 9.0, "top_k": 200, "eos_token_id": []}
    (model / "generation_config.json").write_text(json.dumps(anything))
    with serving(served / "index", tmp_path / "server.log", "--model", str(model)) as address:
        yield address


@contextmanager
def serving(index: Path, log: Path, *options: str) -> Iterator[str]:
    """Serve an index; the address is up when it is given."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "rag", "serve", "--index", str(index),
        "--port", str(port), "--root", str(SAMPLES), *options,
    ]  # fmt: skip
    with log.open("w") as written:
        server = subprocess.Popen(command, cwd=ROOT, stdout=written, stderr=subprocess.STDOUT)
    try:
        _wait_until_up(f"http://127.0.0.1:{port}/", server, log)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(PATIENCE_MS / 1000)


def _wait_until_up(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(480):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}api/status", timeout=5) as told:
                if json.load(told)["state"] != "loading":  # it has the model as well
                    return
        except urllib.error.HTTPError as error:
            assert error.code == 401  # up, and asks who this is
            return
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError(log.read_text())


@dataclass
class Visit:
    """A page open in a browser of its own, and what its console said."""

    page: Page
    context: BrowserContext
    said: list[str] = field(default_factory=list)

    def hear(self, line: str, *, is_wrong: bool = True) -> None:
        if is_wrong:
            self.said.append(line)

    def close(self) -> list[str]:
        """Leave the page; return what went wrong until then.

        Gradio's client aborts its open stream on leaving and calls that an error in the console.
        """
        self.page.evaluate("0")  # what the console said before comes before this
        said = list(self.said)
        self.context.close()
        return said

    def reload(self) -> None:
        """Load the page anew, as F5 does; what it says on leaving does not count, as at the end."""
        self.page.evaluate("0")
        said = list(self.said)
        self.page.reload()
        self.find(".yomu-head h1").wait_for()
        self.said[:] = said

    def find(self, selector: str, **more: str) -> Locator:
        return self.page.locator(selector, **more)

    def tab(self, number: int) -> None:
        self.page.get_by_role("tab").nth(number).click()

    def ask(self, question: str, mode: str = "text") -> None:
        """Ask, by text if not said otherwise: that finds the right page whatever the model can."""
        self.tab(0)
        self.open_options()
        self.find(f"#options input[type=radio][value={mode}]").check()
        self.find("#question textarea, #question input").first.fill(question)
        with self.asking(question):
            self.find("#ask:not([disabled])").click()

    @contextmanager
    def asking(self, question: str) -> Iterator[None]:
        """Wait, after what asks, until nothing of the question before is on the page."""
        self.page.evaluate(
            "for (const each of document.querySelectorAll("
            "'#answer .yomu-asked, #evidence .yomu-card')) each.dataset.old = ''"
        )
        yield
        self.find("#answer .yomu-asked:not([data-old])", has_text=question).wait_for()
        self.page.wait_for_function("!document.querySelector('[data-old]')")

    def remove(self, row: Locator) -> None:
        """Click a document away, which asks once more; nothing may be being read."""
        row.locator("[data-event=delete]").click()
        self.page.wait_for_timeout(READ_MS)
        row.locator("[data-event=delete].is-asking").click()
        row.wait_for(state="detached")

    def answered(self, question: str, mode: str = "text") -> Locator:
        """Ask, unless that is on the page already, and wait for the answer and its page."""
        self.tab(0)
        asked = self.find("#answer .yomu-asked")
        if not asked.count() or asked.inner_text() != question:
            self.ask(question, mode)
        answer = self.wait_for_answer()
        self.wait_for("#viewer .yomu-heat")
        return answer

    def open_options(self) -> None:
        if not self.find("#options input[type=radio]").first.is_visible():
            self.find("#options button").first.click()

    def wait_for(self, selector: str, count: int | None = None) -> Locator:
        found = self.find(selector)
        found.first.wait_for(state="attached")
        if count is not None:
            assert found.count() == count
        return found

    def wait_for_answer(self) -> Locator:
        return self.wait_for("#answer .yomu-text[aria-busy=false]")

    def wait_for_colours(self) -> None:
        """Wait until colours have faded from one state to the next."""
        self.page.wait_for_function(
            "document.getAnimations().every(each => each.playState != 'running'"
            " || each.effect.getComputedTiming().endTime == Infinity)"
        )

    def snap(self, name: str) -> None:
        """Keep a picture where YOMU_SCREENSHOTS names a folder."""
        if folder := os.environ.get("YOMU_SCREENSHOTS"):
            if self.find("#options input[type=radio]").first.is_visible():
                self.find("#options button").first.click()
            self.page.evaluate("window.scrollTo(0, 0)")
            self.page.wait_for_timeout(400)
            self.page.screenshot(path=f"{folder}/{name}.png")


def open_page(
    chromium: Browser, address: str, locale: str = ENGLISH, width: int = 1280, height: int = 900,
    **more,
) -> Visit:  # fmt: skip
    """Open the page in a browser of its own and listen to its console."""
    context = chromium.new_context(
        locale=locale, viewport={"width": width, "height": height}, **more
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    opened = Visit(page, context)
    page.on("console", lambda line: opened.hear(line.text, is_wrong=line.type == "error"))
    page.on("pageerror", lambda error: opened.hear(str(error)))
    page.on("request", lambda sent: opened.hear(f"left the machine: {sent.url}", is_wrong=not
            sent.url.startswith((address, "data:", "blob:"))))  # fmt: skip
    page.goto(address)
    page.locator(".yomu-head h1").wait_for()
    return opened


@pytest.fixture
def visit(chromium, address) -> Iterator[Callable[..., Visit]]:
    """Open the page: visit(locale=…, width=…, height=…). Nothing may go wrong in its console."""
    open_ones: list[Visit] = []

    def start(*args, **more) -> Visit:
        open_ones.append(open_page(chromium, address, *args, **more))
        return open_ones[-1]

    yield start
    assert [line for each in open_ones for line in each.close()] == []


@pytest.fixture(scope="session")
def english(chromium, indexed) -> Iterator[Visit]:
    """A visit that many tests go on with: loading the page anew takes seconds of CPU."""
    yield from _long_visit(chromium, indexed, ENGLISH, "light")


@pytest.fixture(scope="session")
def japanese(chromium, indexed) -> Iterator[Visit]:
    """Another one, in Japanese and in the dark."""
    yield from _long_visit(chromium, indexed, JAPANESE, "dark")


def _long_visit(chromium: Browser, address: str, locale: str, scheme: str) -> Iterator[Visit]:
    here = open_page(chromium, address, locale, color_scheme=scheme)
    yield here
    assert here.close() == []


@pytest.fixture(scope="session")
def indexed(chromium, address) -> str:
    """The server once the samples were dropped on the page, as a person would."""
    context = chromium.new_context(locale=ENGLISH, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(3 * PATIENCE_MS)
    page = context.new_page()
    page.goto(address)
    page.get_by_role("tab").nth(1).click()
    page.get_by_text("Nothing is indexed yet").first.wait_for()
    page.locator("#upload input[type=file]").set_input_files(sorted(SAMPLES.glob("*.pdf")))
    page.locator("#job .yomu-job", has_text="Finished").wait_for()
    page.locator("#documents tbody tr").nth(4).wait_for()
    context.close()
    return address
