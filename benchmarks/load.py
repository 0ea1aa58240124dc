"""Many people on one server: 20 search while 2 ask, for N seconds.

    uv run python -m benchmarks.load --url http://127.0.0.1:7860 --pid PID --seconds 300

Measures search latency idle and under load, errors, and the server's memory over time. Start
`yomu serve` on an index first; --pid is that process's. Ends with one JSON line.
"""

import argparse
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np

from benchmarks.engine import machine

WORDS = (
    "kettle capacity",
    "total sales 2023",
    "花火大会",
    "electricity by source",
    "invoice total",
)
PAUSE_S = 1.0  # between two searches of a client, as of a person who reads
SAMPLE_S = 5.0


class Load:
    """Clients and what they measured."""

    def __init__(self, url: str, mode: str) -> None:
        self.url, self.mode = url, mode
        self.stop = threading.Event()
        self.search_s: list[float] = []
        self.answers = 0
        self.errors: list[str] = []

    def search(self, n: int, pause_s: float = PAUSE_S) -> None:
        """Search until stopped."""
        with httpx.Client(base_url=self.url, timeout=120) as client:
            while not self.stop.is_set():
                query = {"query": WORDS[n % len(WORDS)], "mode": self.mode}
                started = time.perf_counter()
                self._try(lambda query=query: client.get("/api/search", params=query))
                self.search_s.append(time.perf_counter() - started)
                n += 1
                self.stop.wait(pause_s)

    def ask(self, n: int) -> None:
        """Ask until stopped."""
        with httpx.Client(base_url=self.url, timeout=600) as client:
            while not self.stop.is_set():
                body = {"question": WORDS[n % len(WORDS)], "stream": False}
                self._try(lambda body=body: client.post("/api/ask", json=body))
                self.answers += 1
                n += 1

    def _try(self, call: Callable[[], httpx.Response]) -> None:
        try:
            answer = call()
            if answer.status_code != 200:
                self.errors.append(f"{answer.status_code} {answer.text[:100]}")
        except httpx.HTTPError as error:
            self.errors.append(repr(error))


def rss_megabytes(pid: int) -> float:
    """Return the memory of a process and its children."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):
            continue
        if pid in (int(lines["Pid"]), int(lines["PPid"])) and "VmRSS" in lines:
            total += int(lines["VmRSS"].split()[0])
    return round(total / 1000, 1)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return p50, p95 and the largest, in milliseconds."""
    values = np.array(seconds or [np.nan]) * 1000
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(p50, 1), "p95": round(p95, 1), "max": round(values.max(), 1)}


def run(url: str, pid: int, seconds: float, mode: str) -> dict[str, object]:
    """Measure one client alone, then all of them."""
    idle = Load(url, mode)
    alone = threading.Thread(target=idle.search, args=(0, 0.1))
    alone.start()
    time.sleep(min(10.0, seconds / 4))
    idle.stop.set()
    alone.join()
    load, memory = Load(url, mode), [rss_megabytes(pid)]
    threads = [threading.Thread(target=load.search, args=(n,)) for n in range(20)]
    threads += [threading.Thread(target=load.ask, args=(n,)) for n in range(2)]
    for each in threads:
        each.start()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(SAMPLE_S, seconds / 4))
        memory.append(rss_megabytes(pid))
        print(f"{len(load.search_s)} searches, {load.answers} answers, {memory[-1]:.0f} MB")
    load.stop.set()
    for each in threads:
        each.join()
    return {
        "seconds": seconds, "mode": mode, "searches": len(load.search_s), "answers": load.answers,
        "errors": len(load.errors), "first_errors": load.errors[:3],
        "search_ms_idle": percentiles(idle.search_s), "search_ms_load": percentiles(load.search_s),
        "rss_mb": {"first": memory[0], "middle": memory[len(memory) // 2], "last": memory[-1],
                   "most": max(memory)},
        "machine": machine(),
    }  # fmt: skip


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--pid", type=int, required=True, help="process id of the server")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--mode", default="hybrid", choices=("hybrid", "visual", "text"))
    args = parser.parse_args()
    print(json.dumps(run(args.url, args.pid, args.seconds, args.mode)))


if __name__ == "__main__":
    main()
