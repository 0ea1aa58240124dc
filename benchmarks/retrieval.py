"""How well pages are found: recall and nDCG on the development documents, by kind of question.

    uv run yomu ingest ../shared/documents/dev --index /tmp/dev.yomu
    uv run python -m benchmarks.retrieval --index /tmp/dev.yomu --modes text

Prints one table a mode, beside BM25 over PyMuPDF's text of every page (the least to be had), and
ends with one JSON line. Small cells say little: compare runs query by
query (`--per-query FILE`), never by an average alone. `--abstain` asks everything once more after
the document that answers was removed from a copy of the index, and asks about other things
altogether: how often "not found" is said.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pymupdf

from benchmarks.metrics import ndcg_at, recall_at
from benchmarks.text_scores import BM25
from rag.pipeline import Pipeline, Query
from rag.settings import Settings

DOCUMENTS = Path("../shared/documents/dev")
MEASURES = ("recall@1", "recall@5", "nDCG@5")
Groups = dict[str, tuple[int, tuple[float, ...]]]  # group -> (number of questions, means)

UNRELATED = (  # to any report, manual or form
    "What is the capital of Mongolia?", "Who won the football world cup in 1998?",
    "How do I bake sourdough bread?", "What is the boiling point of ethanol?",
    "Who painted the Mona Lisa?", "How many moons does Jupiter have?",
    "What time does the museum open on Sundays?", "How tall is Mount Everest?",
    "What is the recommended dose of ibuprofen for children?", "Who is the mayor of Chicago?",
    "What was Tesla's revenue in 2019?", "What is the warranty period of the dishwasher?",
    "モンゴルの首都はどこですか", "富士山の高さは何メートルですか",
    "味噌汁の作り方を教えてください", "夏目漱石の代表作は何ですか",
    "新幹線の最高速度はいくつですか", "この洗濯機の保証期間は何年ですか",
    "1998年のワールドカップの優勝国はどこですか", "テスラの2019年の売上高はいくらですか",
    "鎌倉幕府は何年に開かれましたか", "イブプロフェンの子供への用量は？",
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A question, the pages that answer it, and the groups it counts in."""

    id: str
    query: str
    relevant: frozenset[tuple[str, int]]
    groups: tuple[str, ...]


def load(folder: Path) -> list[Item]:
    """Return the queries and questions of the development documents."""
    layers = {
        each["doc"]: "good" if each["has_text_layer"] == "yes" else "none or broken"
        for each in json.loads((folder / "manifest.json").read_text())
    }
    items = []
    for line in _lines(folder / "queries.jsonl"):
        relevant = frozenset((f"{line['doc']}.pdf", page) for page in line["pages"])
        groups = (
            "all",
            f"lang {line['lang']}",
            f"kind {line['kind']}",
            f"text {layers[line['doc']]}",
        )
        items.append(Item(line["qid"], line["query"], relevant, groups))
    for line in _lines(folder / "qa.jsonl"):
        pages = [line["page"], *line["also_pages"]]
        relevant = frozenset((f"{line['doc']}.pdf", page) for page in pages)
        groups = ("qa all", f"qa {line['lang']}", f"qa {line['kind']}")
        items.append(Item(line["qid"], line["question"], relevant, groups))
    return items


def measure(pipeline: Pipeline, items: list[Item]) -> tuple[dict[str, tuple[float, ...]], float]:
    """Return item id -> (recall@1, recall@5, nDCG@5), and the median seconds of a search."""
    found, seconds = {}, []
    pipeline.search([Query(items[0].query)])  # opens the index and the model
    for item in items:
        began = time.perf_counter()
        (result,) = pipeline.search([Query(item.query)])
        seconds.append(time.perf_counter() - began)
        found[item.id] = _measures([(hit.document, hit.page) for hit in result.hits], item)
    return found, statistics.median(seconds)


def measure_bm25(folder: Path, items: list[Item]) -> dict[str, tuple[float, ...]]:
    """Return what `measure` does of BM25 over the text layer of every page of a folder."""
    keys, texts = [], []
    for path in sorted(folder.glob("*.pdf")):
        with pymupdf.open(path) as document:
            texts += [page.get_text() for page in document]
            keys += [(path.name, number + 1) for number in range(len(document))]
    pages = BM25(texts)
    found = {}
    for item in items:
        order = np.argsort(-np.array(pages.scores(item.query)), kind="stable")
        found[item.id] = _measures([keys[row] for row in order[:5]], item)
    return found


def _measures(ranked: list[tuple[str, int]], item: Item) -> tuple[float, ...]:
    return (
        recall_at(ranked, item.relevant, 1),
        recall_at(ranked, item.relevant, 5),
        ndcg_at(ranked, item.relevant, 5),
    )


