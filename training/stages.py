"""The stages of training: what each batch holds and how much each lesson weighs."""

from dataclasses import dataclass, replace

from training.batches import Recipe


@dataclass(frozen=True)
class Stage:
    """Weights of the losses, learning rate, and the recipe of the batches."""

    name: str
    recipe: Recipe
    see: float = 1.0
    match: float = 0.0
    recall: float = 0.0  # beside match
    names: float = 0.0
    read: float = 0.0
    rate: float = 8e-4
    warmup: int = 50
    times: int = 2  # a batch is shown, where the tower stands still


SMALL = Recipe(queries=0, cells=400, rows=4, columns=12)  # small steps teach seeing fastest

READING = Recipe(
    queries=2,
    questions=3,
    cells=900,
    rows=6,
    columns=20,
    stretch=(0.7, 1, 1, 1, 2),
    windows=0.85,
    lines=0.05,
    pages=0.1,
    degraded=0.1,
    plain=0.4,
    fresh=0.3,
    english=0.6,
)

STAGES = {
    stage.name: stage
    for stage in (
        # three fonts a language at one size, clean, small steps: what reading is, is learnt here
        Stage(
            "first",
            replace(SMALL, degraded=0.01, english=0.7, plain=1.0, fresh=0.4, varied=0.0),
            rate=2e-3,
        ),
        # then every font and size; tall windows hold distances that only pages have otherwise
        Stage(
            "see",
            replace(
                SMALL,
                cells=500,
                rows=8,
                columns=16,
                stretch=(0.5, 1, 1, 2, 4, 6),
                windows=0.95,
                pages=0.05,
                degraded=0.12,
                plain=0.2,
                fresh=0.3,
            ),
            rate=2e-3,
        ),
        # the tower stands still: the decoder learns to join what it sees into words
        Stage(
            "match",
            Recipe(
                queries=4,
                cells=1200,
                rows=6,
                columns=20,
                stretch=(0.7, 1, 1, 1, 2, 3),
                windows=0.45,
                pages=0.05,
                bands=0.35,
                overviews=0.15,
                degraded=0.1,
                plain=0.3,
                fresh=0.3,
                english=0.5,
            ),
            see=0.0,
            match=1.0,
            recall=1.0,
            names=1.0,
            rate=2e-3,
        ),
        # finding goes on beside it: where a word stands is what both learn
        Stage("read", READING, see=0.0, match=1.0, names=1.0, read=1.0, rate=2e-3),
        # what finds pages stays as it is (`training.export --retriever`)
        Stage("answer", replace(READING, queries=0, questions=4), see=0.0, read=1.0, rate=2e-3),
        Stage(
            "pages",
            Recipe(queries=6, questions=4, windows=0.5, lines=0.2, pages=0.3),
            match=0.5,
            read=0.5,
            rate=5e-4,
        ),
    )
}
