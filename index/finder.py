"""Answer a search from one snapshot of the vectors and one view of the database."""

import math
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from index import catalogue, fusion
from index.codec import StoreCodec
from index.database import COMPLETE, Changed, Database
from index.errors import FilterError, IndexCorrupt, ShapeMismatch
from index.fusion import Fusion, Matches, Signals
from index.maxsim import chance
from index.opening import has_present_words, has_readings
from index.ranking import DECIMALS, Comparison, Ranked, rank
from index.records import Filters, Floats, Mode, PageHit, Tuning
from index.snapshot import HIDDEN, Snapshot, generation_of, take
from index.text_layer import (
    borrowed,
    is_joint,
    is_single_letter,
    is_unicode,
    match_any,
    means_something,
    names,
    proper_names,
    words,
    years,
)

Ints = NDArray[np.int64]

FREQUENT_FROM_PAGES = 20_000  # from here on, words on every fifth page are left out: they cost most
FREQUENT_SHARE = 0.2
MATTER_POOL = 20  # best text hits of which one has most of what the question is about
LEAST_SHARE = 0.02  # of such a page: where only words that mean nothing are found, they still rank
TEXT_POOL = 1000  # text hits that take part in a fusion; all pages beyond count as without
VISUAL_POOL = 200
MOST_BIGRAMS = 50  # looked up for one letter, those on most pages
NAMED_AMONG = 12  # best pages, of which one has a name of the question: it may have two subjects
DATED_AMONG = 5  # best pages, of which one has a year of the question: many pages have any year
BACKGROUND_PAGES = 256  # pages that tell which scores are ordinary: 7 CPU-ms at 128 vectors


@dataclass(frozen=True)
class TextRanked:
    """Pages by BM25; on how many of n_pages each word of the question is; which words are names."""

    ranked: Ranked
    terms: dict[str, int]
    n_pages: int
    names: frozenset[str]


class PageVanished(IndexCorrupt):
    """A ranked page has no row: removed meanwhile, or else the database is damaged."""


