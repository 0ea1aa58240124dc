"""What a model folder holds and how it is checked: model.json, the graphs' names, checksums."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from models.config import Json, read_json
from models.errors import ModelFilesError

FORMAT_VERSION = 1
_KINDS = {
    "name": str,
    "roles": list,
    "target": str,
    "precision": dict,
    "query_template": str,
    "max_visual_tokens": int,
    "skip_blank_blocks": bool,
    "band_rows": int,
    "overview_tokens": int,
    "shifted_views": bool,
    "sha256": dict,
    "graphs": dict,
    "sources": dict,
}
# Beside the graphs and the embeddings, what page vectors come from.
_SHAPING = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "retriever.safetensors",
    "tokenizer.json",
)
CARD = "MODEL_CARD.md"
EMBEDDED = Path(__file__).parent / "embedded"


@dataclass(frozen=True)
class Graphs:
    """File names in the folder; the generator_ ones only where it differs from the retriever.

    reading  of a model whose tower reads characters, see models/reading.py
    """

    vision: str = "vision.onnx"
    decoder: str = "decoder.onnx"
    embeddings: str = "embeddings.npy"
    generator_vision: str | None = None
    generator_decoder: str | None = None
    generator_embeddings: str | None = None
    reading: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """The content of model.json.

    precision        of vision, decoder, lm_head: fp32, fp16, int8 or int4
    query_template   how a question is written for the retriever (models/text.py)
    band_rows        pages are encoded in bands of about so many rows of tokens; 0: as a whole
    overview_tokens  most visual tokens of a smaller view of each page, encoded beside it; 0: none
    shifted_views    bands are encoded once more, cut into tokens half a token further
    sources          role -> folder name and revision of the checkpoints it was built from
    sha256           file name -> checksum of every other file, but MODEL_CARD.md
    """

    format: int
    name: str
    roles: tuple[str, ...]
    target: str
    precision: Mapping[str, str]
    query_template: str
    max_visual_tokens: int
    skip_blank_blocks: bool
    sha256: Mapping[str, str]
    graphs: Graphs = field(default_factory=Graphs)
    sources: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    band_rows: int = 0
    overview_tokens: int = 0
    shifted_views: bool = False

    def as_json(self) -> Json:
        """Return what model.json holds."""
        return asdict(self)

    @classmethod
    def load(cls, folder: Path) -> "ModelInfo":
        """Read model.json of a folder. Raises ModelFilesError."""
        path = folder / "model.json"
        if not path.exists():
            raise ModelFilesError(
                f"{folder}: no model folder (no model.json); build one with "
                f"`yomu models build CHECKPOINT {folder}`"
            )
        later = {"band_rows": 0, "overview_tokens": 0, "shifted_views": False}  # than the others
        content = {**later, **read_json(path)}
        if content.get("format") != FORMAT_VERSION:
            raise ModelFilesError(
                f"{path}: format {content.get('format')!r}, this version reads {FORMAT_VERSION}; "
                "build the folder again with `yomu models build`"
            )
        missing = {each.name for each in fields(cls)} - set(content)
        if missing:
            raise ModelFilesError(f"{path}: lacks {sorted(missing)[0]}; build the folder again")
        known = {each.name: content[each.name] for each in fields(cls)}
        for name, kind in _KINDS.items():
            value = known[name]
            if not isinstance(value, kind) or (kind is int and not _is_count(value)):
                raise ModelFilesError(f"{path}: {name} is {known[name]!r}; build the folder again")
        try:
            known["graphs"] = Graphs(**content["graphs"])
        except TypeError as error:
            raise ModelFilesError(f"{path}: graphs: {error}; build the folder again") from None
        return cls(**{**known, "roles": tuple(known["roles"])})

    def save(self, folder: Path) -> None:
        """Write model.json: whole, or not at all."""
        text = json.dumps(self.as_json(), indent=2, ensure_ascii=False)
        written = folder / ".model.json.new"
        written.write_text(text + "\n", encoding="utf-8")
        written.replace(folder / "model.json")

    @property
    def digest(self) -> str:
        """sha256 over all that shapes page vectors: an index knows by it which model made its own.

        Not over what only answers: a generator added later, or other sampling, spoils no index.
        """
        graphs = (self.graphs.vision, self.graphs.decoder)
        files = {*graphs, *(f"{name}.data" for name in graphs), self.graphs.embeddings, *_SHAPING}
        lines = "".join(f"{name} {self.sha256[name]}\n" for name in sorted(files & {*self.sha256}))
        lines += f"views {self.band_rows} {self.overview_tokens}\n"
        lines += "shifted views\n" if self.shifted_views else ""
        lines += f"skips blank blocks {self.skip_blank_blocks}\n"
        return hashlib.sha256(lines.encode()).hexdigest()


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """Return file name -> sha256 of every file that model.json is to list."""
    return {name: file_sha256(folder / name) for name in _listed(folder)}


def record(folder: Path) -> None:
    """Write the checksums of the files as they are now into model.json. Raises ModelFilesError."""
    replace(ModelInfo.load(folder), sha256=checksums(folder)).save(folder)


def verify(folder: Path) -> list[str]:
    """Compare every file of a folder with its checksum; return one line for each fault."""
    sha256 = ModelInfo.load(folder).sha256
    if not sha256:
        return ["model.json: lists no checksums; build the folder again"]
    faults = []
    for name, wanted in sha256.items():
        path = folder / name
        if not path.exists():
            faults.append(f"{name}: missing")
        elif file_sha256(path) != wanted:
            faults.append(f"{name}: damaged (its sha256 differs from model.json)")
    added = [name for name in _listed(folder) if name not in sha256]
    return faults + [f"{name}: not listed in model.json" for name in added]


def _listed(folder: Path) -> list[str]:
    """Names of the files with a checksum; none for the card, which is only for people."""
    names = (path.name for path in folder.iterdir() if path.is_file())
    return sorted(
        name for name in names if name not in ("model.json", CARD) and not name.startswith(".")
    )


def models_home() -> Path:
    """Return where downloaded models are kept: YOMU_MODELS, or ~/.yomu/models.

    Raises ModelFilesError for a user without a home, as containers run programs.
    """
    if chosen := os.environ.get("YOMU_MODELS"):
        return Path(chosen)
    try:
        return Path.home() / ".yomu" / "models"
    except RuntimeError:
        raise ModelFilesError(
            "this user has no home folder: set YOMU_MODELS to the folder that models are kept in"
        ) from None


def find_folder(folder_or_name: str | Path) -> Path:
    """Return the model folder of a path, of `embedded`, or of a model pulled by that name.

    Raises ModelFilesError if there is none.
    """
    if folder_or_name == "embedded":
        return EMBEDDED
    path = Path(folder_or_name)
    if path.is_dir():
        return path
    pulled = models_home() / str(folder_or_name)
    if pulled.is_dir():
        return pulled
    raise ModelFilesError(
        f"no model {str(folder_or_name)!r}: it is neither a folder nor in {models_home()}; "
        "see `yomu models list`, get one with `yomu models pull NAME`"
    )