def abstention(index: Path, model: str | None, items: list[Item]) -> dict[str, list[list[float]]]:
    """Return group -> [best hybrid scores with all documents, those without the right one].

    Without: each document is removed from a copy of the index and its own questions are asked.
    Other documents may still answer a few, so not every one of them deserves to be turned away.
    """
    by_document = defaultdict(list)
    for item in items:
        by_document[next(iter(item.relevant))[0]].append(item)
    groups = defaultdict(lambda: [[], []])
    for document, own in by_document.items():
        with tempfile.TemporaryDirectory() as place:
            copy = Path(place) / "copy.yomu"
            shutil.copytree(index, copy, ignore=shutil.ignore_patterns("images", "*.lock"))
            with Pipeline(Settings.resolve(index=copy, model=model)) as pipeline:
                pipeline.house.remove_documents([document])
            asked = [item.query for item in own]
            without = _best(copy, model, asked)
        for item, *scores in zip(own, _best(index, model, asked), without, strict=True):
            for column, score in zip(groups[item.groups[0]], scores, strict=True):
                column.append(score)
    return dict(groups)


def _best(index: Path, model: str | None, questions: Sequence[str]) -> list[float]:
    with Pipeline(Settings.resolve(index=index, model=model, mode="hybrid", top_k=1)) as pipeline:
        found = pipeline.search([Query(question) for question in questions])
    return [max((hit.score for hit in result.hits), default=0.0) for result in found]


def _threshold(index: Path, model: str | None) -> float:
    """Return the threshold of the model, from which on a hybrid score is an answer."""
    with Pipeline(Settings.resolve(index=index, model=model)) as pipeline:
        return pipeline.encoder.fusion.threshold


def _show_abstention(groups: dict[str, list[list[float]]], shipped: float) -> None:
    for group, (kept, left) in groups.items():
        print(f"\n{group}: threshold, answered, turned away without the right document")
        for percent in sorted({*range(10, 60, 5), round(100 * shipped)}):
            answered = sum(100 * score >= percent for score in kept) / len(kept)
            away = sum(100 * score < percent for score in left) / len(left)
            print(f"{percent / 100:9.2f} {answered:9.0%} {away:9.0%}")


def by_group(items: list[Item], found: dict[str, tuple[float, ...]]) -> Groups:
    """Return group -> (number of questions, means)."""
    groups = defaultdict(list)
    for item in items:
        for group in item.groups:
            groups[group].append(found[item.id])
    return {
        group: (len(rows), tuple(sum(column) / len(rows) for column in zip(*rows, strict=True)))
        for group, rows in groups.items()
    }


def main() -> None:
    """Measure the modes asked for and print tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--documents", type=Path, default=DOCUMENTS)
    parser.add_argument("--modes", nargs="+", default=["text", "visual", "hybrid"])
    parser.add_argument("--model")
    parser.add_argument("--per-query", type=Path, help="write a JSON line per question and mode")
    parser.add_argument("--abstain", action="store_true", help='measure "not found" as well')
    options = parser.parse_args()
    items = load(options.documents)
    reference = by_group(items, measure_bm25(options.documents, items))
    summary = {}
    lines: list[str] = []
    for mode in options.modes:
        settings = Settings.resolve(index=options.index, model=options.model, mode=mode)
        with Pipeline(settings) as pipeline:
            found, seconds = measure(pipeline, items)
        groups = by_group(items, found)
        _show(mode, groups, reference)
        print(f"median time of a search: {seconds:.3f} s")
        summary[mode] = {name: [n, *map(_short, means)] for name, (n, means) in groups.items()}
        lines += [
            json.dumps({"mode": mode, "id": key} | dict(zip(MEASURES, values, strict=True)))
            for key, values in found.items()
        ]
    if options.abstain:
        shipped = _threshold(options.index, options.model)
        _show_abstention(abstention(options.index, options.model, items), shipped)
        unrelated = _best(options.index, options.model, UNRELATED)
        away = sum(score < shipped for score in unrelated)
        print(f"\nabout other things: {away} of {len(unrelated)} turned away at {shipped}")
    if options.per_query:
        options.per_query.write_text("\n".join(lines) + "\n")
    sys.stdout.write(json.dumps(summary) + "\n")


def _show(mode: str, groups: Groups, bm25: Groups) -> None:
    print(f"\n{mode:24}    n  " + "  ".join(f"{name:>8}" for name in MEASURES) + "   BM25")
    for group, (n, means) in sorted(groups.items()):
        cells = "  ".join(f"{value:8.3f}" for value in means)
        reference = " ".join(f"{value:.3f}" for value in bm25[group][1])
        print(f"{group:24} {n:4}  {cells}   {reference}")


def _short(value: float) -> float:
    return round(value, 4)


def _lines(path: Path) -> Iterator[dict]:
    return (json.loads(line) for line in path.read_text("utf-8").splitlines() if line)


if __name__ == "__main__":
    main()
