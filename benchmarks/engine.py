"""Speed and memory of the engine beside transformers, random weights at the full 2B size.

    uv run python -m benchmarks.engine --work DIR --reference-python PYTHON

PYTHON is an interpreter with torch and transformers (the peer needs them, the product does not).
The same page image goes through both in one run, each in a process of its own; times are seconds
of wall time (pages and first tokens: the best of two after one that warms up, for both), memory
is the peak of the resident set. Ends with one JSON line.
Needs 20 GB of disk below DIR and 12 GB of memory for the peer.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

FULL_2B = {"n_layers": 28, "vision_depth": 32, "vocab": 151936}
T = TypeVar("T")
N_DECODED = 24
QUESTION = "What does the page say about the results of the second quarter?"
FOLLOW_UP = "And of the third?"


def page_image() -> Image.Image:
    """Draw an ordinary page: A4, headings, paragraphs, margins, 200 dpi (1654 × 2339 pixels)."""
    import pymupdf

    words = "the results of the second quarter rose by four percent over those of last year and "
    body = "".join(f"<h2>Section {n}</h2><p>{words * 9}</p>" for n in range(1, 5))
    document = pymupdf.open()
    page = document.new_page(width=595, height=842)
    page.insert_htmlbox(pymupdf.Rect(72, 72, 523, 700), body)
    pixels = page.get_pixmap(dpi=200)
    return Image.frombytes("RGB", (pixels.width, pixels.height), pixels.samples)


def write_checkpoint(folder: Path) -> None:
    """Write random weights of the 2B size in bfloat16, one layer at a time."""
    import ml_dtypes
    from safetensors.numpy import save_file

    from tests.parity import tiny

    sizes = replace(tiny.WIDE, **FULL_2B)
    tiny.write_qwen2vl(folder, replace(tiny.WIDE, vocab=FULL_2B["vocab"]))
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = sizes.n_layers
    config["max_position_embeddings"] = 32768
    config["vision_config"]["depth"] = sizes.vision_depth
    (folder / "config.json").write_text(json.dumps(config))
    shards: dict[str, list[str]] = {}
    for name in tiny.shapes(sizes):
        parts = name.split(".")
        key = ".".join(parts[:3]) if parts[2:3] and parts[2].isdigit() else "rest"
        shards.setdefault(key, []).append(name)
    weight_map, shapes = {}, tiny.shapes(sizes)
    for shard, names in shards.items():
        file = f"model-{shard}.safetensors"
        drawn = {n: tiny.draw(n, shapes[n], sizes).astype(ml_dtypes.bfloat16) for n in names}
        save_file(drawn, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_adapter(folder: Path) -> None:
    """Write a random LoRA of rank 32 and a projection for the 2B size."""
    from safetensors.numpy import save_file

    from tests.parity import tiny

    sizes = replace(tiny.WIDE, n_layers=FULL_2B["n_layers"], rank=32, alpha=32)
    tiny.write_adapter(folder / "adapter", sizes)
    rng = np.random.default_rng(0)
    projection = rng.standard_normal((128, sizes.hidden), np.float32) * np.float32(0.02)
    tensors = {"custom_text_proj.weight": projection, "custom_text_proj.bias": projection[:, 0]}
    save_file(tensors, folder / "projection.safetensors")


def peak_gb() -> float:
    """Return the peak resident set of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Return (seconds, result) of calling `work`."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def best_of_two(work: Callable[[], tuple[float, T]]) -> tuple[float, T]:
    """Return the (seconds, result) of the faster of two calls, after one that warms up."""
    work()
    return min(work(), work(), key=lambda each: each[0])


