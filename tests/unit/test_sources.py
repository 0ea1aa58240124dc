"""What lies below a path, and the names it goes by."""

import errno
import hashlib
import os
import threading
import unicodedata

import pytest

from rag.errors import DocumentError, UsageError
from rag.sources import (
    LOOKING,
    Known,
    Source,
    discover,
    file_sha256,
    is_gone,
    path_of,
    storable,
    which_gone,
)


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.pdf", "a/日本語.PDF", "a/photo.jpeg", "a/deck.pptx", "a/notes.txt", ".hidden/x.pdf",
        "a/~$deck.pptx", ".DS_Store", "index/images/x.webp", "__MACOSX/b.pdf",
    ):  # fmt: skip
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "docs" / "scan").write_bytes(b"%PDF-1.7 without a suffix")
    (tmp_path / "docs" / "LICENSE").write_bytes(b"text without a suffix")
    return tmp_path / "docs"


def names(discovery):
    return [source.name for source in discovery.sources]


def known_of(sources):
    return {
        each.name: Known(each.path, file_sha256(each.path), each.path.stat().st_size)
        for each in sources
    }


def test_documents_below_a_folder(folder):
    found = discover([folder], {}, folder / "index")
    assert names(found) == ["b.pdf", "scan", "a/deck.pptx", "a/photo.jpeg", "a/日本語.PDF"]
    assert found.skipped == {".txt": 1, "(no suffix)": 1}
    assert found.folders == (folder,)


def test_an_index_among_the_documents_is_none(folder):
    digest = "ab" * 32
    for name in (
        "index.db", "index.db-wal", "codebook-1.faiss", "writer.lock", f"images/ab/{digest}.webp",
        f"segments/{digest[:24]}/vectors.bin",
        "images/own.png", "images/ab/own.webp", "segments/own.pdf", "own/index.db",
    ):  # fmt: skip
        path = folder / "a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    found = discover([folder / "a"], {}, folder / "a")
    assert names(found) == [
        "deck.pptx", "photo.jpeg", "日本語.PDF", "images/own.png", "images/ab/own.webp",
        "segments/own.pdf",
    ]  # fmt: skip
    assert found.skipped == {".txt": 1, ".db": 1}
    assert names(discover([folder / "a" / "images"], {}, folder / "a")) == [
        "own.png",
        "ab/own.webp",
    ]


def test_folders_that_are_not_read_are_named(folder, monkeypatch):
    (folder / "linked").symlink_to(folder.parent, target_is_directory=True)
    (folder / "locked").mkdir()
    (folder / "locked" / "report.pdf").write_bytes(b"x")
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):  # as the system refuses, though not to root
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = discover([folder], {}, folder / "index")
    assert found.unlisted == {"docs/locked/": "folder cannot be looked into: Permission denied"}
    assert found.links == ("docs/linked/",)
    assert "report.pdf" not in str(names(found))


def test_a_pipe_is_named_and_never_opened(tmp_path):
    for name in ("pipe.pdf", "pipe"):
        os.mkfifo(tmp_path / name)
    found = discover([tmp_path], {}, tmp_path / "index")
    assert names(found) == ["pipe.pdf"]
    with pytest.raises(DocumentError, match="is no regular file"):
        file_sha256(tmp_path / "pipe.pdf")


