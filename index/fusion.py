"""Fuse the visual and the text ranking into one probability a page.

A convex combination of normalised scores (Bruch et al., arXiv:2210.11934: better than reciprocal
ranks and fitted from few examples), passed through a logistic function so that the score has a
scale: the probability that the page answers the question, with one threshold for all questions.

    visual    how far MaxSim stands out of the scores of other pages, in deviations (background()).
              Only what is beyond chance counts in full: a model that sees little then adds next to
              nothing and the text decides, whatever the scale of its scores
    text      BM25, scaled so that a page with all that the question is about, often, has 1.
              A page whose text is missing, broken or a mere line under a picture says less than it
              shows: stand_in() gives it the text score of the rank at which its image stands

Where images alone decide, scores are those of sharpen() and, if the model itself reads on pages,
with_reading().

Weights can be fitted for a model from measured scores by fit() and are kept as JSON.
"""

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from index.errors import FilterError
from index.records import Floats

K1 = 1.2  # FTS5's BM25: a word counts at most K1 + 1 times its rarity
CHANCE = 2.5  # deviations; of 644 unrelated pages the best one lies about 3 out
USUAL_SPREAD = 0.08  # mean cosine; of unrelated pages, measured on 644 of them (0.06 to 0.13)
USUAL_PAGES = 30  # as many pages as that figure weighs: seven pages say little about the spread
SHOWN = 0.5  # of the best share: a page that has more shows a word; 0.4 to 0.7 do about as well
UNKNOWN_TEXT = 0.25  # what the best image counts for at least where no text says what it shows
# Of what a model reads on a page, beside how the page looks. nDCG@5 of 161 images: 0.927 without,
# by 0.4 0.936, 0.7 0.936, 1 0.934, 1.5 0.935; questions 0.769, 0.811, 0.844, 0.846, 0.854. As
# shipped `benchmarks.quality retrieval` prints them.
READ_WEIGHT = 0.7
UNKNOWN_NAME = 3  # how much more a name that no page has counts than another such word
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Matches:
    """How well each of n pages shows each of Q query vectors."""

    best: Floats  # (Q, n) best cosine
    by_chance: Numbers  # (n,) what it would be of pages that have nothing to do with the question

    def share_beyond(self, ordinary: Numbers) -> Numbers:
        """Share (Q, n) of the way from what is ordinary (Q, n) to 1, from 0 to 1."""
        way = np.maximum(1 - ordinary, 1e-6)
        shares: Numbers = np.clip((self.best - ordinary) / way, 0, 1)
        return shares


@dataclass(frozen=True)
class Signals:
    """What both rankings say of the same n pages."""

    visual: Numbers  # (n,) deviations from the middle of other pages
    text: Numbers  # (n,) scaled BM25, or what stands in for it

    def matrix(self) -> Numbers:
        """Lay the signals out as (n, 4) with a constant for the bias."""
        outstanding = np.maximum(self.visual - CHANCE, 0)
        return np.stack([outstanding, self.visual, self.text, np.ones(len(self.text))], axis=1)


