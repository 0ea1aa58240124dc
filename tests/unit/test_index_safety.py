"""What can go wrong with disks, files, locks and settings, and what the index says then."""

import dataclasses
import errno
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import zlib
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from index import database, finder, segment, statistics, verify
from index.database import Database, pack_text
from index.errors import (
    IndexCorrupt,
    IndexFull,
    IndexLocked,
    IndexMismatch,
    IndexMissing,
    IndexReadOnly,
    TooManyFiles,
)
from index.page_index import PageIndex
from index.records import Filters, Tuning
from tests.unit.index_data import SETTINGS, document, page, put

EAGER = Tuning(exact_pages=4, n_probe=4, n_candidates=6, train_pages=8, merge_factor=3)


# -- opening -----------------------------------------------------------------------------------


def test_a_folder_without_an_index_is_named(tmp_path):
    with pytest.raises(IndexMissing, match="yomu ingest"):
        PageIndex.open(tmp_path)
    with pytest.raises(IndexMissing, match="yomu ingest"):
        PageIndex.open(tmp_path / "new", writable=True)


def test_a_process_killed_while_creating_leaves_no_index(tmp_path):
    sqlite3.connect(tmp_path / "index.db").close()
    (tmp_path / "index.db").touch()
    with pytest.raises(IndexMissing):
        PageIndex.open(tmp_path)
    PageIndex.open(tmp_path, SETTINGS, writable=True).close()
    PageIndex.open(tmp_path, SETTINGS).close()


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_lost_database_never_takes_the_vectors_along(tmp_path, what):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        put(page_index, "a.pdf")
    for path in tmp_path.glob("index.db*"):
        path.unlink()
    if what == "empty":
        (tmp_path / "index.db").touch()
    for writable in (False, True, True):
        with pytest.raises(IndexCorrupt, match=f"index.db is {what} .* bring it back"):
            PageIndex.open(tmp_path, SETTINGS, writable=writable)
    assert list((tmp_path / "segments").glob("*/vectors.bin"))


def test_what_others_leave_in_the_folder_stays_there(tmp_path):
    """File managers and network drives write files and folders of their own into every folder."""
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        put(page_index, "a.pdf")
    images = next(tmp_path.glob("images/*"))
    strangers = [tmp_path / "segments" / ".DS_Store", images / "Thumbs.db"]
    for path in strangers:
        path.touch()
    for path in (tmp_path / "segments" / "@eaDir", images / "@eaDir"):
        path.mkdir()
        strangers.append(path)
    leftovers = [tmp_path / "segments" / ("0" * 24), images / f"{'0' * 64}.webp"]
    leftovers[0].mkdir()
    leftovers[1].touch()
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        page_index.compact()
        assert page_index.verify().clean
    assert all(path.exists() for path in strangers)
    assert not any(path.exists() for path in leftovers)


def test_a_leftover_that_cannot_be_deleted_hinders_nobody(tmp_path, monkeypatch, caplog):
    PageIndex.open(tmp_path, SETTINGS, writable=True).close()
    leftover = tmp_path / "segments" / ("0" * 24)
    leftover.mkdir(parents=True)
    refuse = Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
    monkeypatch.setattr(shutil, "rmtree", refuse)
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        monkeypatch.undo()
        put(page_index, "a.pdf")
    assert f"{leftover}: a leftover stays: Permission denied" in caplog.text


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"model": "cd" * 32, "model_name": "other"}, "--model tiny"),
        ({"dpi": 150}, "--dpi 100"),
        ({"max_visual_tokens": 9}, "--max-visual-tokens 64"),
        ({"pool_factor": 3}, "--pool-factor 1"),
        ({"codec": "fp16"}, "codec int8"),
        ({"dim": 8}, "dim 16"),
    ],
)
def test_mixing_settings_is_refused_with_the_way_out(tmp_path, change, advice):
    PageIndex.open(tmp_path, SETTINGS, writable=True).close()
    for writable in (False, True):
        with pytest.raises(IndexMismatch, match=advice) as caught:
            PageIndex.open(tmp_path, dataclasses.replace(SETTINGS, **change), writable=writable)
        assert "yomu ingest" in str(caught.value)
    PageIndex.open(tmp_path, dataclasses.replace(SETTINGS, model_name="renamed")).close()


def test_new_weights_under_the_same_name_are_no_other_model(tmp_path):
    """To say "use that model" would be no advice: it is in use."""
    PageIndex.open(tmp_path, SETTINGS, writable=True).close()
    with pytest.raises(IndexMismatch) as caught:
        PageIndex.open(tmp_path, dataclasses.replace(SETTINGS, model="b" * 64))
    assert "--model" not in str(caught.value)
    other = dataclasses.replace(SETTINGS, model="b" * 64, model_name="other")
    with pytest.raises(IndexMismatch, match=f"--model {SETTINGS.model_name}"):
        PageIndex.open(tmp_path, other)


def test_another_format_is_refused_by_name(tmp_path):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as opened:
        opened._database.sql.execute("UPDATE settings SET value='7' WHERE key='format_version'")
    with pytest.raises(IndexMismatch, match="format 7, this program reads format 3"):
        PageIndex.open(tmp_path)


def test_a_second_writer_is_told_so_and_may_wait(tmp_path):
    first = PageIndex.open(tmp_path, SETTINGS, writable=True)
    script = (
        "import sys; from pathlib import Path; from index.page_index import PageIndex\n"
        "from index.errors import IndexLocked\n"
        "try:\n    PageIndex.open(Path(sys.argv[1]), writable=True, wait_s=float(sys.argv[2]))\n"
        "except IndexLocked as error:\n    print(error)\n"
        "else:\n    print('got it')"
    )

    def second(wait_s):
        return subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(wait_s)],
            stdout=subprocess.PIPE,
            text=True,
        )

    assert "another process is writing" in second(0).communicate()[0]
    waiting = second(60)
    first.close()
    assert waiting.communicate()[0].strip() == "got it"