class Finder:
    """Searches; keeps the snapshot between them. Safe to call from several threads."""

    def __init__(self, folder: Path, database: Database, codec: StoreCodec, tuning: Tuning) -> None:
        self._folder, self._database, self._codec = folder, database, codec
        self._tuning = tuning
        self._snapshot: Snapshot | None = None
        self._n_reopened = database.n_reopened
        self._lock = threading.RLock()

    def snapshot(self) -> Snapshot:
        """Return the newest committed state; opens only what is not open yet."""
        with self._lock:
            while True:
                with self._database.view() as sql:
                    generation = generation_of(sql)
                    if self._n_reopened != self._database.n_reopened:  # perhaps another index
                        self._snapshot, self._n_reopened = None, self._database.n_reopened
                    try:
                        self._snapshot = take(
                            self._folder, self._database, self._codec, self._snapshot
                        )
                        return self._snapshot
                    except IndexCorrupt as error:
                        damage = error
                # A merge removes the files of a segment after its row: look again if it has gone.
                with self._database.view() as sql:
                    if generation_of(sql) == generation:
                        raise damage

    # -- search ----------------------------------------------------------------------------

    def search(
        self,
        k: int,
        vectors: Floats | None,
        text: str | None,
        mode: Mode,
        filters: Filters,
        weights: Fusion,
        exact: bool,
    ) -> tuple[PageHit, ...]:
        """See PageIndex.search."""
        if mode not in get_args(Mode):
            raise FilterError(f"no mode {mode!r}; there are {', '.join(get_args(Mode))}")
        if k < 1:
            raise FilterError(f"{k} hits cannot be found; ask for one or more")
        query = self._query(vectors) if mode != "text" else None
        if mode != "visual":
            _check_text(text, mode)
        is_second = False
        while True:
            try:
                snapshot = self.snapshot()
                return self._search(snapshot, k, query, text, mode, filters, weights, exact)
            except Changed:
                if is_second:
                    raise
                is_second = True
            except PageVanished:
                # Removed or replaced between ranking and naming: the next snapshot is without it.
                if self.snapshot() is snapshot:
                    raise

    def _search(
        self,
        snapshot: Snapshot,
        k: int,
        query: Floats | None,
        text: str | None,
        mode: Mode,
        filters: Filters,
        weights: Fusion,
        exact: bool,
    ) -> tuple[PageHit, ...]:
        allowed = self._allowed(filters)
        if query is None:
            found = self._by_text(str(text), max(k, TEXT_POOL), filters)
            return self._hits(found.ranked.top(k), filters, text=found.ranked)
        if mode == "visual":
            power = 1.0 if text is None else weights.sharpness  # an image has no words to weigh
            read = self._by_reading(text, max(k, TEXT_POOL), filters)
            ranked, seen = self._by_images(snapshot, query, k, allowed, power, exact, read)
            return self._hits(ranked, filters, visual=seen)
        return self._hybrid(snapshot, query, str(text), k, filters, allowed, weights, exact)

    def _query(self, vectors: Floats | None) -> Floats:
        if vectors is None:
            raise FilterError("modes visual and hybrid need the question's vectors")
        query = np.ascontiguousarray(vectors, np.float32)
        if query.ndim != 2 or not len(query) or query.shape[1] != self._codec.dim:
            raise ShapeMismatch(f"query vectors of shape {query.shape}; (Q, {self._codec.dim})")
        if not np.isfinite(query).all():
            raise ShapeMismatch("query vectors hold NaN or infinity")
        return query

    def _allowed(self, filters: Filters) -> Ints | None:
        """Contents that the filters leave; None without any filter."""
        if filters == Filters():
            return None
        condition, values = catalogue.where(filters)
        query = f"SELECT DISTINCT d.content FROM documents d WHERE {condition}"
        with self._database.view() as sql:
            return np.array([row[0] for row in sql.execute(query, values)], np.int64)

    # -- text ------------------------------------------------------------------------------

    def _by_text(self, text: str, limit: int, filters: Filters) -> TextRanked:
        """Rank by BM25; nothing for a question without a word that any page has."""
        with self._database.view() as sql:
            (n_pages,) = sql.execute("SELECT coalesce(sum(n_pages), 0) FROM segments").fetchone()
            terms = self._terms(words(text), n_pages)
            known = [word for word, count in terms.items() if count]
            ranked = _by_bm25(sql, "word_index", match_any(known, borrowed(text)), limit, filters)
        return TextRanked(ranked, terms, n_pages, names(text))

    def _by_reading(self, text: str | None, limit: int, filters: Filters) -> Ranked:
        """Rank by what the model itself read on the pages: BM25, 1 for a page with all, often."""
        nothing = Ranked(np.zeros(0, np.int64), np.zeros(0))
        if text is None:
            return nothing
        query = "SELECT coalesce(max(doc), 0) FROM reading_counts WHERE term = ?"
        with self._database.view() as sql:
            if not has_readings(sql):  # of an earlier version, and only read so far
                return nothing
            (n_pages,) = sql.execute("SELECT count(*) FROM readings").fetchone()
            asked = dict.fromkeys(words(text)) if n_pages else {}
            counts = {word: sql.execute(query, (word,)).fetchone()[0] for word in asked}
            known = [word for word, count in counts.items() if count]
            if n_pages >= FREQUENT_FROM_PAGES:
                known = [word for word in known if counts[word] < FREQUENT_SHARE * n_pages]
            ranked = _by_bm25(sql, "reading_index", match_any(known), limit, filters)
        if not known:
            return nothing
        scale = fusion.ideal_bm25(n_pages, list(counts.values()))
        return replace(ranked, scores=ranked.scores / scale)

    def _scale(self, read: TextRanked) -> float:
        """Return what BM25 is to be divided by; 1 is then a page with all that is asked about.

        "What is the" raises some page's score in any collection, and a name that no page has lowers
        none. So all words rank, and those that mean something say how good the best page is.
        """
        best = read.ranked.top(MATTER_POOL)
        if not len(best.pages):
            return 1.0
        about = {word: c for word, c in read.terms.items() if means_something(word)} or read.terms
        known = {word: count for word, count in about.items() if count}
        share = LEAST_SHARE
        if known:
            marks = ", ".join("?" * len(best.pages))
            query = (  # the + has the pages looked up after the words, not the words once a page
                "SELECT -bm25(word_index) AS score FROM word_index"
                f" WHERE word_index MATCH ? AND +rowid IN ({marks}) ORDER BY score DESC LIMIT 1"
            )
            with self._database.view() as sql:
                found = sql.execute(
                    query, (match_any(list(known)), *best.pages.tolist())
                ).fetchone()
            bm25 = found[0] if found else 0.0
            share = bm25 / fusion.ideal_bm25(read.n_pages, list(known.values()))
            asked = {
                word: count
                for word, count in about.items()
                if count or not (is_joint(word) or is_single_letter(word))
            }
            is_name = [word in read.names for word in asked]
            share *= fusion.known_share(read.n_pages, list(asked.values()), is_name)
        return float(best.scores.max()) / max(share, LEAST_SHARE)

    def _terms(self, found: list[str], n_pages: int) -> dict[str, int]:
        """Words of a question, and on how many pages each is (0: none, nothing to look up)."""
        counts = {}
        for word in dict.fromkeys(found):
            row = self._database.sql.execute(
                "SELECT doc FROM word_counts WHERE term = ?", (word,)
            ).fetchone()
            counts[word] = row[0] if row else 0
        # All pages that have the letter, not just those where it stands alone as in a table.
        if not any(counts.values()) or all(map(is_single_letter, counts)):
            counts |= self._words_with(filter(is_single_letter, counts))
        if n_pages >= FREQUENT_FROM_PAGES:
            rare = {w: c for w, c in counts.items() if c < FREQUENT_SHARE * n_pages}
            counts = rare if any(rare.values()) else counts
        return counts

    def _words_with(self, letters: Iterable[str]) -> dict[str, int]:
        """Bigrams with any of these letters, and on how many pages each is: 花 is in 花火."""
        query = "SELECT term, doc FROM word_counts WHERE length(term) = 2 AND instr(term, ?)"
        found: dict[str, int] = {}
        for letter in letters:
            found |= dict(self._database.sql.execute(query, (letter,)).fetchall())
        most = sorted(found, key=lambda word: -found[word])[:MOST_BIGRAMS]
        return {word: found[word] for word in most}

    # -- images ----------------------------------------------------------------------------

    def _by_images(
        self,
        snapshot: Snapshot,
        query: Floats,
        k: int,
        allowed: Ints | None,
        sharpness: float,
        exact: bool,
        read: Ranked,
    ) -> tuple[Ranked, Ranked]:
        """Rank the best k pages by their images alone; beside them, pages by plain MaxSim.

        read  pages by what the model itself reads on them
        """
        compared = self._compare(snapshot, query, sharpness)
        if sharpness == 1:
            seen = compared.rank(k, allowed, exact=exact)
            return seen, seen
        n_seen = max(k, VISUAL_POOL)
        seen = compared.rank(n_seen, allowed, exact=exact)
        extra = np.setdiff1d(read.pages[:n_seen], seen.pages)
        seen = _join(seen, compared.score(snapshot.group(extra.tolist())))
        scores = fusion.with_reading(
            self._sharpened(snapshot, compared, seen.pages, sharpness), _of(read, seen.pages)
        )
        order = np.argsort(-np.round(scores, DECIMALS), kind="stable")  # ties as MaxSim has them
        return Ranked(seen.pages[order], scores[order]).top(k), seen

    def _compare(self, snapshot: Snapshot, query: Floats, sharpness: float) -> Comparison:
        in_pairs = sharpness != 1
        return Comparison(snapshot, query, self._codec, self._tuning, in_pairs=in_pairs)

    def _sharpened(
        self, snapshot: Snapshot, compared: Comparison, pages: Ints, sharpness: float
    ) -> NDArray[np.float64]:
        """Score pages (n,) by sharpened matches of neighbouring query vectors, in the order given.

        By those of single ones where the question has one.
        """
        rows = snapshot.group(pages.tolist())
        matches, others = (
            Matches(best, chance(snapshot.lengths(found), self._codec.dim))
            for found, best in (
                compared.matches(rows, in_pairs=True),
                compared.sample(BACKGROUND_PAGES, in_pairs=True),
            )
        )
        by_page = fusion.sharpen(matches, others, sharpness)
        return by_page[np.argsort(np.argsort(pages))]

    # -- both ------------------------------------------------------------------------------

    def _hybrid(
        self,
        snapshot: Snapshot,
        query: Floats,
        text: str,
        k: int,
        filters: Filters,
        allowed: Ints | None,
        weights: Fusion,
        exact: bool,
    ) -> tuple[PageHit, ...]:
        """Fuse the best pages of both rankings; each page is scored by both."""
        compared = self._compare(snapshot, query, weights.sharpness)
        seen = compared.rank(max(k, VISUAL_POOL), allowed, exact=exact)
        read = self._by_text(text, max(k, TEXT_POOL), filters)
        extra = np.setdiff1d(read.ranked.pages[: max(k, VISUAL_POOL)], seen.pages)
        more = compared.score(snapshot.group(extra.tolist()))
        visual = _join(seen, more)
        _, others = compared.sample(BACKGROUND_PAGES)
        own = _of(read.ranked, visual.pages) / self._scale(read)
        incomplete = self._incomplete(visual.pages)
        if incomplete.any():
            images = visual.scores
            if weights.sharpness != 1:
                images = self._sharpened(snapshot, compared, visual.pages, weights.sharpness)
                looked = self._by_reading(text, max(k, TEXT_POOL), filters)
                images = fusion.with_reading(images, _of(looked, visual.pages))
            own = fusion.stand_in(own, images, incomplete)
        middle, spread = fusion.background(others.mean(0, dtype=np.float64))
        signals = Signals((visual.scores / len(query) - middle) / spread, own)
        fused = rank(visual.pages, weights.logits(signals))
        scores = fused.scores
        if self._lacks_asked(text, read, fused.top(NAMED_AMONG).pages):
            scores = scores - max(0.0, scores[0] - weights.not_found)
        best = Ranked(fused.pages, weights.probabilities(scores)).top(k)
        return self._hits(best, filters, visual=visual, text=read.ranked)

    def _lacks_asked(self, text: str, read: TextRanked, pages: Ints) -> bool:
        """Whether the question's names, or its years, are on none of these pages, best first.

        Nor in their documents' names and titles, which are words of each page. Not known where the
        best page shows more than its text says, or these are words of an earlier version.
        """
        named = proper_names(text, read.names)
        asked = [word for word in named if word in read.terms and word.isalpha()]
        asked = [word for word in asked if means_something(word)]
        sought = [
            (terms, among)
            for terms, among in ((asked, NAMED_AMONG), (years(read.terms), DATED_AMONG))
            if terms
        ]
        if not sought or not len(pages) or self._incomplete(pages[:1]).any():
            return False
        if not has_present_words(self._database):
            return False
        return any(self._have_none(pages[:among], terms) for terms, among in sought)

    def _have_none(self, pages: Ints, terms: list[str]) -> bool:
        """Whether none of these pages has any of these words."""
        marks = ", ".join("?" * len(pages))
        query = f"SELECT 1 FROM word_index WHERE word_index MATCH ? AND +rowid IN ({marks}) LIMIT 1"
        with self._database.view() as sql:
            found = sql.execute(query, (match_any(terms), *pages.tolist())).fetchone()
        return found is None

    def _incomplete(self, pages: Ints) -> NDArray[np.bool_]:
        marks = ", ".join("?" * len(COMPLETE))
        query = f"SELECT text_class IN ({marks}) FROM pages WHERE id = ?"
        with self._database.view() as sql:
            rows = [sql.execute(query, (*COMPLETE, page)).fetchone() for page in pages.tolist()]
        return np.array([row is None or not row[0] for row in rows], bool)

    # -- hits ------------------------------------------------------------------------------

    def _hits(
        self,
        ranked: Ranked,
        filters: Filters,
        visual: Ranked | None = None,
        text: Ranked | None = None,
    ) -> tuple[PageHit, ...]:
        """Name the pages; raises PageVanished when one was removed since the snapshot."""
        maxsim, bm25 = _scores(visual), _scores(text)
        hits = []
        with self._database.view():
            for page, score in zip(ranked.pages.tolist(), ranked.scores.tolist(), strict=True):
                names, others, number = self._names(page, filters)
                if not names:
                    raise PageVanished(f"page {page} has no document; run `yomu verify`")
                hits.append(
                    PageHit(
                        document=names[0],
                        page=number,
                        score=score,
                        page_id=page,
                        visual=maxsim.get(page),
                        text=bm25.get(page),
                        same_as=tuple(name for name in others if name != names[0]),
                    )
                )
        return tuple(hits)

    def _names(self, page: int, filters: Filters) -> tuple[list[str], list[str], int]:
        """Return names of a page that pass the filters, all its names, and its number."""
        rows = self._database.checked("pages", "id = ?", (page,))
        if not rows:
            return [], [], 0
        content, number = rows[0][1], rows[0][2]
        others = sorted(
            str(row[0]) for row in self._database.checked("documents", "content = ?", (content,))
        )
        condition, values = catalogue.where(filters)
        query = f"SELECT name FROM documents d WHERE d.content = ? AND {condition} ORDER BY name"
        names = [name for (name,) in self._database.sql.execute(query, [content, *values])]
        return names, others, int(str(number))

    # -- one page --------------------------------------------------------------------------

    def vectors(self, page: int) -> Floats:
        """Decode the vectors of a page by its id: (P, D)."""
        place = self.snapshot().place(page)
        if place is None:
            raise IndexCorrupt(f"{self._folder}: page {page} has no vectors; run `yomu verify`")
        records, _ = place.segment.records(np.array([place.row]))
        return self._codec.decode(records)

    def similarities(self, vectors: Floats, page: int) -> Floats:
        """Cosine of every query vector with every stored vector of a page: (Q, P)."""
        query = self._query(vectors)
        products: Floats = query @ self.vectors(page).T
        return products