def test_a_file_behind_a_closed_door_is_not_gone(tmp_path, monkeypatch):
    assert is_gone(tmp_path / "no.pdf")
    (tmp_path / "file").touch()
    assert is_gone(tmp_path / "file" / "no.pdf")
    assert not is_gone(tmp_path / "file")

    def refuse(*_arguments, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    assert not is_gone(tmp_path / "no.pdf")


def test_a_dead_drive_is_not_waited_for(tmp_path, monkeypatch):
    answers = threading.Event()

    def is_gone_there(path):
        if path.name == "dead":
            answers.wait(60)
        return is_gone(path)

    monkeypatch.setattr("rag.sources.is_gone", is_gone_there)
    (tmp_path / "file").write_bytes(b"")
    paths = [tmp_path / name for name in ("dead", "file", "no.pdf")]
    assert which_gone(paths, 0.2) == {paths[1]: False, paths[2]: True}
    answers.set()
    assert which_gone(paths) == {paths[0]: True, paths[1]: False, paths[2]: True}
    assert which_gone([]) == {}


def test_threads_that_wait_for_a_dead_drive_do_not_pile_up(tmp_path, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr("rag.sources.is_gone", lambda path: answers.wait(60))
    monkeypatch.setattr("rag.sources.LOOK_THREADS", 3)
    paths = [tmp_path / str(n) for n in range(10)]
    before = threading.active_count()
    for _ in range(4):
        assert which_gone(paths, 0.05) == {}
        assert threading.active_count() == before + 3
    answers.set()
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        if thread.name == LOOKING:
            thread.join(60)
    assert which_gone(paths) == dict.fromkeys(paths, True)


def test_a_file_named_by_hand_is_taken_whatever_its_suffix(folder):
    found = discover([folder / "a" / "notes.txt", folder / "b.pdf"], {}, folder / "index")
    assert names(found) == ["notes.txt", "b.pdf"]
    assert found.folders == ()
    with pytest.raises(UsageError, match=r"notes.txt: no PDF, image or Office file"):
        discover([folder / "a" / "notes.txt"], {}, folder / "index")
    (folder / "scan.dat").write_bytes(b"%PDF-1.7")
    (folder / "photo").write_bytes(b"P6 1 1 255\nabc")
    for name in ("scan.dat", "photo"):
        assert names(discover([folder / name], {}, folder / "index")) == [name]


def test_a_file_given_twice_is_read_once(folder):
    assert names(discover([folder / "b.pdf", folder], {}, folder / "index")).count("b.pdf") == 1


def test_missing_path_is_named(folder):
    with pytest.raises(UsageError, match="nowhere: no such file or folder"):
        discover([folder / "nowhere"], {}, folder / "index")


@pytest.mark.parametrize("stem", ["ガイド", "第１章\u3000概要", "naïve"])
def test_decomposed_names_are_composed_and_stay(tmp_path, stem):
    decomposed = unicodedata.normalize("NFD", f"{stem}.pdf")
    (tmp_path / decomposed).write_bytes(b"x")
    (found,) = discover([tmp_path], {}, tmp_path / "index").sources
    assert found.name == f"{stem}.pdf"
    assert found.path.exists()
    known = known_of([found])
    (again,) = discover([tmp_path], known, tmp_path / "index").sources
    assert again == found


def write_bytes_named(folder, *names):
    for name in names:
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(name)


WORDS = "会議 資料 東京 報告 予算 契約 経費 図面 写真 請求書 議事録 ガイド".split()


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp", "utf-8"])
def test_names_of_old_japanese_archives_are_read(tmp_path, encoding):
    write_bytes_named(tmp_path, *(f"{word}.pdf".encode(encoding) for word in WORDS), b"good.pdf")
    found = discover([tmp_path], {}, tmp_path / "index")
    assert sorted(names(found)) == sorted([*(f"{word}.pdf" for word in WORDS), "good.pdf"])
    assert all(each.path.exists() for each in found.sources)


def test_bytes_that_are_no_text_are_escaped(tmp_path):
    write_bytes_named(tmp_path, b"\xff\xfe\x81.pdf", b"caf\xe9.pdf")
    found = discover([tmp_path], {}, tmp_path / "index")
    assert names(found) == ["caf%E9.pdf", "%FF%FE%81.pdf"]


def test_one_name_in_several_encodings_gets_numbers_that_stay(tmp_path):
    encodings = ("utf-8", "cp932", "euc_jp")
    write_bytes_named(tmp_path, *("日本.pdf".encode(each) for each in encodings))
    (tmp_path / "日本 (2).pdf").write_bytes(b"its own name")
    found = discover([tmp_path], {}, tmp_path / "index")
    by_path = {each.path: each.name for each in found.sources}
    assert len(set(by_path.values())) == 4
    assert "日本.pdf" in by_path.values()
    assert all(name.startswith(("日本", tmp_path.name)) for name in by_path.values())
    known = known_of(found.sources)
    for given in ([tmp_path], sorted(by_path), sorted(by_path, reverse=True)):
        again = discover(given, known, tmp_path / "index").sources
        assert {each.path: each.name for each in again} == by_path
    # without the one that has the bare name, too
    first = next(path for path, name in by_path.items() if name == "日本.pdf")
    first.unlink()
    again = discover([tmp_path], known, tmp_path / "index").sources
    assert {each.path: each.name for each in again}.items() < by_path.items()


def test_more_names_that_look_alike_than_folders_above_them(tmp_path):
    write_bytes_named(tmp_path, *(bytes([n]) + b".pdf" for n in range(1, 26) if n != 10))
    found = discover([tmp_path], {}, tmp_path / "index")
    assert len(set(names(found))) == len(found.sources) == 24
    assert "\ufffd (24).pdf" in names(found)


@pytest.mark.parametrize(
    "name", [b"\x93\xfa\x96{.pdf", b"\xb2\xf1 %41.pdf", b"a%93?.pdf", b"file:", "日本.pdf".encode()]
)
def test_paths_are_kept_whole(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    stored = storable(path)
    assert stored.encode("utf-8")
    assert path_of(stored) == path
    if name.isascii() or name.startswith("日".encode()):
        assert stored == str(path)


def test_terminal_codes_in_names_are_replaced(tmp_path):
    (tmp_path / "a\x1b[31m\n.pdf").write_bytes(b"x")
    (found,) = discover([tmp_path], {}, tmp_path / "index").sources
    assert found.name == "a\ufffd[31m\ufffd.pdf"
    assert found.path.exists()


def test_names_stay_and_never_collide(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "r.pdf").write_bytes(name.encode())
    both = discover([tmp_path / "a", tmp_path / "b"], {}, tmp_path / "index")
    assert names(both) == ["r.pdf", "b/r.pdf"]
    known = known_of(both.sources)
    # the other way round, or one at a time: each keeps the name it has in the index
    assert names(discover([tmp_path / "b", tmp_path / "a"], known, tmp_path / "index")) == [
        "b/r.pdf", "r.pdf",
    ]  # fmt: skip
    assert names(discover([tmp_path / "c"], known, tmp_path / "index")) == ["c/r.pdf"]
    # a folder that moved: the file the index knew is gone, the name is free for its successor
    (tmp_path / "a").rename(tmp_path / "moved")
    assert names(discover([tmp_path / "moved"], known, tmp_path / "index")) == ["r.pdf"]


def test_a_document_whose_file_is_away_keeps_its_name(tmp_path):
    for folder in ("may", "june"):
        (tmp_path / folder).mkdir()
        for name in ("report.pdf", "costs.pdf", "notes.pdf"):
            (tmp_path / folder / name).write_text(f"{name} of {folder}")
    known = known_of(discover([tmp_path / "may"], {}, tmp_path / "index").sources)
    (tmp_path / "may").rename(tmp_path / "away")  # as a disk that is not mounted
    found = discover([tmp_path / "june"], known, tmp_path / "index")
    assert names(found) == ["june/costs.pdf", "june/notes.pdf", "june/report.pdf"]
    again = discover([tmp_path / "june"], known | known_of(found.sources), tmp_path / "index")
    assert again == found
    # one file alone is the same only if its bytes are: the same size says nothing
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "report.pdf").write_text("report.pdf in may")
    one = {"report.pdf": known["report.pdf"]}
    assert names(discover([tmp_path / "x"], one, tmp_path / "index")) == ["x/report.pdf"]
    # nothing is stored of a file that could not be read
    unread = {"report.pdf": Known(tmp_path / "may" / "report.pdf")}
    assert names(discover([tmp_path / "x"], unread, tmp_path / "index")) == ["report.pdf"]


def test_a_folder_that_moved_keeps_its_names_though_a_file_has_changed(tmp_path):
    for name in ("a/one.pdf", "a/two.pdf", "three.pdf"):
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / name).write_text(name)
    before = discover([tmp_path / "docs"], {}, tmp_path / "index")
    known = known_of(before.sources)
    (tmp_path / "docs").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "three.pdf").write_text("edited since")
    found = discover([tmp_path / "elsewhere"], known, tmp_path / "index")
    assert names(found) == names(before) == ["three.pdf", "a/one.pdf", "a/two.pdf"]


def test_sha256_and_unreadable_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(DocumentError, match="cannot be read: No such file"):
        file_sha256(tmp_path / "b")


def test_office_files_are_known_by_suffix(tmp_path):
    assert Source("x", tmp_path / "Deck.PPTX").is_office
    assert not Source("x", tmp_path / "deck.pdf").is_office