def test_a_lock_of_the_same_process_counts_too(tmp_path):
    with (
        PageIndex.open(tmp_path, SETTINGS, writable=True),
        pytest.raises(IndexLocked, match="another process"),
    ):
        PageIndex.open(tmp_path, SETTINGS, writable=True)


def test_a_copied_index_answers_alike_from_a_read_only_folder(built, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with PageIndex.open(copy, SETTINGS, tuning=EAGER) as reader:
        assert answers(reader) == answers_of(built)
        assert reader.verify().clean
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o755)


def refuse_to_open(monkeypatch, reason="SQLITE_CANTOPEN"):
    """As where nothing can be written: SQLite opens the file only if it need not look for a log."""
    open_as_is = Database._open

    def refusing(address):
        if "mode=ro" not in address or "immutable" in address:
            return open_as_is(address)
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorname = reason
        connection = Mock(sqlite3.Connection)
        connection.execute.side_effect = error
        return connection

    monkeypatch.setattr(Database, "_open", staticmethod(refusing))


def test_who_may_not_write_sees_what_the_owner_writes(tmp_path, monkeypatch):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as owner:
        put(owner, "a.pdf", seed=1)
    refuse_to_open(monkeypatch)
    with PageIndex.open(tmp_path, SETTINGS) as reader:
        for seed in range(2, 9):
            with PageIndex.open(tmp_path, SETTINGS, writable=True) as owner:
                put(owner, f"{seed}.pdf", seed=seed)
            (hit, *_) = reader.search(1, vectors=page(seed, 2).vectors, mode="visual")
            assert (hit.document, hit.page) == (f"{seed}.pdf", 2)
        assert reader.verify().clean


def test_what_changes_during_a_reading_without_a_lock_is_read_again(tmp_path, monkeypatch):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as owner:
        put(owner, "a.pdf", seed=1)
    refuse_to_open(monkeypatch)
    todo, match_any = [], finder.match_any

    def changing(*known):
        if todo:
            with PageIndex.open(tmp_path, SETTINGS, writable=True) as owner:
                put(owner, todo.pop(), seed=2)
        return match_any(*known)

    monkeypatch.setattr(finder, "match_any", changing)
    with PageIndex.open(tmp_path, SETTINGS) as reader:
        todo.append("b.pdf")
        assert len(reader.search(9, text="common", mode="text")) == 6
        assert not todo


def test_a_database_that_is_no_database_is_not_read_in_another_way(tmp_path, monkeypatch):
    PageIndex.open(tmp_path, SETTINGS, writable=True).close()
    refuse_to_open(monkeypatch, "SQLITE_CORRUPT")
    with pytest.raises(IndexCorrupt):
        PageIndex.open(tmp_path, SETTINGS)


def test_a_copy_is_never_read_without_its_log(tmp_path, monkeypatch):
    with PageIndex.open(tmp_path / "index", SETTINGS, writable=True) as page_index:
        put(page_index, "a.pdf")
        page_index.commit()
        shutil.copytree(tmp_path / "index", tmp_path / "copy")  # and its writer is still at work
    whole = tmp_path / "index"
    refuse_to_open(monkeypatch)
    with pytest.raises(IndexReadOnly, match=r"index.db-wal holds changes .* `yomu compact`"):
        PageIndex.open(tmp_path / "copy")
    (whole / "index.db-wal").touch()
    with PageIndex.open(whole) as reader:
        assert reader.stats().pages == 3


@pytest.mark.parametrize(
    ("name", "kind", "advice"),
    [
        ("SQLITE_CORRUPT", IndexCorrupt, "delete the index folder"),
        ("SQLITE_NOTADB", IndexCorrupt, "delete the index folder"),
        ("SQLITE_CORRUPT_VTAB", IndexCorrupt, "`yomu verify --mend` reads"),
        ("SQLITE_ERROR", IndexCorrupt, "`yomu verify --mend` reads"),
        ("SQLITE_IOERR_READ", IndexCorrupt, "cannot be read .* see to the disk"),
        ("SQLITE_IOERR_SHORT_READ", IndexCorrupt, "cannot be read .* see to the disk"),
        ("SQLITE_IOERR_WRITE", IndexFull, "make room"),
        ("SQLITE_IOERR_FSYNC", IndexFull, "make room"),
        ("SQLITE_FULL", IndexFull, "make room"),
        ("SQLITE_PROTOCOL", IndexReadOnly, "cannot lock .* local disk"),
        ("SQLITE_IOERR_SHMMAP", IndexReadOnly, "cannot lock .* local disk"),
        ("SQLITE_IOERR_LOCK", IndexReadOnly, "cannot lock .* local disk"),
        ("SQLITE_READONLY_DBMOVED", IndexReadOnly, "who may read and write"),
        ("SQLITE_BUSY_SNAPSHOT", IndexLocked, "try again"),
    ],
)
def test_only_a_database_that_is_lost_is_to_be_deleted(tmp_path, name, kind, advice):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        error = sqlite3.OperationalError("told by SQLite")
        error.sqlite_errorname = name
        with pytest.raises(kind, match=advice) as caught, page_index._database.errors():
            raise error
        assert "told by SQLite" in str(caught.value)