def _by_bm25(
    sql: sqlite3.Connection, index: str, expression: str, limit: int, filters: Filters
) -> Ranked:
    """Rank pages by an expression of FTS5 ("": nothing) over one of the word indexes."""
    rows = []
    if expression:
        condition, values = catalogue.where(filters)
        shown = f"IN (SELECT d.content FROM documents d WHERE {condition})"
        if filters == Filters():  # few contents are hidden, many would have to be listed
            shown, values = f"NOT IN ({HIDDEN})", []
        rows = sql.execute(
            f"SELECT p.id, -bm25({index}) AS score FROM {index}"
            f" JOIN pages p ON p.id = {index}.rowid WHERE {index} MATCH ?"
            f" AND p.content {shown}"
            " ORDER BY score DESC, p.id LIMIT ?",
            (expression, *values, limit),
        ).fetchall()
    pages = np.array([row[0] for row in rows], np.int64)
    return rank(pages, np.array([row[1] for row in rows], np.float64))


def _check_text(text: str | None, mode: Mode) -> None:
    if text is None:
        raise FilterError(f"mode {mode} needs the question as text")
    if not is_unicode(text):
        raise FilterError("the question holds half of a surrogate pair: not valid Unicode")


def _join(a: Ranked, b: Ranked) -> Ranked:
    return Ranked(np.concatenate([a.pages, b.pages]), np.concatenate([a.scores, b.scores]))


def _of(ranked: Ranked, pages: Ints) -> NDArray[np.float64]:
    """Return the scores of pages (n,), 0 of those that are not ranked."""
    scores = dict(zip(ranked.pages.tolist(), ranked.scores.tolist(), strict=True))
    return np.array([scores.get(page, 0.0) for page in pages.tolist()], np.float64)


def _scores(ranked: Ranked | None) -> dict[int, float]:
    if ranked is None:
        return {}
    scores = dict(zip(ranked.pages.tolist(), ranked.scores.tolist(), strict=True))
    assert not any(math.isnan(score) for score in scores.values())
    return scores