def measure_ours(folder: Path) -> dict[str, Any]:
    """Measure a model folder: page encoding, first tokens, decoding, follow-up, memory."""
    import models
    from models.generator import Timings

    image = page_image()
    load_s, engine = timed(lambda: (e := models.load(folder), e.retriever, e.generator)[0])
    retriever, generator = engine.retriever, engine.generator
    page_s, page = best_of_two(lambda: timed(lambda: retriever.encode_page(image, False)))
    skip_s, skipped = best_of_two(lambda: timed(lambda: retriever.encode_page(image, True)))
    query_s, _ = timed(lambda: retriever.encode_queries([QUESTION]))

    def first_token(images: list[Image.Image], question: str, n: int) -> Timings:
        answer = generator.generate(images, question, n)
        "".join(answer)
        return answer.timings

    # A page each: what is known of one already is not read again.
    unseen = iter([image.rotate(180), image.transpose(0), image])

    def answer() -> tuple[float, Timings]:
        spent = first_token([next(unseen)], QUESTION, N_DECODED)
        return spent.vision_s + spent.prefill_s, spent

    first_s, one = best_of_two(answer)
    again = first_token([image], FOLLOW_UP, 1)
    three = first_token([image, image.rotate(180), image.transpose(0)], QUESTION, 1)
    return {
        "load_s": load_s,
        "page_s": page_s,
        "page_tokens": int(page.kept.sum()),
        "page_skip_blank_s": skip_s,
        "page_skip_blank_tokens": int(skipped.kept.sum()),
        "query_s": query_s,
        "first_token_1_page_s": first_s,
        "vision_1_page_s": one.vision_s,
        "first_token_3_pages_s": three.vision_s + three.prefill_s,
        "follow_up_s": again.vision_s + again.prefill_s,
        "decode_s_per_token": one.decode_s / max(one.n_tokens - 1, 1),
        "peak_gb": peak_gb(),
        "folder_gb": sum(path.stat().st_size for path in folder.iterdir()) / 1e9,
        "profile": profile(folder, image),
    }