def test_a_file_system_without_locks_is_named_before_anything_is_written(tmp_path, monkeypatch):
    class NoSharedMemory(sqlite3.Connection):
        def execute(self, query, *values):
            mode = query.replace("journal_mode=WAL", "journal_mode=DELETE")
            return super().execute(mode, *values)

    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *a, **more: connect(*a, **more, factory=NoSharedMemory)
    )
    with pytest.raises(IndexReadOnly, match="local disk"):
        PageIndex.open(tmp_path, SETTINGS, writable=True)


# -- a disk that refuses -----------------------------------------------------------------------


def test_a_commit_counts_only_what_the_disk_has_confirmed(tmp_path, monkeypatch):
    """Files, then the name of their folder, then the transaction: each before the next."""
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        sql = page_index._database.sql
        assert sql.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert sql.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        put(page_index, "a.pdf")
        happened: list[object] = []
        fsync, rename = os.fsync, Path.rename

        def confirm(descriptor):
            fsync(descriptor)
            happened.append(os.fstat(descriptor).st_ino)

        def give_name(path, target):
            happened.append(f"name {Path(target).parent.name}")
            return rename(path, target)

        monkeypatch.setattr(os, "fsync", confirm)
        monkeypatch.setattr(Path, "rename", give_name)
        sql.set_trace_callback(lambda said: happened.append(said))
        page_index.commit()
        sql.set_trace_callback(None)
    (folder,) = (tmp_path / "segments").iterdir()
    named, counted = happened.index("name segments"), happened.index("COMMIT")
    inside = {path.stat().st_ino for path in (folder, *folder.iterdir())}
    assert len(inside) > 5 and inside <= set(happened[:named])
    assert folder.parent.stat().st_ino in happened[named:counted]


def test_a_commit_counts_only_in_folders_that_the_disk_has_confirmed(tmp_path, monkeypatch):
    """Each new folder's name in the one above it, or a power cut takes all that is in it."""
    index = tmp_path / "new" / "index"
    confirmed: list[set[int]] = []  # inodes that stood in a folder when it was confirmed
    fsync = os.fsync

    def confirm(descriptor):
        fsync(descriptor)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            confirmed.append({entry.inode() for entry in os.scandir(descriptor)})

    monkeypatch.setattr(os, "fsync", confirm)
    with PageIndex.open(index, SETTINGS, writable=True) as page_index:
        put(page_index, "a.pdf")
        sql = page_index._database.sql
        before: set[int] = set()

        def note(said):
            if said == "COMMIT":
                before.update(*confirmed)

        sql.set_trace_callback(note)
        page_index.commit()
        sql.set_trace_callback(None)
    made = [path for path in (tmp_path / "new", *tmp_path.glob("new/**/*")) if path.is_dir()]
    assert {path.name for path in made} >= {"new", "index", "segments", "images"}
    assert [path for path in made if path.stat().st_ino not in before] == []


@pytest.mark.parametrize("call", range(1, 16))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_fsync_loses_nothing_that_was_committed(tmp_path, monkeypatch, call, code):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        put(page_index, "safe.pdf", seed=1)
        page_index.commit()
        put(page_index, "late.pdf", seed=2)
        real, calls = os.fsync, []

        def fsync(descriptor):
            calls.append(descriptor)
            if len(calls) == call:
                raise OSError(code, os.strerror(code))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        try:
            page_index.commit()
        except IndexFull as error:
            assert "safe" in str(error)
            assert page_index.n_uncommitted == 3
            with PageIndex.open(tmp_path) as reader:
                assert reader.stats().pages == 3
                assert reader.verify().clean
        monkeypatch.undo()
        page_index.commit()
        assert page_index.stats().pages == 6
        assert page_index.verify().clean
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        assert not [p for p in (tmp_path / "segments").iterdir() if p.name.startswith(".tmp")]
        assert len(list((tmp_path / "segments").iterdir())) == page_index.stats().segments


def test_a_database_that_cannot_grow_loses_nothing(tmp_path):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        put(page_index, "safe.pdf", seed=1)
        page_index.commit()
        page_index.begin_document(document("late.pdf", seed=2, n_pages=40))
        for number in range(1, 41):
            noise = np.random.default_rng(number).bytes(30_000).hex()
            page_index.add_page("late.pdf", page(2, number, text=noise))
        sql = page_index._database.sql
        (pages,) = sql.execute("PRAGMA page_count").fetchone()
        sql.execute(f"PRAGMA max_page_count = {pages + 5}")
        with pytest.raises(IndexFull, match="safe"):
            page_index.commit()
        assert page_index.n_uncommitted == 40
        assert page_index.stats().pages == 3
        assert page_index.verify().clean
        assert len(list((tmp_path / "segments").iterdir())) == 1
        sql.execute("PRAGMA max_page_count = 1000000")
        assert page_index.commit() == 40
        assert page_index.verify().clean


