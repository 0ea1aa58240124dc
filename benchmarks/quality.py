"""How well pages are found and read, on real documents: tables per language, kind and text layer.

    python -m benchmarks.quality retrieval DOCUMENTS --model models/embedded
    python -m benchmarks.quality answers DOCUMENTS --model models/embedded
    python -m benchmarks.quality asked DOCUMENTS --index INDEX
    python -m benchmarks.quality reading DOCUMENTS --model models/embedded
    python -m benchmarks.quality speed PDF PAGE

DOCUMENTS holds PDFs, manifest.json, queries.jsonl and qa.jsonl. Retrieval sees page images alone;
beside it stand BM25 over the PDF's text layer and, with --tesseract, BM25 over OCR of the same
pages, drawn and tidied as the product does it for OCR (--tesseract-dpi 144: of the same images).
Page vectors and OCR are kept in --cache, by model and resolution. Answers are counted when
the right page is given, and, `asked`, when it has to be found first in an index of DOCUMENTS;
`--questions` asks those of another file with the lines of qa.jsonl.
`reading` cuts lines out of the pages and counts the characters that the model gets wrong, beside
Tesseract.
"""

import hashlib
import json
import random
import subprocess
import tempfile
import timeit
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
import pymupdf
import typer
from PIL import Image

import models
from benchmarks.metrics import ndcg_at, recall_at
from benchmarks.text_scores import BM25, anls, answered, edit_distance
from index.page_index import PageIndex
from index.records import DocumentInput, PageInput, PatchGrid, VectorSettings
from index.text_layer import CJK_FIRST
from rag.answer import Question
from rag.documents import open_document
from rag.encoder import EncodedPage, ModelEncoder
from rag.manner import AnswerOptions
from rag.ocr import OCR_DPI, OCR_MAX_PIXELS, tidy
from rag.page_content import RasterSize
from rag.pipeline import Pipeline
from rag.quote import quotation
from rag.settings import DEFAULT_DPI, Settings
from rag.text_quality import judge

app = typer.Typer(add_completion=False, help=__doc__)
Key = tuple[str, int]  # document, 1-based page
Ranks = dict[str, list[Key]]  # query id → pages, best first


@dataclass(frozen=True)
class Query:
    """A search with the pages that answer it."""

    qid: str
    text: str
    language: str
    kind: str
    relevant: tuple[Key, ...]
    layer: str
    answers: tuple[str, ...] = ()


def load_queries(folder: Path) -> tuple[list[Query], list[Query]]:
    """Return (searches, questions with answers) of a documents folder."""
    layers = _text_layers(folder)
    searches = []
    for item in _lines(folder / "queries.jsonl"):
        pages = tuple((item["doc"], page) for page in item["pages"])
        layer = layers[item["doc"]]
        searches.append(Query(item["qid"], item["query"], item["lang"], item["kind"], pages, layer))
    return searches, load_questions(folder)


def load_questions(folder: Path, path: Path | None = None) -> list[Query]:
    """Return questions with answers about a documents folder: its own, or those of a file."""
    layers = _text_layers(folder)
    questions = []
    for item in _lines(path or folder / "qa.jsonl"):
        pages = tuple((item["doc"], p) for p in [item["page"], *item["also_pages"]])
        wanted = (item["answer"], *item["answer_alternatives"])
        layer = layers[item["doc"]]
        questions.append(
            Query(item["qid"], item["question"], item["lang"], item["kind"], pages, layer, wanted)
        )
    return questions


def _text_layers(folder: Path) -> dict[str, str]:
    manifest = json.loads((folder / "manifest.json").read_text())
    return {item["doc"]: item["has_text_layer"] for item in manifest}


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def choose_pages(folder: Path, queries: Iterable[Query], limit: int, seed: int = 0) -> list[Key]:
    """Return every page, or all relevant ones and a seeded choice of others up to a limit."""
    every = []
    for path in sorted(folder.glob("*.pdf")):
        with pymupdf.open(path) as document:
            every += [(path.stem, number + 1) for number in range(len(document))]
    if not limit or limit >= len(every):
        return every
    needed = {key for query in queries for key in query.relevant}
    others = [key for key in every if key not in needed]
    random.Random(seed).shuffle(others)
    chosen = needed | set(others[: max(0, limit - len(needed))])
    return [key for key in every if key in chosen]