@dataclass(frozen=True)
class Fusion:
    """Weights of the signals, and from which probability on a page counts as an answer."""

    outstanding: float = 1.0  # a deviation beyond CHANCE
    visual: float = 0.2  # any deviation: decides between nearly equal texts
    text: float = 8.0
    bias: float = -3.0
    threshold: float = 0.25
    sharpness: float = 1.0  # power of matches where images alone say what is there, see sharpen()

    def logits(self, signals: Signals) -> Numbers:
        """Log-odds (n,) that each page answers."""
        weights = np.array([self.outstanding, self.visual, self.text, self.bias])
        logits: Numbers = signals.matrix() @ weights
        return logits

    def probabilities(self, logits: Numbers) -> Numbers:
        """Probability (n,) of log-odds."""
        probabilities: Numbers = expit(logits)
        return probabilities

    def answers(self, score: float) -> bool:
        """Tell whether a hybrid score is enough; below it nothing here answers the question."""
        return score >= self.threshold

    @property
    def not_found(self) -> float:
        """Log-odds of half the threshold: the most of a page without a name that is asked for."""
        half = max(self.threshold / 2, 1e-6)
        return math.log(half / (1 - half))

    def to_json(self) -> str:
        """Write the weights for a model folder."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what to_json wrote; raises FilterError."""
        names = {field.name for field in fields(cls)} - {"sharpness"}  # which came later
        try:
            values = {name: float(value) for name, value in json.loads(text).items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise FilterError(f"fusion weights are no JSON object of numbers: {error}") from error
        if values.keys() - {"sharpness"} != names:
            raise FilterError(f"fusion weights need exactly {sorted(names)}, not {sorted(values)}")
        if not 0 < values.get("sharpness", 1.0) < math.inf:
            raise FilterError(f"sharpness is {values['sharpness']}; it must be above 0")
        return cls(**values)


DEFAULT = Fusion()


def background(scores: Numbers) -> tuple[float, float]:
    """Middle and spread (in deviations of a normal distribution) of other pages' mean cosines.

    Median and median distance from it: the pages that answer do not move them. With few pages the
    spread leans on the usual one, or any page would stand out of six others.
    """
    if not len(scores):
        return 0.0, USUAL_SPREAD
    middle = float(np.median(scores))
    own = 1.4826 * float(np.median(np.abs(scores - middle)))
    squares = len(scores) * own**2 + USUAL_PAGES * USUAL_SPREAD**2
    return middle, math.sqrt(squares / (len(scores) + USUAL_PAGES))


def sharpen(matches: Matches, others: Matches, sharpness: float) -> Numbers:
    """Score pages (n,) by how fully they show the rare words of a question, not how many faintly.

    matches    of the pages to be scored
    others     of pages from all over the index: their median is what is ordinary
    sharpness  power of a match's share of the way from ordinary to 1, of which the power mean is
               taken; 1 gives MaxSim's order, but for a weight of each vector

    MaxSim counts five half matches as much as two and a half full ones. Where words are read
    uncertainly, half matches are what any page has; a power leaves the full ones. Nor does MaxSim
    know which words are on every page: a vector weighs as BM25 weighs a word, by how many of the
    others show it, which are those with more than half of the best share of all.
    """
    middle = np.zeros((len(others.best), 1))
    if others.best.size:
        middle = np.median(others.best - others.by_chance, axis=1, keepdims=True)
    share, usual = (each.share_beyond(middle + each.by_chance) for each in (matches, others))
    most = np.concatenate([share, usual], axis=1).max(axis=1, keepdims=True, initial=0)
    weights = _rarity(usual.shape[1], (usual > SHOWN * most).sum(axis=1))
    means = (weights / weights.sum()) @ share**sharpness
    scores: Numbers = means ** (1 / sharpness)
    return scores


def with_reading(looks: Numbers, read: Numbers) -> Numbers:
    """Scores (n,) of pages by their images, with what the model itself reads on them.

    looks  sharpen()'s scores, 0 to 1
    read   BM25 over what was read, 1 for a page with all that is asked for, often
    Neither knows what the other sees: a vector knows a word by its whole shape, the reading by its
    letters. Where nothing was read, scores stay what they are.
    """
    if not read.any():
        return looks
    fused: Numbers = (looks + READ_WEIGHT * read) / (1 + READ_WEIGHT)
    return fused


def stand_in(text: Numbers, visual: Numbers, incomplete: NDArray[np.bool_]) -> Numbers:
    """Text scores (n,) in which incomplete texts count as much as their images, rank for rank.

    text, visual  scores of the same candidates; text on the scale of Signals
    incomplete    True where the text of a page says less than the page shows

    The page whose image is the r-th best gets the r-th best score of the complete texts, if its own
    is lower. Needs no scale of the visual scores and nothing fitted: where pages with and without
    text compete, the best of either ranking come first in turn, as when ranks are fused. The best
    image of all gets UNKNOWN_TEXT at least, the r-th best an r-th of it: that no text speaks of a
    question is no reason to say "not found" of a scan.
    """
    complete = np.sort(text[~incomplete])[::-1]
    by_rank = np.zeros(len(text))
    by_rank[: len(complete)] = complete
    order = np.argsort(-visual, kind="stable")
    standing = np.empty(len(text))
    standing[order] = np.maximum(by_rank, UNKNOWN_TEXT / (1 + np.arange(len(text))))
    return np.where(incomplete, np.maximum(text, standing), text)


def ideal_bm25(n_pages: int, pages_with: list[int]) -> float:
    """Upper bound of BM25 over all pages, from how many pages have each word of the question."""
    counts = np.array(pages_with, float)
    rarity = np.maximum(np.log((n_pages - counts + 0.5) / (counts + 0.5)), 1e-6)  # as FTS5
    return float((rarity * (K1 + 1)).sum())


def known_share(n_pages: int, pages_with: list[int], is_name: list[bool]) -> float:
    """Share of a question's weight that lies on words which some page has, 0 to 1.

    A word that no page has (0) is as rare as one on a single page: a question about it is likely
    not answered here, above all if it is a name: no figure of one company answers for another.
    Rarity never falls to 0 (as Lucene has it), so that one such word of five does not outweigh
    four that every page of a small index has.
    """
    counts = np.array(pages_with, float)
    weight = _rarity(n_pages, np.maximum(counts, 1))
    weight *= np.where(np.array(is_name) & (counts == 0), UNKNOWN_NAME, 1)
    return float(weight[counts > 0].sum() / weight.sum())


def _rarity(n_pages: int, pages_with: NDArray[np.number]) -> Numbers:
    """Weigh words (n,) by the pages that have them: Lucene's form, which never falls to 0."""
    rarity: Numbers = np.log1p((n_pages - pages_with + 0.5) / (pages_with + 0.5))
    return rarity


def fit(
    questions: list[tuple[Signals, NDArray[np.bool_]]],
    penalty: float = 0.01,
    sharpness: float = 1.0,
) -> Fusion:
    """Fit weights to questions whose relevant pages are known.

    questions  signals of candidate pages and which of them are relevant (none: unanswerable)
    penalty    keeps weights finite where few examples separate perfectly
    sharpness  with which the signals were made; part of the result

    Two parts, minimised together: the log-loss of picking a relevant page among a question's
    candidates (what ranks), and of each question's best page being relevant (what calibrates).
    Visual and text weights stay non-negative: a better match must never rank lower. The threshold
    is where misses and false alarms on the given questions are fewest.
    """
    start = np.array([1.0, 0.1, 1.0, 0.0])
    bounds = [(0, None), (0, None), (0, None), (None, None)]
    data = [(signals.matrix(), relevant) for signals, relevant in questions if len(relevant)]
    found = minimize(_loss, start, args=(data, penalty), bounds=bounds, method="L-BFGS-B").x
    outstanding, visual, text, bias = found.tolist()
    best = []
    for matrix, relevant in data:
        logits = matrix @ found
        best.append((float(expit(logits.max())), bool(relevant[logits.argmax()])))
    return Fusion(outstanding, visual, text, bias, _threshold(best), sharpness)


def _loss(weights: Numbers, data: list[tuple[Numbers, NDArray[np.bool_]]], penalty: float) -> float:
    total = penalty * float(weights[:3] @ weights[:3])
    for matrix, relevant in data:
        logits = matrix @ weights
        if relevant.any():
            total += float(np.logaddexp.reduce(logits) - np.logaddexp.reduce(logits[relevant]))
        sign = 1.0 if relevant[logits.argmax()] else -1.0
        total += float(np.logaddexp(0.0, -sign * logits.max()))
    return total / len(data)


def _threshold(best: list[tuple[float, bool]]) -> float:
    scores = np.array([score for score, _ in best])
    right = np.array([is_right for _, is_right in best])
    bars = np.concatenate([[0.0], np.sort(scores), [1.0]])
    errors = [np.sum(right & (scores < bar)) + np.sum(~right & (scores >= bar)) for bar in bars]
    return float(bars[int(np.argmin(errors))])