def test_a_disk_that_is_full_of_postings_puts_off_the_merge(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(segment, "MIN_POSTINGS_PAGES", 10)
    write = Path.write_bytes

    def full(path, data):
        if path.name == "postings.faiss":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with PageIndex.open(tmp_path, SETTINGS, writable=True, tuning=EAGER) as page_index:
        for seed in range(9):
            put(page_index, f"{seed}.pdf", seed=seed)
            page_index.commit()
        assert "upkeep was put off" in caplog.text
        with pytest.raises(IndexFull, match="everything committed before is safe"):
            page_index.compact()
        monkeypatch.undo()
        assert page_index.stats().pages == 27
        assert page_index.verify().clean


FILE_LIMIT = """
import resource, signal, sys
from pathlib import Path
from index.errors import IndexFull
from index.page_index import PageIndex
from tests.unit.index_data import SETTINGS, put
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with PageIndex.open(Path(sys.argv[1]), SETTINGS, writable=True) as page_index:
    put(page_index, "safe.pdf", seed=1)
    page_index.commit()
    put(page_index, "late.pdf", seed=2, n_pages=40)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    try:
        page_index.commit()
    except IndexFull as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(page_index.commit(), page_index.verify().clean)
"""


def test_a_kernel_that_refuses_to_write_loses_nothing(tmp_path):
    """The system's own file size limit stands for a full disk: write() itself fails."""
    done = subprocess.run(
        [sys.executable, "-c", FILE_LIMIT, str(tmp_path)], capture_output=True, text=True
    )
    assert "everything committed before is safe" in done.stdout, done.stderr
    assert done.stdout.strip().endswith("40 True")


# -- damage ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An index with every kind of file: codebook, postings, a small segment, thumbnails."""
    folder = tmp_path_factory.mktemp("built") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "MIN_POSTINGS_PAGES", 10)
        with PageIndex.open(folder, SETTINGS, writable=True, tuning=EAGER) as page_index:
            for seed in range(1, 5):
                put(page_index, f"{seed}.pdf", seed=seed, n_pages=5)
            page_index.commit()
            page_index.maintain()
            put(page_index, "last.pdf", seed=9)
            put(page_index, "copy.pdf", seed=9)
    return folder


def answers(page_index):
    """Everything a person could see of the index, whole."""
    hits = [
        page_index.search(30, vectors=page(seed, 2).vectors, text=f"content{seed}", mode=mode)
        for mode in ("visual", "text", "hybrid")
        for seed in (1, 4, 9)
    ]
    some = page_index.search(
        3, vectors=page(2, 1).vectors, mode="visual", filters=Filters(document="[12].pdf")
    )
    listed = [(r.name, r.status, r.n_pages_stored) for r in page_index.documents()]
    return [[(h.document, h.page, round(h.score, 5)) for h in found] for found in [*hits, some]], (
        listed
    )


def answers_of(folder):
    with PageIndex.open(folder, SETTINGS, tuning=EAGER) as reader:
        return answers(reader)


def files_of(folder):
    passing = {"writer.lock", "index.db-wal", "index.db-shm"}  # the last two: of an open reader
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder) for path in paths if path.name not in passing]


def test_the_built_index_has_every_kind_of_file(built):
    kinds = {path.name if "images" not in path.parts else "image" for path in files_of(built)}
    assert kinds == {
        "index.db",
        "codebook-1.faiss",
        "manifest.json",
        "vectors.bin",
        "pages.npy",
        "contents.npy",
        "offsets.npy",
        "crc.npy",
        "codes.npy",
        "residuals.npy",
        "code_offsets.npy",
        "postings.faiss",
        "image",
    }


def damage(path, generator):
    """Flip bits of a byte, cut the file short, or delete it; returns what was done."""
    data = bytearray(path.read_bytes())
    how = generator.integers(0, 8)
    at = int(generator.integers(0, len(data)))
    if how == 0:
        path.unlink()
        return "deleted"
    if how <= 2:
        path.write_bytes(data[:at])
        return f"cut to {at} of {len(data)}"
    data[at] ^= int(generator.integers(1, 256))
    path.write_bytes(data)
    return f"byte {at} of {len(data)} flipped"


def logical_dump(folder):
    """Everything the tables say, or None where SQLite itself sees the damage."""
    connection = sqlite3.connect(folder / "index.db")
    try:
        tables = ("settings", "contents", "documents", "pages", "failures", "segments")
        return [connection.execute(f"SELECT * FROM {t} ORDER BY 1").fetchall() for t in tables]
    except sqlite3.DatabaseError:
        return None
    finally:
        connection.close()


def check_damaged(folder, copy, generator, name):
    """Damage one file of a copy: found by verify, and no search answers wrongly in silence."""
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("index.db-*"))
    what = f"{name}: {damage(copy / name, generator)}"
    visual_only = name == Path("index.db")
    found, same = False, True
    try:
        with PageIndex.open(copy, SETTINGS, tuning=EAGER) as reader:
            try:
                got, wanted = answers(reader), answers_of(folder)
                same = got[0][:3] == wanted[0][:3] if visual_only else got == wanted
            except IndexCorrupt:
                found = True
            found = not reader.verify().clean or found
    except (IndexCorrupt, IndexMissing, IndexMismatch):
        found = True
    if visual_only and not found:
        found = logical_dump(copy) == logical_dump(folder)  # a byte that nothing uses
    assert found, f"{what}: not found by verify"
    assert same, f"{what}: a wrong answer in silence"
    shutil.rmtree(copy)


@pytest.mark.parametrize("part", ["codebook", "segments", "images", "index.db"])
def test_damaged_bytes_are_found_and_never_answer_wrongly(built, tmp_path, part):
    generator = np.random.default_rng(7)
    files = [path for path in files_of(built) if str(path).startswith(part)]
    files = files[:3] if part == "images" else files
    for _ in range(25 if part == "index.db" else 2):
        for name in files:
            check_damaged(built, tmp_path / "copy", generator, name)
    assert files


@pytest.mark.slow
def test_damaged_bytes_are_found_in_many_places(built, tmp_path):
    generator = np.random.default_rng(11)
    files = [name for name in files_of(built) if "images" not in name.parts]
    for _ in range(60):
        for name in files:
            check_damaged(built, tmp_path / "copy", generator, name)