def render(folder: Path, key: Key, dpi: int) -> Image.Image:
    """Return the image of a page."""
    with pymupdf.open(folder / f"{key[0]}.pdf") as document:
        pixmap = document[key[1] - 1].get_pixmap(dpi=dpi, alpha=False)
    return Image.frombytes("RGB", (pixmap.width, pixmap.height), pixmap.samples)


def encoded_pages(
    folder: Path, pages: list[Key], encoder: ModelEncoder, dpi: int, cache: Path
) -> Iterator[EncodedPage]:
    """Yield what the model makes of every page, from the cache where it is known."""
    name = hashlib.sha256((encoder.folder / "model.json").read_bytes()).hexdigest()[:16]
    place = cache / f"{name}-{dpi}"
    place.mkdir(parents=True, exist_ok=True)
    for document, number in pages:
        path = place / f"{document}-{number}.npz"
        if not path.exists():
            found = encoder.page(render(folder, (document, number), dpi))
            np.savez(path, vectors=found.vectors, read=found.read)
        known = np.load(path)
        vectors = known["vectors"]
        grid = PatchGrid(1, len(vectors), np.arange(len(vectors), dtype=np.int32))
        yield EncodedPage(vectors, grid, str(known["read"]))


def rank_by_images(
    folder: Path,
    pages: list[Key],
    queries: list[Query],
    model: Path,
    dpi: int,
    cache: Path,
    sharpness: float = 1.0,
) -> tuple[Ranks, list[str]]:
    """Rank pages by their images alone, as the product does, and return what was read on each.

    sharpness  1: MaxSim (ColPali, arXiv:2407.01449); as in fusion.json: as shipped
    """
    encoder = ModelEncoder(str(model), "auto", 0, None)
    encoded = list(encoded_pages(folder, pages, encoder, dpi, cache))
    settings = VectorSettings(encoder.digest, str(model), dpi, encoder.max_visual_tokens)
    with (
        tempfile.TemporaryDirectory() as place,
        PageIndex.open(Path(place) / "index", settings, writable=True) as page_index,
    ):
        for name, members in groupby(zip(pages, encoded, strict=True), key=lambda each: each[0][0]):
            own = [(number, each) for (_, number), each in members]
            sha256 = hashlib.sha256(name.encode()).hexdigest()
            page_index.begin_document(DocumentInput(name, sha256, own[-1][0], "", 0, 0.0))
            for number, each in own:
                page = PageInput(number, each.vectors, each.grid, read=each.read)
                page_index.add_page(name, page)
        page_index.commit()
        for name in dict.fromkeys(name for name, _ in pages):
            page_index.finish_document(name)
        page_index.commit()
        weights = replace(encoder.fusion, sharpness=sharpness)
        ranks = {}
        for query, asked in zip(
            queries, encoder.questions([query.text for query in queries]), strict=True
        ):
            hits = page_index.search(
                len(pages), vectors=asked, text=query.text, mode="visual", fusion=weights
            )
            ranks[query.qid] = [(hit.document, hit.page) for hit in hits]
    return ranks, [each.read for each in encoded]


def rank_by_text(pages: list[Key], texts: list[str], queries: list[Query]) -> Ranks:
    """Rank pages by BM25 over a text each."""
    index = BM25(texts)
    return {
        query.qid: [pages[i] for i in np.argsort(index.scores(query.text), kind="stable")[::-1]]
        for query in queries
    }


def text_layer(folder: Path, key: Key) -> str:
    """Return what PyMuPDF finds in the page's text layer."""
    with pymupdf.open(folder / f"{key[0]}.pdf") as document:
        return document[key[1] - 1].get_text()


def tesseract(folder: Path, key: Key, dpi: int, cache: Path) -> str:
    """Return Tesseract's reading of a page as the product keeps it, both languages on.

    The cache holds it as read. BM25 counts pairs of Japanese characters, and Tesseract puts spaces
    between them: without `tidy` the peer loses most of its pairs.
    """
    path = cache / f"tesseract-{dpi}" / f"{key[0]}-{key[1]}.txt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        document = open_document(folder / f"{key[0]}.pdf")
        size = RasterSize(dpi=dpi, max_pixels=OCR_MAX_PIXELS)  # as in rag/ocr_pass.py
        image = document.read(key[1], size).image
        document.close()
        path.write_text(read_by_tesseract(image, "--dpi", str(dpi)))
    return tidy(path.read_text())


