"""Arrows point one way; heavy libraries stay where they belong."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"rag", "index", "ui", "models", "training", "benchmarks", "tests", "ingest"}
ALLOWED = {
    "models": set(),
    "index": set(),
    "rag": {"models", "index", "ui"},  # ui only inside `yomu serve`, see below
    "ui": {"rag"},
    "ingest.py": {"rag"},
}
# library -> where it may be imported
CONFINED = {
    "torch": ["training/", "tests/parity/", "benchmarks/"],
    "transformers": ["training/", "tests/parity/", "benchmarks/"],
    "gradio": ["ui/", "tests/"],
    "pymupdf": ["rag/documents.py", "training/", "tests/", "benchmarks/"],
    "faiss": ["index/", "tests/", "benchmarks/"],
    "onnxruntime": ["models/", "training/", "tests/", "benchmarks/"],
    "onnx_ir": ["models/build/", "tests/"],
}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (top-level module, at module level?) of every import statement in a file."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], id(node) in top
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0], id(node) in top


def sources(folder: str) -> list[Path]:
    path = ROOT / folder
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


@pytest.mark.parametrize("package", ALLOWED)
def test_arrows_point_one_way(package):
    files = sources(package)
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module, top_level in imports(path)
        if module in OURS - {package.removesuffix(".py")}
        and (module not in ALLOWED[package] or (module == "ui" and top_level))
    ]
    assert not wrong


@pytest.mark.parametrize("library", CONFINED)
def test_heavy_libraries_stay_where_they_belong(library):
    skipped = {".venv", "build", ".git"}
    wrong = [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if not skipped & set(path.relative_to(ROOT).parts[:1])
        and any(module == library for module, _ in imports(path))
        and not any(str(path.relative_to(ROOT)).startswith(place) for place in CONFINED[library])
    ]
    assert not wrong