@pytest.mark.parametrize(
    ("pattern", "read_again"),
    [
        ("codebook-1.faiss", 0),
        ("segments/*/postings.faiss", 0),
        ("segments/*/codes.npy", 0),
        ("segments/*/residuals.npy", 0),
        ("segments/*/vectors.bin", 1),
        ("segments/*/pages.npy", 0),
        ("segments/*/contents.npy", 0),
        ("segments/*/offsets.npy", 0),
        ("segments/*/crc.npy", 0),
        ("segments/*/manifest.json", 0),
        ("images/*/*.webp", 1),
    ],
)
def test_mending_reads_again_only_what_must_be(built, tmp_path, pattern, read_again):
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    path = sorted(copy.glob(pattern))[-1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with PageIndex.open(copy, SETTINGS, writable=True, tuning=EAGER) as page_index:
        report = page_index.verify()
        assert [item.path for item in report.damage] == [path.relative_to(copy).as_posix()]
        names = page_index.mend()
        assert names == report.documents
        assert (len(names) > 0) == (read_again > 0)
        assert page_index.verify().clean
        if not pattern.startswith("images"):  # pages whose image is lost stay and are searched
            assert {failure.document for failure in page_index.failures()} == set(names)
        sources = {r.name: r.source for r in page_index.documents()}
        assert all(sources[name] == f"/in/{name}" for name in names)
        for name in names:
            seed = 9 if name in ("last.pdf", "copy.pdf") else int(name[0])
            put(page_index, name, seed=seed, n_pages=3 if seed == 9 else 5)
        page_index.commit()
        page_index.maintain()
        assert page_index.verify().clean
        assert answers(page_index)[1] == answers_of(built)[1]
        assert [sorted(h) for h in answers(page_index)[0][:3]] == [
            sorted(h) for h in answers_of(built)[0][:3]
        ]


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def shown(page_index, name="a.pdf"):
    """Pages of a document that are found by their vectors and by their text."""
    filters = Filters(document=name)
    vectors = page(1, 1).vectors
    found = [
        page_index.search(9, vectors=vectors, text="common", mode=mode, filters=filters)
        for mode in ("visual", "text")
    ]
    seen, read = ({hit.page for hit in hits} for hits in found)
    assert seen == read
    return seen


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """One segment of five documents, one of them removed, and a smaller one."""
    folder = tmp_path_factory.mktemp("uneven") / "index"
    with PageIndex.open(folder, SETTINGS, writable=True, tuning=Tuning(dead_share=1)) as page_index:
        for seed in range(1, 6):
            put(page_index, f"{seed}.pdf", seed=seed, n_pages=4)
        page_index.commit()
        put(page_index, "late.pdf", seed=9)
        page_index.commit()
        page_index.remove("3.pdf")
    return folder


def test_files_are_read_where_a_second_opening_shares_its_place(built, monkeypatch):
    """As on macOS, where /dev/fd/N is N itself: after a checksum it stands at its end."""
    places, open_as_is, postings = [], open, segment.Postings

    def shared(path, *rest, **more):
        if str(path).startswith("/dev/fd/"):
            return os.fdopen(os.dup(int(Path(path).name)), "rb")
        return open_as_is(path, *rest, **more)

    def watched(path):
        places.append(os.lseek(int(path.name), 0, os.SEEK_CUR))
        return postings(path)

    wanted = answers_of(built)
    monkeypatch.setattr("builtins.open", shared)
    monkeypatch.setattr("io.open", shared)
    monkeypatch.setattr(segment, "Postings", watched)
    with PageIndex.open(built, SETTINGS, tuning=EAGER) as reader:
        for each in reader._finder.snapshot().segments:
            for descriptor in each._derived.values():
                os.lseek(descriptor, 0, os.SEEK_END)
            assert len(each.residuals) == each.info.n_pages
            assert len(each.codes.offsets) == each.info.n_pages + 1
        assert answers(reader) == wanted
    assert places and set(places) == {0}


def test_postings_that_may_not_be_opened_are_no_damage(built, monkeypatch):
    with PageIndex.open(built, SETTINGS, tuning=EAGER) as reader:
        monkeypatch.setattr(segment, "Postings", Mock(side_effect=RuntimeError("Error in FAISS")))
        with pytest.raises(
            TooManyFiles, match="postings.faiss: cannot be opened by FAISS; nothing"
        ):
            answers(reader)
        monkeypatch.undo()
        assert answers(reader) == answers_of(built)


def names_and_pages(folder):
    with PageIndex.open(folder) as reader:
        assert reader.verify().clean
        hits = reader.search(99, vectors=page(2, 3).vectors, mode="visual", exact=True)
        return {(hit.document, hit.page): round(hit.score, 5) for hit in hits}


FILES = ["manifest.json", "pages.npy", "contents.npy", "offsets.npy", "crc.npy"]
HOW = {
    "flipped": lambda path, generator: flip(path, int(generator.integers(path.stat().st_size))),
    "its last number flipped": lambda path, _: flip(path, -8),
    "cut": lambda path, generator: os.truncate(path, int(generator.integers(path.stat().st_size))),
    "gone": lambda path, _: path.unlink(),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_description_of_a_segment_costs_no_page(uneven, tmp_path, name, how):
    before = names_and_pages(uneven)
    for attempt in range(3):
        copy = tmp_path / str(attempt)
        shutil.copytree(uneven, copy)
        HOW[how](sorted(copy.glob(f"segments/*/{name}"))[0], np.random.default_rng(attempt))
        with PageIndex.open(copy, SETTINGS, writable=True) as page_index:
            assert not page_index.verify().clean
            assert page_index.mend() == ()
        assert names_and_pages(copy) == before
        assert not list(copy.glob("segments/lost-*"))


@pytest.mark.parametrize("change", [-1, -100, 1])
def test_vectors_of_another_length_cost_only_the_pages_that_are_not_whole(
    uneven, tmp_path, change, caplog
):
    """And what is left of the others stays, where the file that they were read from is gone."""
    before, copy = names_and_pages(uneven), tmp_path / "copy"
    shutil.copytree(uneven, copy)
    path = sorted(copy.glob("segments/*/vectors.bin"))[0]
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + b"0")
    with PageIndex.open(copy, SETTINGS, writable=True) as page_index:
        assert page_index.mend() == (("5.pdf",) if change < 0 else ())
    after = names_and_pages(copy)
    assert after.items() <= before.items()
    assert before.keys() - after.keys() <= {("5.pdf", number) for number in range(1, 5)}
    assert len(after) >= len(before) - (0 if change > 0 else 1 if change == -1 else 4)
    aside = copy / "segments" / f"lost-{path.parent.name}"
    assert (aside / "vectors.bin").exists() == (change < 0)
    assert (f"{aside}: pages of it could not be recovered" in caplog.text) == (change < 0)
    with PageIndex.open(copy, SETTINGS, writable=True) as page_index:
        page_index.compact()
        assert page_index.verify().clean
    assert (aside / "vectors.bin").exists() == (change < 0)


def test_two_damaged_segments_never_exchange_their_pages(uneven, tmp_path):
    """Where it is not sure whose vectors they are, pages are given up rather than confused."""
    before = names_and_pages(uneven)
    for attempt in range(20):
        copy, generator = tmp_path / str(attempt), np.random.default_rng(attempt)
        shutil.copytree(uneven, copy)
        for folder in copy.glob("segments/*"):
            for name in generator.choice(FILES, 2, replace=False):
                HOW[str(generator.choice(list(HOW)))](folder / name, generator)
        with PageIndex.open(copy, SETTINGS, writable=True) as page_index:
            page_index.mend()
        after = names_and_pages(copy)
        assert after.items() <= before.items()


def damaged_vectors(folder):
    """Flip a byte of the second page's vectors, in whichever segment they are."""
    with PageIndex.open(folder) as reader:
        row = reader.search(1, vectors=page(1, 2).vectors, mode="visual")[0].page_id
        place = reader._finder.snapshot().place(row)
        first = int(place.segment._offsets[place.row]) * (SETTINGS.dim + 2)
    flip(place.segment.path / "vectors.bin", first)


@pytest.mark.parametrize("each_alone", [True, False])
def test_mending_keeps_every_page_that_is_whole(tmp_path, each_alone):
    """The file of the document may be gone: what is dropped then is lost for good."""
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        page_index.begin_document(document("a.pdf", 1, 4))
        for number in range(1, 5):
            page_index.add_page("a.pdf", page(1, number))
            if each_alone:
                page_index.commit()
        page_index.finish_document("a.pdf")
        put(page_index, "b.pdf", seed=2)
    damaged_vectors(tmp_path)
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        assert page_index.mend() == ("a.pdf",)
        assert page_index.verify().clean
        assert shown(page_index) == {1, 3, 4}
        (failure,) = page_index.failures()
        assert (failure.document, failure.page) == ("a.pdf", 2)
        assert [each.status for each in page_index.documents()] == ["damaged", "complete"]
        assert page_index.begin_document(document("a.pdf", 1, 4)).done == {1, 3, 4}
        page_index.add_page("a.pdf", page(1, 2))
        assert page_index.finish_document("a.pdf") == "complete"
        page_index.commit()
        assert page_index.failures() == ()
        assert shown(page_index) == {1, 2, 3, 4}
        assert len(list((tmp_path / "images").rglob("*.webp"))) == 7
        assert page_index.verify().clean


def refuse_reads(monkeypatch, code, path):
    """Have the system refuse to read the start of a file, and the file as a whole."""
    pread, sha256_of, inode = os.preadv, verify.sha256_of, path.stat().st_ino

    def refusing(descriptor, buffers, offset, *flags):
        if not offset and os.fstat(descriptor).st_ino == inode:
            raise OSError(code, os.strerror(code))
        return pread(descriptor, buffers, offset, *flags)

    def digest(other):
        if other == path:
            raise OSError(code, os.strerror(code))
        return sha256_of(other)

    monkeypatch.setattr(os, "preadv", refusing)
    monkeypatch.setattr(verify, "sha256_of", digest)


@pytest.mark.parametrize("system", ["takes no advice", "has no advice"])
def test_pages_are_read_where_the_system_cannot_be_told_ahead(built, monkeypatch, system):
    wanted = answers_of(built)
    advice = Mock(side_effect=OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)))
    monkeypatch.setattr(os, "posix_fadvise", advice, raising=False)
    monkeypatch.setattr(segment, "WILLNEED", 3 if system == "takes no advice" else None)
    assert answers_of(built) == wanted
    assert advice.called == (system == "takes no advice")


