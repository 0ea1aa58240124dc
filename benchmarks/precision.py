"""What each precision costs in accuracy: errors against fp32, random weights at 2B width.

    uv run python -m benchmarks.precision [--layers N]

Random weights are worst for quantization in one way (no structure to exploit) and best in
another (no outlier channels), so read the table as a check of the arithmetic; quality on real
documents is measured by benchmarks/quality.py. Ends with one JSON line.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.engine import machine, page_image

QUERY = "What were the results of the second quarter?"
VARIANTS = [(p, t) for t in ("cpu", "gpu") for p in ("fp32", "fp16", "int8", "int4")]


def outputs(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return what the three parts give for a page: features, vectors, logits."""
    import models

    engine = models.load(folder, device="cpu")
    image = page_image().crop((150, 150, 990, 710))
    page = engine.retriever.encode_page(image)
    query = engine.retriever.encode_queries([QUERY])[0]
    return {
        "features": page.features.features,
        "vectors": np.concatenate([page.vectors, query]),
        "logits": engine.generator.logits([image], QUERY)[None],
    }


def compare(
    values: dict[str, NDArray[np.float32]], exact: dict[str, NDArray[np.float32]]
) -> dict[str, float]:
    """Return the relative RMS error of each output, and the worst cosine of a vector."""
    errors = {
        name: float(np.sqrt(((values[name] - each) ** 2).mean() / (each**2).mean()))
        for name, each in exact.items()
    }
    cosines = (values["vectors"] * exact["vectors"]).sum(axis=1)
    return {**errors, "worst_cosine": float(cosines.min())}


def main() -> None:
    """Build each precision, compare, print a table and one JSON line."""
    from models.build.builder import BuildOptions, Precisions, build
    from models.build.inputs import Sources
    from tests.parity import tiny

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=4, help="decoder layers and vision blocks")
    layers = parser.parse_args().layers
    sizes = replace(tiny.WIDE, n_layers=layers, vision_depth=layers, vocab=2048)
    results: dict[str, Any] = {"machine": machine(), "layers": layers}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        tiny.write_colqwen2(work / "hub" / "base", sizes, with_lora=False)
        tiny.write_adapter(work / "hub" / "adapter", sizes)
        exact: dict[str, NDArray[np.float32]] = {}
        print("precision  target  features    vectors     logits      worst cosine   MB")
        for precision, target in VARIANTS:
            each: Any = precision
            options = BuildOptions(Precisions(each, each, each), target=target)
            folder = build(Sources.find(work / "hub"), work / f"{precision}-{target}", options)
            values = outputs(folder)
            exact = exact or values
            errors = compare(values, exact)
            megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
            shown = "".join(f"{errors[name]:<12.2g}" for name in exact)
            print(f"{precision:11}{target:8}{shown}{errors['worst_cosine']:<14.5f} {megabytes:.0f}")
            results[f"{precision} {target}"] = {**errors, "megabytes": megabytes}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