def profile(folder: Path, image: Image.Image) -> dict[str, float]:
    """Return the share of each kind of node in the time of the vision tower on one page."""
    import onnxruntime as ort

    from models.images import preprocess
    from models.positions import patch_positions

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(tempfile.mkdtemp()) / "profile")
    session = ort.InferenceSession(folder / "vision.onnx", options)
    visual = preprocess(image)
    inputs = {
        "pixel_values": visual.pixel_values[None],
        "patch_positions": patch_positions(visual.grid_thw)[None],
    }
    session.run(None, inputs)
    events = json.loads(Path(session.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    total = sum(spent.values())
    return {name: round(each / total, 3) for name, each in spent.most_common(8)}


def measure_reference(checkpoint: Path) -> dict[str, Any]:
    """Measure transformers in float32 on the CPU: one page, then greedy decoding."""
    import torch
    from transformers import (
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        StoppingCriteriaList,
    )

    image = page_image()
    load = Qwen2VLForConditionalGeneration.from_pretrained
    load_s, model = timed(lambda: load(checkpoint, dtype=torch.float32).eval())
    sizes = {"shortest_edge": 3136, "longest_edge": 602112}
    inputs = Qwen2VLImageProcessor(size=sizes)(images=[image], return_tensors="pt")
    grid = inputs["image_grid_thw"]
    image_id = model.config.image_token_id
    n_tokens = int(grid.prod()) // 4
    ids = torch.tensor([[5, 6, 7, *[image_id] * n_tokens, 8, *range(9, 25)]])
    fixed = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": inputs["pixel_values"],
        "image_grid_thw": grid,
        "mm_token_type_ids": (ids == image_id).int(),
    }
    moments: list[float] = []

    def note_time(ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ANN401 - transformers' protocol
        moments.append(time.perf_counter())
        return torch.zeros(len(ids), dtype=torch.bool)

    def answer() -> tuple[float, float]:
        moments.clear()
        start = time.perf_counter()
        model.generate(
            **fixed,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            max_new_tokens=N_DECODED,
            stopping_criteria=StoppingCriteriaList([note_time]),
        )
        return moments[0] - start, (moments[-1] - moments[0]) / (len(moments) - 1)

    with torch.no_grad():
        # The hidden states of a page, as a retriever needs them: the model without lm_head.
        page_s, _ = best_of_two(lambda: timed(lambda: model.model(**fixed)))
        first_s, decode_s = best_of_two(answer)
    return {
        "load_s": load_s,
        "page_s": page_s,
        "page_tokens": n_tokens,
        "first_token_1_page_s": first_s,
        "decode_s_per_token": decode_s,
        "peak_gb": peak_gb(),
    }


def run_child(python: str, *arguments: str) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    command = [python, "-m", "benchmarks.engine", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def build_folder(work: Path, precision: str) -> tuple[Path, float, float]:
    """Build a model folder in a process of its own; return it, the seconds and the peak GB."""
    out = work / f"model-{precision}"
    if out.exists():
        return out, 0.0, 0.0
    built = run_child(sys.executable, "--child", "build", str(work), precision)
    return out, built["seconds"], built["peak_gb"]


def build_child(work: Path, precision: str) -> dict[str, Any]:
    """Build in this process; memory counts the mapped input's pages too."""
    from models.build.builder import BuildOptions, Precisions, build
    from models.build.inputs import Sources

    sources = Sources.find(work, projection=work / "projection.safetensors")
    each: Any = precision
    options = BuildOptions(Precisions(each, each, each))
    seconds, _ = timed(lambda: build(sources, work / f"model-{precision}", options))
    return {"seconds": seconds, "peak_gb": peak_gb()}


def main() -> None:
    """Run the whole benchmark, or one measurement of it in a child process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/engine"))
    parser.add_argument("--precisions", nargs="+", default=["int8", "int4"])
    parser.add_argument("--reference-python", help="interpreter with torch and transformers")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, folder, *rest = arguments.child
        children = {"ours": measure_ours, "reference": measure_reference, "build": build_child}
        print(json.dumps(children[kind](Path(folder), *rest)))
        return
    work = arguments.work
    if not (work / "base" / "model.safetensors.index.json").exists():
        work.mkdir(parents=True, exist_ok=True)
        write_checkpoint(work / "base")
        write_adapter(work)
    results: dict[str, Any] = {"machine": machine(), "ours": {}}
    if arguments.reference_python:
        child = ("--child", "reference", str(work / "base"))
        results["transformers fp32"] = run_child(arguments.reference_python, *child)
        print(json.dumps(results["transformers fp32"], indent=1), flush=True)
    for precision in arguments.precisions:
        folder, seconds, peak = build_folder(work, precision)
        ours = run_child(sys.executable, "--child", "ours", str(folder))
        results["ours"][precision] = {**ours, "build_s": seconds, "build_peak_gb": peak}
        print(json.dumps({precision: results["ours"][precision]}, indent=1), flush=True)
    print_ratios(results)
    print(json.dumps(results))


def print_ratios(results: dict[str, Any]) -> None:
    """Print how many times as fast as the peer each precision is."""
    peer = results.get("transformers fp32")
    if not peer:
        return
    pairs = {
        "page": ("page_s", "page_s"),
        "page, blank blocks skipped": ("page_s", "page_skip_blank_s"),
        "first token, one page": ("first_token_1_page_s", "first_token_1_page_s"),
        "decoding": ("decode_s_per_token", "decode_s_per_token"),
    }
    for precision, ours in results["ours"].items():
        for what, (theirs, mine) in pairs.items():
            print(f"{precision:6} {what:28} {peer[theirs] / ours[mine]:6.2f} × transformers fp32")
        ratio = ours["first_token_1_page_s"] / ours["follow_up_s"]
        print(f"{precision:6} {'follow-up against first':28} {ratio:6.2f} ×")


def machine() -> str:
    """Name the processor and the number of cores."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in info.splitlines() if "model name" in line]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores"


if __name__ == "__main__":
    main()