def test_a_sector_that_cannot_be_read_costs_its_page_only(tmp_path, monkeypatch):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        put(page_index, "a.pdf", seed=1)
    refuse_reads(monkeypatch, errno.EIO, next(tmp_path.glob("segments/*/vectors.bin")))
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        with pytest.raises(
            IndexCorrupt, match="vectors.bin: Input/output error; run `yomu verify`"
        ):
            page_index.search(1, vectors=page(1, 1).vectors, mode="visual")
        (damage,) = page_index.verify().damage
        assert damage.reason == "Input/output error"
        assert page_index.mend() == ("a.pdf",)
        assert shown(page_index) == {2, 3}


MANY_FILES = """
import resource, sys
from pathlib import Path
from index.errors import TooManyFiles
from index.page_index import PageIndex
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (12, most))
with PageIndex.open(Path(sys.argv[1])) as reader:
    print(reader.verify().clean, reader.stats().segments)
resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))
try:
    with PageIndex.open(Path(sys.argv[1]), writable=True) as page_index:
        page_index.compact()
except TooManyFiles as error:
    print(error)
"""


def test_many_segments_open_where_the_system_allows_more_files(tmp_path):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        for seed in range(9):
            put(page_index, f"{seed}.pdf", seed=seed)
            page_index.commit()
    script = [sys.executable, "-c", MANY_FILES, str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.stdout.startswith("True 9\n"), done.stderr
    assert "Too many open files; nothing is damaged" in done.stdout, done.stderr
    with PageIndex.open(tmp_path) as reader:
        assert reader.verify().clean


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files_are_no_damage(tmp_path, monkeypatch, code):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        put(page_index, "a.pdf", seed=1)
    refuse_reads(monkeypatch, code, next(tmp_path.glob("segments/*/vectors.bin")))
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        for action in (page_index.verify, page_index.mend):
            with pytest.raises(TooManyFiles, match="ulimit -n"):
                action()
        monkeypatch.undo()
        monkeypatch.setattr(os, "open", Mock(side_effect=OSError(code, os.strerror(code))))
        with pytest.raises(TooManyFiles, match="nothing is damaged"):
            page_index.search(1, vectors=page(1, 1).vectors, mode="visual")
        monkeypatch.undo()
        assert page_index.verify().clean
        assert shown(page_index) == {1, 2, 3}


@pytest.mark.parametrize(
    ("needle", "status", "pages"),
    [
        (pack_text("content1 page2 common"), "damaged", {1, 3}),
        (b"/in/a.pdf", "failed", {1, 2, 3}),
        (b"Annual Review", "partial", {1, 2, 3}),
    ],
    ids=["page", "document", "content"],
)
def test_a_damaged_row_costs_no_page_but_its_own(tmp_path, needle, status, pages):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        put(page_index, "a.pdf", seed=1, title="Annual Review of the Orchard")
        put(page_index, "b.pdf", seed=2)
    data = (tmp_path / "index.db").read_bytes()
    flip(tmp_path / "index.db", data.rindex(needle) + 8)
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        assert page_index.verify().documents == ("a.pdf",)
        assert page_index.mend() == ("a.pdf",)
        assert page_index.verify().clean
        assert [each.status for each in page_index.documents()] == [status, "complete"]
        assert shown(page_index) == pages
        assert put(page_index, "a.pdf", seed=1) == "complete"
        page_index.commit()
        assert page_index.documents()[0].status == "complete"
        assert page_index.failures() == ()
        assert shown(page_index) == {1, 2, 3}
        assert page_index.verify().clean


def codebooks_of(folder):
    """Which codebook each segment knows, by the segment's name."""
    with PageIndex.open(folder) as reader:
        return {each.info.id: each.info.codebook for each in reader._finder.snapshot().segments}


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_lost_codebook_is_made_again_by_one_rewriting(built, tmp_path, how):
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    flip(copy / "codebook-1.faiss", -1)
    if how == "missing":
        (copy / "codebook-1.faiss").unlink()
    with PageIndex.open(copy, SETTINGS, writable=True, tuning=EAGER) as page_index:
        page_index.maintain()
    assert set(codebooks_of(copy).values()) == {2}
    before = codebooks_of(copy)
    with PageIndex.open(copy, SETTINGS, writable=True, tuning=EAGER) as page_index:
        page_index.maintain()
        assert page_index.verify().clean
    assert codebooks_of(copy) == before
    assert answers_of(copy)[1] == answers_of(built)[1]


@pytest.mark.parametrize(
    ("way", "n_new", "expected"),
    [
        ("maintain", 2, 1),
        ("maintain", 3, 2),
        ("compact", 1, 2),
        ("compact", 0, 1),
        ("commit", 4, 1),
    ],
)
def test_a_codebook_of_pages_that_are_gone_is_trained_anew(tmp_path, way, n_new, expected):
    """Its centroids are near to nothing that is there, so that candidates are drawn at random."""
    tuning = Tuning(exact_pages=4, train_pages=8, retrain_growth=99)
    with PageIndex.open(tmp_path, SETTINGS, writable=True, tuning=tuning) as page_index:
        for seed in range(4):
            put(page_index, f"{seed}.pdf", seed=seed)
        page_index.commit()
        page_index.maintain()
        assert set(codebooks_of(tmp_path).values()) == {1}
        for seed in range(n_new):
            put(page_index, f"{seed}.pdf", seed=seed + 50)
        page_index.commit()
        if way != "commit":
            getattr(page_index, way)()
    assert set(codebooks_of(tmp_path).values()) == {expected}


def test_a_codebook_that_cannot_be_read_now_costs_nothing(built, tmp_path, monkeypatch):
    copy, real = tmp_path / "copy", Path.read_bytes
    shutil.copytree(built, copy)
    before = codebooks_of(copy)

    def refusing(path):
        if path.suffix == ".faiss":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refusing)
        with PageIndex.open(copy, SETTINGS, writable=True, tuning=EAGER) as page_index:
            put(page_index, "more.pdf", seed=5)
            page_index.maintain()
    after = codebooks_of(copy)
    assert before.items() <= after.items()
    assert (copy / "codebook-1.faiss").exists()
    with PageIndex.open(copy, SETTINGS, writable=True, tuning=EAGER) as page_index:
        page_index.maintain()
        assert page_index.verify().clean
    assert set(codebooks_of(copy).values()) == {1}


