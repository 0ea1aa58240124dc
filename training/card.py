"""The MODEL_CARD of an exported checkpoint, filled in from the run's own log."""

import json
import platform
from pathlib import Path

import torch

TEMPLATE = """# Yomu embedded: model card

A {parameters:.1f} M parameter Qwen2-VL / ColQwen2 made from scratch by `training/`. It is meant to
find pages by their image (128-d multi-vectors, MaxSim) and to read short answers off them, in
English and Japanese; how well it does so is measured below.

| | |
|---|---|
| architecture | Qwen2-VL with ColQwen2's projection |
| sizes | vision {depth} × {embed_dim}, decoder {layers} × {hidden}, vocabulary {vocabulary} |
| training | {steps:,} steps, {minutes:.0f} minutes, last stage `{stage}`, seed {seed} |
| hardware | {hardware} |
| data | pages drawn by `training/pages.py`; no real document was trained on |

## Text the pages were drawn from
Public-domain books (English; Japanese works of Aozora Bunko in modern kana), the ICT white papers
of Japan's Ministry of Internal Affairs and Communications (CC BY 4.0), JaQuAD (CC BY-SA 3.0),
JSQuAD of JGLUE (CC BY-SA 4.0), WikiTableQuestions (CC BY-SA 4.0), TAT-QA (data CC BY 4.0), the
Japanese half of small_parallel_enja (extracted from the Tanaka Corpus). Fonts: the Debian packages
named in `training/fonts.py`, under their own free licences. Only images drawn from this text were
trained on; none of the text is stored here.

## Measured on held-out drawn pages
{held}

Real documents: see the results in `training/README.md`, which decide what it is fit for.

## Limits
Small and briefly trained. It finds pages by words that are printed on them clearly and upright.
Small type, italics, handwriting, rare kanji, rotated text, values of charts, and questions in words
that the page does not use are beyond it. Do not rely on its answers without looking at the page
that is shown with them.
"""


def write_card(work: Path, saved: dict, parameters: int, path: Path) -> None:
    """Write the card of a checkpoint."""
    text, vision = saved["config"]["text"], saved["config"]["vision"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        TEMPLATE.format(
            parameters=parameters / 1e6,
            depth=vision["depth"],
            embed_dim=vision["embed_dim"],
            layers=text["num_hidden_layers"],
            hidden=text["hidden_size"],
            vocabulary=text["vocab_size"],
            steps=saved["step"],
            minutes=saved["seconds"] / 60,
            stage=saved["stage"],
            seed=saved.get("seed", 1),
            hardware=_hardware(),
            held=_held(work / "log.jsonl"),
        )
    )


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads of a shared {platform.machine()} CPU, fp32"


def _held(log: Path) -> str:
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    measured = [line for line in lines if line["what"] == "held"]
    if not measured:
        return "Not measured yet."
    known = {k: v for k, v in measured[-1].items() if isinstance(v, float) and k != "minutes"}
    rows = "".join(f"| {name} | {value:.3f} |\n" for name, value in known.items())
    return f"| measure | value |\n|---|---|\n{rows}".rstrip()
