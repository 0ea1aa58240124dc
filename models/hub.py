"""Real models from the hub: fetch the checkpoints, then build a model folder of them.

Checkpoints are kept by repository below `models_home()/.checkpoints`, so that another precision
or another role needs no second download, and a build works offline. A download that was cut off,
or killed, goes on where it stopped. (huggingface_hub 2.4 itself starts such a file again: its
`snapshot_download` throws partial files away when the process ends; its `http_get` can resume.)
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO

import httpx2
from huggingface_hub import HfApi, HfFileSystem, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented there, in no __all__
    WeakFileLock,
    build_hf_headers,
)

from models.build.builder import BuildOptions, Progress, build, check_free
from models.build.inputs import Sources
from models.build.names import canonical
from models.config import PROJECTION_BIAS, PROJECTION_WEIGHT, Json
from models.errors import ModelBuildError, ModelDownloadError
from models.folder import ModelInfo, file_sha256, models_home

log = logging.getLogger(__name__)

CHECKPOINT_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
)
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# A small linear map that the adapter touches: it shows whether the adapter belongs to the base.
PROBE = "model.layers.0.self_attn.k_proj.weight"
BYTES_A_WEIGHT = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5}
COMPLETE = "download.json"  # written last: commit and files of a finished download


@dataclass(frozen=True)
class Release:
    """A model by the name users know, and the repositories its parts come from.

    projection  repository of whose model.safetensors only `custom_text_proj` (there it already
                includes the adapter's part) and `PROBE` are fetched
    """

    base: str
    adapter: str | None = None
    projection: str | None = None

    @property
    def by_hand(self) -> str:
        """What to do where there is no network."""
        others = [name for name in (self.adapter, self.projection) if name is not None]
        base, *folders = [name.rpartition("/")[2] for name in (self.base, *others)]
        command = f"yomu models build {base} OUT"
        if folders:
            adapter, projection = folders
            command = f"yomu models build {adapter} OUT --base {base} --projection {projection}"
        names = ", ".join([self.base, *others])
        return f"Without a network, copy what {names} holds by hand and run `{command}`"


RELEASES = {
    # The adapter was trained on the weights of Qwen2-VL-2B-Instruct, which answers questions:
    # built on them, retriever and generator share everything.
    "colqwen2-v1.0": Release(
        base="Qwen/Qwen2-VL-2B-Instruct",
        adapter="vidore/colqwen2-v1.0",
        projection="vidore/colqwen2-v1.0-merged",
    ),
    "qwen2-vl-2b": Release("Qwen/Qwen2-VL-2B-Instruct"),
    "qwen2-vl-7b": Release("Qwen/Qwen2-VL-7B-Instruct"),
    "qwen2-vl-72b": Release("Qwen/Qwen2-VL-72B-Instruct"),
}
ALIASES = {f"{name}-instruct": name for name in RELEASES if name.startswith("qwen2-vl")}


def pull(
    name: str,
    out: Path | None = None,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download a release and build it into `out` (`default_folder` if None); return that.

    A model that is there is left as it is. What was downloaded before is not asked for again, so
    that another build of it works offline.
    Raises ModelDownloadError if the name is unknown, the hub cannot be reached or refuses, or
    the disk is full; ModelBuildError if another build is there; and all that `build` raises.
    """
    name = ALIASES.get(name, name)
    release = RELEASES.get(name)
    if release is None:
        raise ModelDownloadError(f"no model {name!r} to pull; there are {', '.join(RELEASES)}")
    options = options or BuildOptions()
    out = out or default_folder(name, options.target)
    if (out / "model.json").exists():
        _check_same_build(out, options)
        log.warning("%s is there already; remove it to build it again", out)
        return out
    check_free(out)  # the build would say so too, gigabytes later
    home = models_home() / ".checkpoints"
    download = _Download(release, home, HfApi(), out, options)
    base, base_commit = download.files(release.base, CHECKPOINT_FILES)
    sources, revisions = Sources(base), {"base": base_commit}
    if release.adapter is not None:
        adapter, revisions["adapter"] = download.files(release.adapter, ADAPTER_FILES)
        sources = replace(sources, adapter=adapter)
    if release.projection is not None:
        projection, revisions["projection"] = download.projection(release.projection)
        sources = replace(sources, projection=projection)
    out.parent.mkdir(parents=True, exist_ok=True)
    return build(sources, out, replace(options, name=name, revisions=revisions), progress)


def default_folder(name: str, target: str = "cpu", precision: str = "auto") -> Path:
    """Return where a build is kept; a name for each, found by `--model` and `look --precision`."""
    parts = [name, *([] if target == "cpu" else [target])]
    return models_home() / "-".join([*parts, *([] if precision == "auto" else [precision])])


def _check_same_build(out: Path, options: BuildOptions) -> None:
    """Raise ModelBuildError unless the model that is there was built as is asked now."""
    info, wanted = ModelInfo.load(out), asdict(options.precisions)
    if info.target != options.target or dict(info.precision) != wanted:
        raise ModelBuildError(
            f"{out} is there already, built for a {_build(info.target, info.precision)}, not for "
            f"a {_build(options.target, wanted)}: choose another folder with --out, or remove it"
        )


def _build(target: str, precision: Mapping[str, str]) -> str:
    return f"{target.upper()} at {', '.join(f'{part} {how}' for part, how in precision.items())}"


@dataclass(frozen=True)
class _Download:
    """Fetches the repositories of a release into folders below `home`; `out` is built of them."""

    release: Release
    home: Path
    api: HfApi
    out: Path
    options: BuildOptions

    def files(self, repository: str, patterns: tuple[str, ...]) -> tuple[Path, str]:
        """Download the files that match; return their folder and the commit.

        Each file is checked against the checksum that the hub gives for it.
        """
        folder = self._folder(repository)
        with self._hub_errors(repository), _locked(folder):
            if (finished := _finished(folder)) is not None:
                return folder, finished
            commit = self._commit(repository)
            tree = self.api.list_repo_tree(repository, revision=commit)
            files = [
                entry
                for entry in tree
                if isinstance(entry, RepoFile) and any(fnmatch(entry.path, p) for p in patterns)
            ]
            self._check_disk(folder, files)
            for file in files:
                _fetch_file(repository, commit, file, folder, self.api.endpoint)
            _finish(folder, repository, commit)
        return folder, commit

    def projection(self, repository: str) -> tuple[Path, str]:
        """Download only `custom_text_proj` and `PROBE` of model.safetensors, by byte ranges.

        Returns a safetensors file of the three tensors, 1.2 MB out of 4.4 GB, and the commit.
        """
        folder = self._folder(repository)
        file = folder / "projection.safetensors"
        with self._hub_errors(repository), _locked(folder):
            if (finished := _finished(folder)) is not None:
                return file, finished
            commit = self._commit(repository)
            hub = HfFileSystem(endpoint=self.api.endpoint, skip_instance_cache=True)
            # No cache: a read asks for exactly its bytes instead of 5 MB ahead.
            path = f"{repository}@{commit}/model.safetensors"
            with hub.open(path, cache_type="none") as remote:
                parts = _projection_parts(remote)
            if not {PROJECTION_WEIGHT, PROJECTION_BIAS} <= set(parts):
                raise ModelDownloadError(f"{repository}: model.safetensors has no custom_text_proj")
            file.write_bytes(_safetensors(parts))
            _finish(folder, repository, commit)
        return file, commit

    def _check_disk(self, folder: Path, files: list[RepoFile]) -> None:
        there = sum(path.stat().st_size for path in folder.iterdir())
        needed = sum(file.size for file in files) - there
        what = "the download needs"
        beside = next(each for each in self.out.absolute().parents if each.exists())
        if beside.stat().st_dev == folder.stat().st_dev:
            # At least: the embeddings stay float16. Checkpoints come at 2 bytes a weight.
            weights = sum(file.size for file in files if file.path.endswith(".safetensors"))
            precisions = asdict(self.options.precisions).values()
            needed += int(weights * min(BYTES_A_WEIGHT[each] for each in precisions) / 2)
            what = "the download and the model made of it need"
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise ModelDownloadError(
                f"{folder}: {free / 1e9:.1f} GB free, {what} {needed / 1e9:.1f} GB; "
                "make room, or set YOMU_MODELS to a folder on another disk"
            )

    def _folder(self, repository: str) -> Path:
        return self.home / repository.replace("/", "--")

    def _commit(self, repository: str) -> str:
        commit = self.api.model_info(repository).sha
        assert commit is not None  # only absent where it was not asked for
        return commit

    @contextmanager
    def _hub_errors(self, repository: str) -> Iterator[None]:
        """Turn what the hub's client raises into one line that says what to do instead."""
        endpoint = self.api.endpoint
        try:
            yield
        except HfHubHTTPError as error:
            status = error.response.status_code
            raise ModelDownloadError(
                f"{endpoint} refuses {repository} (HTTP {status}); if it asks for an account, "
                f"log in with `hf auth login`. {self.release.by_hand}"
            ) from None
        except OfflineModeIsEnabled:
            raise ModelDownloadError(
                f"{repository} has not been downloaded yet, and HF_HUB_OFFLINE forbids it: unset "
                f"that. {self.release.by_hand}"
            ) from None
        except httpx2.HTTPError as error:
            raise ModelDownloadError(
                f"{endpoint} cannot be reached ({_reason(error)}); what was downloaded is kept, so "
                f"run the same command again later. {self.release.by_hand}"
            ) from None
        except (httpx2.InvalidURL, ImportError, ValueError) as error:
            # A proxy that is no address or needs a package; an answer that is not the hub's.
            raise ModelDownloadError(
                f"{endpoint} cannot be used ({_reason(error)}): check HF_ENDPOINT, HTTPS_PROXY and "
                f"ALL_PROXY. {self.release.by_hand}"
            ) from None
        except OSError as error:
            if error.errno is not None:  # the disk's fault: full, not writable
                raise ModelDownloadError(f"{repository} cannot be stored: {error}") from None
            if isinstance(error, FileNotFoundError):
                raise ModelDownloadError(f"{repository}: {_reason(error)}") from None
            # The client's word for a connection that ended early without an error.
            raise ModelDownloadError(
                f"{repository} broke off; run the same command again"
            ) from None


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _projection_parts(remote: BinaryIO) -> dict[str, tuple[Json, bytes]]:
    """Read header entry and raw bytes of the projection and `PROBE` in a safetensors file."""
    header_bytes = int.from_bytes(remote.read(8), "little")
    header = json.loads(remote.read(header_bytes))
    parts = {}
    for original, entry in header.items():
        if canonical(original) in (PROJECTION_WEIGHT, PROJECTION_BIAS, PROBE):
            start, end = entry["data_offsets"]
            remote.seek(8 + header_bytes + start)
            parts[canonical(original)] = (entry, remote.read(end - start))
    return parts


def _safetensors(parts: dict[str, tuple[Json, bytes]]) -> bytes:
    """Return a safetensors file of tensors given as header entry and raw bytes of any dtype."""
    header: dict[str, object] = {"__metadata__": {"includes_lora": "true"}}
    data = b""
    for name, (entry, raw) in parts.items():
        header[name] = {**entry, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + data


def _fetch_file(repository: str, commit: str, file: RepoFile, folder: Path, endpoint: str) -> None:
    """Download one file, going on where an earlier try stopped."""
    target = folder / file.path
    wanted = file.lfs.sha256 if file.lfs is not None else file.blob_id
    is_lfs = file.lfs is not None
    if target.exists() and _checksum(target, is_lfs) == wanted:
        return
    # The checksum in the name: the rest of another version is never appended to.
    part = folder / f"{file.path}.{wanted[:16]}.part"
    with part.open("ab") as out:
        http_get(
            hf_hub_url(repository, file.path, revision=commit, endpoint=endpoint),
            out,
            resume_size=out.tell(),
            headers=build_hf_headers(),
            expected_size=file.size,
            displayed_filename=file.path,
        )
    if _checksum(part, is_lfs) != wanted:
        part.unlink()
        raise ModelDownloadError(
            f"{repository}: {file.path} was damaged on its way (its checksum is wrong); "
            "run the same command again"
        )
    part.replace(target)  # on Windows `rename` refuses where an older file is


def _checksum(path: Path, is_lfs: bool) -> str:
    """Return what the hub calls a file: sha256 of large ones, git's blob id of small ones."""
    if is_lfs:
        return file_sha256(path)
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _finished(folder: Path) -> str | None:
    """Return the commit of a finished download whose files are all there, else None."""
    try:
        found = json.loads((folder / COMPLETE).read_text())
        commit, sizes = str(found["commit"]), dict(found["bytes"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None  # not there, or torn when the power went
    whole = all(
        (folder / name).exists() and (folder / name).stat().st_size == size
        for name, size in sizes.items()
    )
    return commit if whole else None


def _finish(folder: Path, repository: str, commit: str) -> None:
    sizes = {
        path.name: path.stat().st_size
        for path in sorted(folder.iterdir())
        if path.suffix in (".json", ".safetensors") and path.name != COMPLETE
    }
    content = {"repository": repository, "commit": commit, "bytes": sizes}
    written = folder / f".{COMPLETE}.new"
    written.write_text(json.dumps(content, indent=2) + "\n")
    written.replace(folder / COMPLETE)
    log.info("%s is in %s; remove it when you need no other build of it", repository, folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time write a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(folder / ".lock"):
        yield