@pytest.mark.parametrize("name", ["案内.pdf", "\U0001fae8.pdf"])
def test_checksums_of_rows_depend_on_no_version_of_python(tmp_path, monkeypatch, name):
    """A face that Python 3.11 does not know is an escape in its repr, and none in that of 3.12."""
    with monkeypatch.context() as patch:
        patch.setattr(database, "_row_crc", database._row_crc_before)
        with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
            put(page_index, name, seed=1, title=name)
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        assert page_index.verify().clean  # as rows of old are
        put(page_index, f"new {name}", seed=2)
    with PageIndex.open(tmp_path, SETTINGS) as reader:
        assert reader.verify().clean
        sql = reader._database.sql
        *row, crc = sql.execute("SELECT * FROM documents WHERE name LIKE 'new%'").fetchone()
        crc_again = sql.execute(
            f"SELECT {database.crc_expression('documents')} FROM documents WHERE name LIKE 'new%'"
        ).fetchone()[0]
        assert crc == crc_again == zlib.crc32(ascii(tuple(row)).encode())


def test_words_of_a_large_index_are_checked_without_a_copy_in_memory(built, tmp_path, monkeypatch):
    copy, opened, open_as_is = tmp_path / "copy", [], Database._open
    shutil.copytree(built, copy)

    def watched(address):
        opened.append(address)
        return open_as_is(address)

    monkeypatch.setattr(database, "COPY_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(Database, "_open", staticmethod(watched))
    with PageIndex.open(copy) as reader:
        assert reader.verify().clean
        assert [address for address in opened if "/.tmp-verify-" in address] == opened[1:]
        assert not any("memory" in address for address in opened)
        assert not list(copy.glob(".tmp-*"))
        usage = Mock(return_value=Mock(free=1))
        monkeypatch.setattr(shutil, "disk_usage", usage)
        with pytest.raises(IndexFull, match=f"no room .* in {copy} or /.*; make room"):
            reader.verify()
    with PageIndex.open(copy, SETTINGS, writable=True) as page_index:
        page_index._database.sql.execute(
            "INSERT INTO word_index(word_index, rowid, body) VALUES('delete', 1, 'common')"
        )
    monkeypatch.setattr(shutil, "disk_usage", Mock(return_value=Mock(free=1 << 40)))
    with PageIndex.open(copy) as reader:
        assert "word index" in reader.verify().damage[0].reason


def test_damaged_words_are_made_again(built, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    with PageIndex.open(copy, SETTINGS, writable=True) as page_index:
        page_index._database.sql.execute(
            "INSERT INTO word_index(word_index, rowid, body) VALUES('delete', 1, 'common')"
        )
        assert "word index" in page_index.verify().damage[0].reason
        assert page_index.mend() == ()
        assert page_index.verify().clean


# -- beside a writer ---------------------------------------------------------------------------


def just_before(monkeypatch, module, name, change, matches=""):
    """Have a writer change the index once, just before a function looks at a file."""
    real, todo = getattr(module, name), [change]

    def late(path, *rest):
        if todo and matches in str(path):
            todo.pop()()
        return real(path, *rest)

    monkeypatch.setattr(module, name, late)
    return todo


@pytest.fixture
def busy(tmp_path, monkeypatch):
    """A writer of an index of six segments, and a reader of it, which it does not wait for long."""
    monkeypatch.setattr(database, "TIMEOUT_S", 1)
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as writer:
        for seed in range(6):
            put(writer, f"{seed}.pdf", seed=seed)
            writer.commit()
        with PageIndex.open(tmp_path) as reader:
            yield writer, reader


@pytest.mark.parametrize(
    ("name", "matches"),
    [("read_checked", "manifest"), ("sha256_of", "offsets.npy"), ("read_checked", ".webp")],
)
@pytest.mark.parametrize("how", ["compact", "remove"])
def test_what_a_writer_takes_away_meanwhile_is_no_damage(busy, monkeypatch, name, matches, how):
    writer, reader = busy
    change = writer.compact if how == "compact" else lambda: writer.remove("[0-4].pdf")
    todo = just_before(monkeypatch, verify, name, change, matches)
    report = reader.verify()
    assert not todo
    assert report.damage == ()
    assert reader.verify().n_files == report.n_files or how == "remove" or ".webp" in matches


def test_what_a_writer_brings_back_meanwhile_is_no_damage(busy, monkeypatch):
    writer, reader = busy
    writer.remove("[1-5].pdf")

    def gone_and_back():
        writer.remove("0.pdf")

        def back():
            put(writer, "0.pdf", seed=0)
            writer.commit()

        just_before(monkeypatch, verify, "generation_of", back)

    just_before(monkeypatch, verify, "read_checked", gone_and_back, ".webp")
    assert reader.verify().damage == ()
    assert reader.stats().pages == 3


def test_damage_beside_a_writer_is_still_found(busy, monkeypatch):
    writer, reader = busy
    flip(sorted(writer.folder.glob("segments/*/crc.npy"))[0], -1)
    just_before(monkeypatch, verify, "sha256_of", lambda: writer.remove("5.pdf"), "offsets.npy")
    (found,) = reader.verify().damage
    assert found.path.endswith("crc.npy")


def test_sizes_are_taken_of_what_is_there(busy, monkeypatch):
    writer, reader = busy
    todo = just_before(monkeypatch, statistics, "_part", writer.compact, "segments")
    assert reader.stats().pages == 18
    assert not todo


def test_manifest_numbers_are_those_of_the_files(built):
    for path in (built / "segments").iterdir():
        manifest = json.loads((path / "manifest.json").read_text())
        for name, known in manifest["files"].items():
            assert (path / name).stat().st_size == known["bytes"]
