"""Draws the learning curves of a work folder: `python -m training.plot WORK curves.png`.

Those of a reading head with `--log reading.jsonl`.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import matplotlib

matplotlib.use("Agg")
import typer
from matplotlib import pyplot

PANELS = {
    "log.jsonl": {
        "losses": ("see", "words", "phrases", "read"),
        "right on pages in training": (
            "slot_accuracy", "word_recall", "phrase_recall", "read_tokens",
        ),
        "right on held-out pages": (
            "slot_accuracy", "word_recall", "phrase_recall", "read_tokens",
        ),
    },
    "reading.jsonl": {
        "loss": ("loss",),
        "character error rate, held-out pages": (
            "en", "en with spaces", "ja", "ja with spaces",
        ),
        "frames that are read, held-out pages": ("read",),
    },
}  # fmt: skip


def main(
    work: Annotated[Path, typer.Argument(help="folder with log.jsonl")],
    out: Annotated[Path, typer.Argument(help="image to write")],
    log: Annotated[str, typer.Option(help=" or ".join(PANELS))] = "log.jsonl",
) -> None:
    """Plot losses and accuracies over the minutes of training."""
    lines = [json.loads(line) for line in (work / log).read_text().splitlines()]
    panels = PANELS[log]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(15, 4), constrained_layout=True)
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        kind = "held" if "held" in title else "train"
        curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for line in lines:
            for name in names:
                if line["what"] == kind and name in line:
                    curves[name].append((line["minutes"], line[name]))
        for name, points in curves.items():
            axis.plot(*zip(*points, strict=True), label=name, marker="." if kind == "held" else "")
        axis.set(title=title, xlabel="minutes")
        axis.grid(alpha=0.3)
        if curves:
            axis.legend()
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    typer.run(main)
