"""`yomu models …`: list, download, build and check model folders."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models.errors import ModelDownloadError, ModelFilesError
from rag.cli_common import JsonFlag, out, print_json
from rag.errors import UsageError

if TYPE_CHECKING:
    from models.build.builder import Precisions

models_app = typer.Typer(
    help="Model folders: list, download, build from checkpoints, check.", no_args_is_help=True
)

PrecisionName = Literal["auto", "fp32", "fp16", "int8", "int4"]


def byte_progress() -> Progress:
    """Return a bar over bytes, on stderr if that is a terminal, with what is being written."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # elsewhere it would leave an empty line
    )


@models_app.command("build")
def build_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC",
            help="Folder as it comes from the hub: a Qwen2-VL or ColQwen2 checkpoint, "
            "an adapter (with --base), or a folder that holds base/ and adapter/.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Model folder to write.")],
    base: Annotated[
        Path | None, typer.Option(help="Checkpoint that the adapter SRC belongs to.")
    ] = None,
    projection: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint that has custom_text_proj (with the adapter merged in or not), if the "
            "base has none."
        ),
    ] = None,
    generator: Annotated[
        Path | None,
        typer.Option(help="Qwen2-VL checkpoint that writes the answers, if it is not the base."),
    ] = None,
    precision: Annotated[
        PrecisionName,
        typer.Option(help="Precision of all parts; auto: int8 for a CPU, fp16 for a GPU."),
    ] = "auto",
    vision: Annotated[
        PrecisionName | None, typer.Option(help="Precision of the vision tower.")
    ] = None,
    decoder: Annotated[PrecisionName | None, typer.Option(help="Precision of the decoder.")] = None,
    lm_head: Annotated[
        PrecisionName | None, typer.Option(help="Precision of the output layer (logits).")
    ] = None,
    target: Annotated[
        Literal["cpu", "gpu"], typer.Option(help="Where the graphs are to run.")
    ] = "cpu",
    query_template: Annotated[
        str,
        typer.Option(
            help="Text put around a question: colqwen2-v1.0, transformers, colpali-engine-0.3.13 "
            "or bare; it must be the one the retriever was trained with."
        ),
    ] = "colqwen2-v1.0",
    max_visual_tokens: Annotated[
        int, typer.Option(min=1, help="Most visual tokens of a page, 28 × 28 pixels each.")
    ] = 768,
    skip_blank_blocks: Annotated[
        bool, typer.Option(help="Leave out blank parts of a page; only for models trained so.")
    ] = False,
    band_rows: Annotated[
        int,
        typer.Option(
            min=0,
            help="Encode a page in bands of about this many rows of tokens (2 or more); "
            "0: as a whole.",
        ),
    ] = 0,
    overview_tokens: Annotated[
        int,
        typer.Option(
            min=0,
            help="Also encode each page as a smaller view of at most this many tokens; 0: no.",
        ),
    ] = 0,
    shifted_views: Annotated[
        bool,
        typer.Option(
            help="Encode each band once more, cut into tokens half a token further: finds what is "
            "cut at their edges, for twice the time."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Turn checkpoints (safetensors) into a model folder (ONNX), quantizing on the way.

    OUT appears only when it is complete. If a tensor is missing, unused or of the wrong shape,
    the build stops and names it.
    """
    from models.text import QUERY_TEMPLATES

    try:
        from models.build.builder import BuildOptions, build
        from models.build.inputs import Sources
    except ModuleNotFoundError as error:
        raise UsageError(
            f"building needs {error.name}, which is not installed: `uv sync --extra build`, "
            "or `pip install -e .[build]`"
        ) from None

    if band_rows == 1:
        raise UsageError(
            "--band-rows 1: neighbouring bands share a row, so 2 is the least; 0: none"
        )
    if query_template not in QUERY_TEMPLATES:
        raise UsageError(
            f"no query template {query_template!r}; choose one of {', '.join(QUERY_TEMPLATES)}"
        )
    options = BuildOptions(
        precisions=_precisions(target, precision, vision, decoder, lm_head),
        target=target,
        query_template=query_template,
        max_visual_tokens=max_visual_tokens,
        skip_blank_blocks=skip_blank_blocks,
        band_rows=band_rows,
        overview_tokens=overview_tokens,
        shifted_views=shifted_views,
        name=out.absolute().name,
    )
    sources = Sources.find(source, base, projection, generator)
    with byte_progress() as progress:
        task = progress.add_task("checking tensors", total=None)
        build(
            sources,
            out,
            options,
            lambda done, total, what: progress.update(
                task, completed=done, total=total, description=what
            ),
        )
    _show_info(out, as_json)


@models_app.command("pull")
def pull_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="colqwen2-v1.0, qwen2-vl-2b, -7b, -72b.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Model folder to write; by default one that --model NAME finds."),
    ] = None,
    precision: Annotated[
        PrecisionName,
        typer.Option(help="Precision of all parts; auto: int8 for a CPU, fp16 for a GPU."),
    ] = "auto",
    target: Annotated[
        Literal["cpu", "gpu"], typer.Option(help="Where the graphs are to run.")
    ] = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Download a real model from the hub and build a model folder of it.

    An interrupted download resumes where it stopped. The checkpoints are kept, so another
    precision or target is built without a network, into its own folder: NAME-gpu, NAME-int4.
    HF_TOKEN, HF_ENDPOINT (a mirror) and HTTPS_PROXY are honoured.
    """
    try:
        from models.hub import default_folder, pull
    except ImportError as error:
        raise ModelDownloadError(
            f"pulling models needs {error.name}: `uv sync --extra build`, "
            "or `pip install -e .[build]`"
        ) from None
    from models.build.builder import BuildOptions
    from models.folder import ModelInfo, models_home

    out = out or default_folder(name, target, precision)
    options = BuildOptions(
        precisions=_precisions(target, precision, None, None, None), target=target
    )
    with byte_progress() as progress:
        task = progress.add_task(name, total=None, visible=False)
        pull(
            name,
            out,
            options,
            lambda done, total, what: progress.update(
                task, completed=done, total=total, description=what, visible=True
            ),
        )
    _show_info(out, as_json)
    if not as_json:
        used = out.name if out.parent == models_home() else str(out)
        next_one = f"yomu look --input page.png --prompt QUESTION --model {used}"
        if "retriever" in ModelInfo.load(out).roles:  # vectors of two models do not mix
            next_one = f"yomu ingest FOLDER --index .yomu-{out.name} --model {used}"
        sys.stdout.write(f"Next: {next_one}\n")


def _precisions(
    target: Literal["cpu", "gpu"], default: PrecisionName, *parts: PrecisionName | None
) -> "Precisions":
    """Return the precision of vision, decoder and lm_head; `auto` is decided by the target."""
    from models.build.builder import Precisions

    auto = Precisions.for_target(target)
    chosen = []
    for automatic, part in zip((auto.vision, auto.decoder, auto.lm_head), parts, strict=True):
        asked = part or default
        chosen.append(automatic if asked == "auto" else asked)
    return Precisions(*chosen)


@models_app.command("info")
def info_command(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Model folder or name.")],
    as_json: JsonFlag = False,
) -> None:
    """Show what a model folder holds: sizes, precision, roles, sources."""
    from models.folder import find_folder

    _show_info(find_folder(folder), as_json)


def _show_info(folder: Path, as_json: bool) -> None:
    from models.config import ModelConfig
    from models.folder import ModelInfo

    info, config = ModelInfo.load(folder), ModelConfig.from_file(folder / "config.json")
    n_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    if as_json:
        result = {key: value for key, value in info.as_json().items() if key != "sha256"}
        print_json({**result, "folder": str(folder), "bytes": n_bytes, "digest": info.digest})
        return
    table = Table(show_header=False, box=None)
    rows = {
        "folder": str(folder),
        "model": info.name,
        "roles": ", ".join(info.roles),
        "built for": info.target,
        "precision": ", ".join(f"{part} {how}" for part, how in info.precision.items()),
        "vision": f"{config.vision.depth} blocks × {config.vision.embed_dim}",
        "decoder": f"{config.text.n_layers} layers × {config.text.hidden_size}",
        "page": f"up to {info.max_visual_tokens} visual tokens"
        + (f", in bands of about {info.band_rows} rows" if info.band_rows else "")
        + (", twice, half a token apart" if info.shifted_views else "")
        + (f", and {info.overview_tokens} of an overview" if info.overview_tokens else "")
        + (", blank parts left out" if info.skip_blank_blocks else ""),
        "query template": info.query_template,
        "size": f"{n_bytes / 1e6:,.1f} MB",
        "sources": ", ".join(f"{role} {each['folder']}" for role, each in info.sources.items()),
    }
    graphs = info.graphs
    if graphs.generator_decoder or graphs.generator_vision:
        parts = (("vision tower", graphs.generator_vision), ("decoder", graphs.generator_decoder))
        names = " and ".join(name for name, file in parts if file)
        rows["generator"] = f"has its own {names}: its weights differ from the retriever's"
    for name, value in rows.items():
        table.add_row(name, escape(value))
    out().print(table)


@models_app.command("verify")
def verify_command(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Model folder or name.")],
    recording: Annotated[
        bool,
        typer.Option(
            "--record", help="First record the files as they are now, after you changed them."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare every file of a model folder with its checksum.

    Exit code 1 if one is damaged, missing, or not listed in model.json.
    """
    from models.folder import find_folder, record, verify

    path = find_folder(folder)
    if recording:
        record(path)
    faults = verify(path)
    if as_json:
        print_json({"folder": str(path), "faults": faults})
    else:
        for fault in faults:
            sys.stdout.write(f"{path}: {fault}\n")
        if not faults:
            sys.stdout.write(
                f"{path}: every file is as {'recorded' if recording else 'it was built'}\n"
            )
    if faults:
        raise typer.Exit(1)


@models_app.command("list")
def list_command(as_json: JsonFlag = False) -> None:
    """List the models at hand: the embedded one and those that were pulled."""
    from models.folder import EMBEDDED, ModelInfo, models_home

    home = models_home()
    # What begins with a dot is a download or a build in the making.
    pulled = sorted(path for path in home.glob("[!.]*") if path.is_dir())
    rows: list[dict[str, Any]] = []
    for name, path in [("embedded", EMBEDDED), *((path.name, path) for path in pulled)]:
        try:
            info = ModelInfo.load(path)
        except ModelFilesError as error:
            rows.append({"name": name, "folder": str(path), "error": str(error)})
        else:
            rows.append({"name": name, "folder": str(path), "roles": list(info.roles)})
    if as_json:
        print_json({"models": rows})
        return
    table = Table("name", "roles", "folder")
    for row in rows:
        roles = ", ".join(row.get("roles", [])) or "unusable"
        table.add_row(escape(row["name"]), escape(roles), escape(row["folder"]))
    out().print(table)
