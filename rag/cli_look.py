"""`yomu look`: Qwen2-VL on its own, over images or a video."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.errors import ModelFilesError
from rag.cli_common import JsonFlag, print_json, printable
from rag.cli_models import PrecisionName
from rag.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from models.grounding import Box
    from models.images import VisualInput


def look(
    inputs: Annotated[
        list[Path] | None, typer.Option("--input", help="Image to look at; may be repeated.")
    ] = None,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="More images.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Video to look at (needs `uv sync --extra video`).")
    ] = None,
    prompt: Annotated[str, typer.Option(help="Question or instruction.")] = "Describe this image.",
    model: Annotated[str, typer.Option(help="Model folder or name.")] = "embedded",
    precision: Annotated[
        PrecisionName, typer.Option(help="Use the build of the model at this precision.")
    ] = "auto",
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, coreml, directml or openvino.")
    ] = "auto",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 512,
    min_pixels: Annotated[
        int | None,
        typer.Option(min=784, help="Enlarge smaller images or frames to this many pixels."),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=784,
            help="Shrink larger images or frames to this many pixels; by default what the model "
            "gives a page, or --min-pixels if that is more.",
        ),
    ] = None,
    fps: Annotated[
        float,
        typer.Option(min=0.01, help="Frames taken per second of video; at most 30 in all."),
    ] = 2.0,
    as_json: JsonFlag = False,
) -> None:
    """Qwen2-VL on its own: describe, read, answer about images or a video.

    The text streams to stdout as it is generated; a line on stderr says if it was cut off, or
    stopped because it repeated itself. With --json, places that the answer names are listed as
    `boxes` instead: fractions of the picture's height and width, and pixels if there is only one
    picture.
    """
    from models import load
    from models.grounding import parse_boxes
    from models.images import load_image
    from rag.manner import Manner
    from rag.words import ended_early

    paths = [*(inputs or []), *(more or [])]
    if not paths and video is None:
        raise UsageError("nothing to look at: give --input IMAGE or --video FILE")
    if min_pixels and max_pixels and min_pixels > max_pixels:
        raise UsageError(f"--min-pixels {min_pixels} is more than --max-pixels {max_pixels}")
    visuals: list[Image | VisualInput] = [load_image(path) for path in paths]
    if video is not None:
        visuals.append(_load_video(video, fps, min_pixels, max_pixels))
    engine = load(_folder_of(model, precision), device)
    if Manner.load(engine.folder).quotes:
        sys.stderr.write(f"yomu: {engine.info.name} cannot read pages yet: expect no sense\n")
    answer = engine.generator.generate(
        visuals, prompt, max_new_tokens, min_pixels=min_pixels, max_pixels=max_pixels
    )
    pieces = []
    for piece in answer:
        pieces.append(piece)
        if not as_json:
            sys.stdout.write(printable(piece))
            sys.stdout.flush()
    if not as_json:
        sys.stdout.write("\n")
        sys.stdout.flush()
        n_tokens = answer.timings.n_tokens
        if remark := ended_early(prompt, answer.stop_reason, n_tokens, max_new_tokens):
            sys.stderr.write(f"yomu: {remark}\n")
        return
    grounded = parse_boxes("".join(pieces))
    print_json(
        {
            "prompt": prompt,
            "answer": grounded.text,
            "boxes": [_box_json(box, visuals) for box in grounded.boxes],
            "stop_reason": answer.stop_reason,
            "model": engine.info.name,
            "device": engine.device.used,
            "timings": asdict(answer.timings),
        }
    )


def _load_video(
    path: Path, fps: float, min_pixels: int | None, max_pixels: int | None
) -> "VisualInput":
    from models.video import MAX_PIXELS, MIN_PIXELS, load_video

    most = max_pixels or max(MAX_PIXELS, min_pixels or 0)
    least = min(min_pixels or MIN_PIXELS, most)
    return load_video(path, fps=fps, min_pixels=least, max_pixels=most)


def _box_json(box: "Box", visuals: "Sequence[Image | VisualInput]") -> dict[str, Any]:
    """Return a box as fractions of the picture; in its pixels too if there is only one picture."""
    from PIL.Image import Image

    corners = ("top", "left", "bottom", "right")
    found: dict[str, Any] = {name: getattr(box, name) for name in ("label", *corners)}
    if len(visuals) == 1:
        seen = visuals[0]
        # A Pillow image is (width, height); `size_px` is rows first.
        size_px = seen.size[::-1] if isinstance(seen, Image) else seen.size_px
        found["pixels"] = dict(zip(corners, box.pixels(*size_px), strict=True))
    return found


def _folder_of(model: str, precision: PrecisionName) -> str:
    """Return the model, or its sibling `MODEL-PRECISION`, of which all parts are that precise."""
    from models.folder import ModelInfo, find_folder

    if precision == "auto":
        return model
    names = [model, f"{model}-{precision}"]
    for name in names:
        try:
            info = ModelInfo.load(find_folder(name))
        except ModelFilesError:
            continue
        if set(info.precision.values()) == {precision}:
            return name
    raise ModelFilesError(
        f"neither {names[0]} nor {names[1]} is a model folder at {precision}; "
        f"build one: yomu models build CHECKPOINT {names[1]} --precision {precision}"
    )