def read_by_tesseract(image: Image.Image, *options: str) -> str:
    """Return Tesseract's reading of an image, both languages on."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        image.save(file.name)
        command = ["tesseract", file.name, "-", "-l", "eng+jpn", *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def report(queries: list[Query], systems: dict[str, Ranks], pages: list[Key]) -> dict:
    """Print nDCG@5, recall@1 and recall@5 of each system per group, and return them."""
    groups: dict[str, list[Query]] = {"all": queries}
    for name, of in _GROUPINGS.items():
        split = defaultdict(list)
        for query in queries:
            split[f"{name} {of(query)}"].append(query)
        groups |= dict(sorted(split.items()))
    print(f"{len(pages)} pages\n\n| group | n | " + " | ".join(systems) + " |")
    print("|---|---|" + "---|" * len(systems) + "   (nDCG@5 / recall@1 / recall@5)")
    table: dict[str, dict[str, list[float]]] = {}
    for group, members in groups.items():
        table[group] = {name: _scores(members, ranks) for name, ranks in systems.items()}
        cells = " | ".join(" / ".join(f"{x:.3f}" for x in v) for v in table[group].values())
        print(f"| {group} | {len(members)} | {cells} |")
    return table


_GROUPINGS: dict[str, Callable[[Query], str]] = {
    "language": lambda query: query.language,
    "kind": lambda query: query.kind,
    "text layer": lambda query: "good" if query.layer == "yes" else "none, partial or broken",
}


def _scores(queries: list[Query], ranks: Ranks) -> list[float]:
    each = [
        (ndcg_at(r, q.relevant, 5), recall_at(r, q.relevant, 1), recall_at(r, q.relevant, 5))
        for q in queries
        for r in [ranks[q.qid]]
    ]
    return [float(x) for x in np.mean(each, axis=0)]


@app.command()
def retrieval(
    documents: Annotated[Path, typer.Argument(help="folder of PDFs and questions")],
    model: Annotated[Path, typer.Option(help="model folder")] = Path("models/embedded"),
    dpi: Annotated[int, typer.Option(help="resolution of the page images")] = DEFAULT_DPI,
    limit: Annotated[int, typer.Option(help="most pages; 0: all of them")] = 0,
    ocr: Annotated[bool, typer.Option("--tesseract", help="also Tesseract + BM25")] = False,
    tesseract_dpi: Annotated[
        int, typer.Option(help="resolution for Tesseract; by default as the product draws for OCR")
    ] = OCR_DPI,
    sharpness: Annotated[
        float, typer.Option(help="power of matches, as in fusion.json; 1: MaxSim")
    ] = 1.0,
    cache: Annotated[Path, typer.Option(help="folder of vectors and OCR")] = Path(".quality"),
) -> None:
    """Measure retrieval from page images beside BM25 over the text layer."""
    searches, questions = load_queries(documents)
    queries = searches + questions
    pages = choose_pages(documents, queries, limit)
    texts = [text_layer(documents, key) for key in pages]
    by_images, read = rank_by_images(documents, pages, queries, model, dpi, cache, sharpness)
    systems = {"images": by_images, "text layer, BM25": rank_by_text(pages, texts, queries)}
    if any(read):
        systems["what the model reads, BM25"] = rank_by_text(pages, read, queries)
    if ocr:
        texts = [tesseract(documents, key, tesseract_dpi, cache) for key in pages]
        systems["Tesseract, BM25"] = rank_by_text(pages, texts, queries)
    print("## queries")
    first = report(searches, systems, pages)
    print("\n## questions")
    second = report(questions, systems, pages)
    print(json.dumps({"pages": len(pages), "queries": first, "questions": second}))


@app.command()
def answers(
    documents: Annotated[Path, typer.Argument(help="folder of PDFs and questions")],
    model: Annotated[Path, typer.Option(help="model folder")] = Path("models/embedded"),
    dpi: Annotated[int, typer.Option(help="resolution of the page images")] = DEFAULT_DPI,
    tokens: Annotated[int, typer.Option(help="most tokens of an answer")] = 40,
) -> None:
    """Measure answers to the questions when the right page is given."""
    generator = models.load(model).generator

    def say(query: Query) -> str:
        image = render(documents, query.relevant[0], dpi)
        return "".join(generator.generate([image], query.text, max_new_tokens=tokens))

    _answer_all(load_questions(documents), say)


@app.command()
def quotes(
    documents: Annotated[Path, typer.Argument(help="folder of PDFs and questions")],
    read: Annotated[
        bool, typer.Option("--read", help="from what the model reads on the page's image")
    ] = False,
    model: Annotated[Path, typer.Option(help="model folder that reads")] = Path("models/embedded"),
    questions: Annotated[
        Path | None, typer.Option(help="questions like qa.jsonl; those of DOCUMENTS")
    ] = None,
) -> None:
    """Measure quotations from the right page: from its text layer, which needs no model.

    And how often what is asked for is marked in them, and of these how often rightly.
    """
    marks: list[bool] = []
    encoder = ModelEncoder(str(model), "auto", 0, None)

    def rows_of(name: str, number: int) -> list[str]:
        if read:
            image = render(documents, (name, number), DEFAULT_DPI)
            return encoder.page(image).read.splitlines()
        opened = open_document(documents / f"{name}.pdf")
        rows = opened.rows(number)
        opened.close()
        return rows

    def say(query: Query) -> str:
        said = quotation(query.text, rows_of(*query.relevant[0]))
        if key := said.key_text:  # 64 of "64人" is right, too
            is_right = answered(key, query.answers)
            marks.append(is_right or any(answered(each, [key]) for each in query.answers))
        return said.text

    _answer_all(load_questions(documents, questions), say, marks)


@app.command()
def asked(
    documents: Annotated[Path, typer.Argument(help="folder of PDFs and questions")],
    index: Annotated[Path, typer.Option(help="an index of these documents")],
    model: Annotated[str | None, typer.Option(help="model folder; the index's own")] = None,
    pages: Annotated[int | None, typer.Option(help="pages to answer from; as suits it")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="questions like qa.jsonl; those of DOCUMENTS")
    ] = None,
) -> None:
    """Measure answers end to end: pages are found in an index, by text and image.

    And how often the first page that is quoted has the answer, and how often any of them.
    """
    options = AnswerOptions(pages=pages)
    on_pages: list[list[bool]] = []
    with Pipeline(Settings.resolve(index=index, model=model, mode="hybrid")) as pipeline:

        def say(query: Query) -> str:
            stream = pipeline.ask(Question(query.text), options)
            written = "".join(stream)
            answer = stream.result()
            quoted = [text for _, text in answer.quotations]
            on_pages.append([answered(text, query.answers) for text in quoted])
            if answer.abstained:
                return ""
            return "\n".join(quoted) if quoted else written  # not the note that nothing is quoted

        _answer_all(load_questions(documents, questions), say, on_pages=on_pages)


@app.command()
def reading(
    documents: Annotated[Path, typer.Argument(help="folder of PDFs")],
    model: Annotated[Path, typer.Option(help="model folder")] = Path("models/embedded"),
    dpi: Annotated[int, typer.Option(help="resolution of the page images")] = DEFAULT_DPI,
    each: Annotated[int, typer.Option(help="lines of a document")] = 6,
) -> None:
    """Measure the character error rate on lines cut out of pages, beside Tesseract's.

    A model with a reading head reads by it; any other is asked to. Without spaces, full-width
    letters as the others; a line counts as all wrong at worst.
    """
    engine = models.load(model)
    errors: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for truth, image in lines_of(documents, each, dpi):
        language = "ja" if CJK_FIRST.search(truth) else "en"
        if engine.info.graphs.reading:
            lines = engine.retriever.encode_views(image, read=True).lines
            read = "".join(line.text for line in lines)
        else:
            asked = "文字を読んでください。" if language == "ja" else "Read the text."
            read = "".join(engine.generator.generate([image], asked, 2 * len(truth)))
        theirs = read_by_tesseract(image, "--psm", "7")
        wanted, *given = map(_unspaced, (truth, read, theirs))
        wrong = [min(edit_distance(wanted, text), len(wanted)) for text in given]
        errors[language].append((len(wanted), *wrong))
        print(f"{truth!r} ← {read!r}")
    for language, found in errors.items():
        n_chars, *wrong = np.sum(found, axis=0)
        shares = " | ".join(f"{each / n_chars:.3f}" for each in wrong)
        print(f"| {language} | {len(found)} lines | {shares} |")


def _unspaced(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


def lines_of(documents: Path, each: int, dpi: int) -> Iterator[tuple[str, Image.Image]]:
    """Yield text and image of a few lines of every PDF whose text layer can be believed."""
    rng = random.Random(0)
    for path in sorted(documents.rglob("*.pdf")):
        with pymupdf.open(path) as document:
            found = [
                (page.number, "".join(span["text"] for span in line["spans"]), line["bbox"])
                for page in document
                if not page.rotation and judge(page.get_text()).state == "good"
                for block in page.get_text("dict")["blocks"]
                for line in block.get("lines", ())
                if line["dir"] == (1, 0)
            ]
            long = [line for line in found if 8 <= len(line[1].strip()) <= 80]
            for number, text, box in rng.sample(long, min(each, len(long))):
                clip = pymupdf.Rect(box) + (-3, -2, 3, 2)
                pixmap = document[number].get_pixmap(dpi=dpi, clip=clip, alpha=False)
                size = (pixmap.width, pixmap.height)
                yield text.strip(), Image.frombytes("RGB", size, pixmap.samples)


@app.command()
def speed(
    document: Annotated[Path, typer.Argument(help="PDF")],
    page: Annotated[int, typer.Argument(help="1-based")],
    model: Annotated[Path, typer.Option(help="model folder")] = Path("models/embedded"),
    dpi: Annotated[int, typer.Option(help="resolution of the page image")] = DEFAULT_DPI,
) -> None:
    """Time the encoding of a page, beside an fp32 product of 2048 x 2048 matrices.

    And with what the model itself reads on it, as `ingest` has it do.
    """
    retriever = models.load(model).retriever
    image = render(document.parent, (document.stem, page), dpi)
    matrix = np.random.default_rng(0).random((2048, 2048), np.float32)
    n_vectors = len(retriever.encode_views(image, read=True).vectors)
    jobs: dict[str, Callable[[], object]] = {
        "encoded": lambda: retriever.encode_views(image),
        "encoded and read": lambda: retriever.encode_views(image, read=True),
    }
    product = min(timeit.repeat(lambda: matrix @ matrix, number=1, repeat=5))
    seconds = {name: min(timeit.repeat(job, number=1, repeat=5)) for name, job in jobs.items()}
    for name, each in seconds.items():
        print(f"{name}: {each:.2f} s for {n_vectors} vectors, {each / product:.1f} products")
    products = {name: each / product for name, each in seconds.items()}
    print(json.dumps({"seconds": seconds, "products": products, "vectors": n_vectors}))


def _answer_all(
    questions: Sequence[Query],
    say: Callable[[Query], str],
    marks: Sequence[bool] = (),
    on_pages: Sequence[Sequence[bool]] = (),
) -> None:
    """Print what is said to each question, and the means.

    `say` fills the others: marks, right or not; on_pages: of each question, whether each of the
    pages that are quoted has the answer, none where nothing is found.
    """
    results: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for query in questions:
        said = say(query)
        pair = (float(answered(said, query.answers)), anls(said, query.answers))
        print(f"{query.qid} [{query.kind}] {query.answers[0]!r} ← {said!r}")
        for group in ("all", query.language, query.kind):
            results[group].append(pair)
    for group, pairs in results.items():
        right, similar = np.mean(pairs, axis=0)
        print(f"| {group} | {len(pairs)} | {right:.3f} | {similar:.3f} |")
    found: dict[str, object] = {
        group: np.mean(pairs, axis=0).tolist() for group, pairs in results.items()
    }
    if marks:
        found |= {"marked": len(marks), "marked_right": sum(marks)}
        print(f"marked {len(marks)}, of them right {sum(marks)}")
    if any(on_pages):
        first = float(np.mean([any(each[:1]) for each in on_pages]))
        anywhere = float(np.mean([any(each) for each in on_pages]))
        found |= {"first_page": first, "any_page": anywhere}
        n = len(on_pages)
        print(f"of {n} questions, on the first page quoted {first:.3f}, on any {anywhere:.3f}")
    print(json.dumps(found))


if __name__ == "__main__":
    app()
