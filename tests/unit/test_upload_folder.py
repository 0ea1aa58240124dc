"""The folder of uploads: its largest size, its end, and what may be deleted from it."""

import os
import time

import pytest

from ui.upload_folder import FORGOTTEN_S, KEPT_UPLOADS, UploadFolder, discard


@pytest.fixture
def folder(monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # put back afterwards
    made = UploadFolder(upload_bytes=100)
    yield made
    made.close()


def test_it_fills_up_and_forgets_what_nobody_took(folder):
    assert folder.has_room()
    old = folder.path / "x" / "old.pdf"
    old.parent.mkdir()
    old.write_bytes(b"0" * 100 * KEPT_UPLOADS)
    assert not folder.has_room()
    long_ago = time.time() - FORGOTTEN_S - 1
    os.utime(old, (long_ago, long_ago))
    assert folder.has_room()
    assert not old.exists()


def test_only_files_inside_are_discarded(folder, tmp_path):
    outside, inside = tmp_path / "a.pdf", folder.path / "x" / "a.pdf"
    inside.parent.mkdir()
    for each in (outside, inside):
        each.write_bytes(b"1")
    discard(str(outside))
    discard(f"{inside.parent}/../../{outside}")
    discard(str(inside))
    discard(str(inside))
    assert outside.exists()
    assert not inside.parent.exists()
    folder.close()
    assert not folder.path.exists()
