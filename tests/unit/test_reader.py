"""The render worker is limited, watched and restarted."""

import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rag.errors import DocumentError
from rag.reader import Limits, PageReader, ReaderPool
from rag.render_worker import allow_cpu_seconds, limit_resources
from tests import odd_files as odd

DRAW = {"dpi": 72, "max_pixels": 500_000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    odd.text_pdf(folder / "good.pdf", [f"{odd.TEXT} Page {n}." for n in range(1, 6)])
    odd.endless_pdf(folder / "endless.pdf")
    odd.huge_png(folder / "huge.png", 16_000, 15_000)
    return folder


def test_pages_arrive_with_text_and_thumbnail(folder):
    with PageReader() as reader:
        assert reader.page_count(folder / "good.pdf") == 5
        page = reader.read(folder / "good.pdf", 3, thumbnail=True, **DRAW)
        assert "Page 3." in page.text
        assert page.image.size == (595, 842)
        assert page.thumbnail[:4] == b"RIFF"
        assert page.thumbnail[8:12] == b"WEBP"
        with pytest.raises(DocumentError, match="cannot be read"):
            reader.read(folder / "good.pdf", 9, **DRAW)
        assert reader.n_started == 1


def test_endless_page_is_stopped_and_the_rest_goes_on(folder):
    with PageReader(limits=Limits(wall_s=2.0)) as reader:
        reader.page_count(folder / "good.pdf")
        with pytest.raises(DocumentError, match="took longer than 2 s and was stopped"):
            reader.read(folder / "endless.pdf", 1, **DRAW)
        assert "Page 1." in reader.read(folder / "good.pdf", 1, **DRAW).text
        assert reader.n_started == 2


def test_cpu_time_is_limited(folder):
    with (
        PageReader(limits=Limits(cpu_s=1.0)) as reader,
        pytest.raises(DocumentError, match="took more than 1 s of CPU and was stopped"),
    ):
        reader.read(folder / "endless.pdf", 1, **DRAW)


def test_memory_is_limited_and_the_rest_goes_on(folder):
    with PageReader(limits=Limits(memory_bytes=600_000_000)) as reader:
        # 240 megapixels: within the limit of pixels, 720 MB as RGB
        with pytest.raises(DocumentError, match="needs more memory than a page may take"):
            reader.read(folder / "huge.png", 1, **DRAW)
        assert "Page 2." in reader.read(folder / "good.pdf", 2, **DRAW).text


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse some of the limits")
def test_stricter_limits_that_were_set_before_are_kept():
    """Raising them is refused to all but root: every file had failed."""
    code = """
import resource as r
r.setrlimit(r.RLIMIT_AS, (2_000_000_000, 2_000_000_000))
r.setrlimit(r.RLIMIT_CPU, (20, 30))
from rag.render_worker import allow_cpu_seconds, limit_resources
limit_resources(3_000_000_000)
allow_cpu_seconds(100)
print(r.getrlimit(r.RLIMIT_AS), r.getrlimit(r.RLIMIT_CPU), r.getrlimit(r.RLIMIT_CORE))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(2000000000, 2000000000) (30, 30) (0, 0)\n"


@pytest.mark.parametrize("error", [ValueError("not allowed"), OSError(22, "Invalid argument")])
def test_limits_that_the_system_refuses_stop_nothing(monkeypatch, error):
    resource = pytest.importorskip("resource")
    tried = []

    def refuse(kind, limits):
        tried.append(kind)
        raise error

    monkeypatch.setattr(resource, "setrlimit", refuse)
    limit_resources(1_000_000_000)
    allow_cpu_seconds(10)
    assert tried == [resource.RLIMIT_CORE, resource.RLIMIT_AS, resource.RLIMIT_CPU]


@pytest.mark.skipif(not Path("/proc").exists(), reason="memory is read from /proc")
def test_pictures_of_earlier_documents_are_not_kept_in_memory(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 1200, 1200, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"{number}.pdf")
    megabytes = []
    with PageReader() as reader:
        for number in range(len(noise)):
            reader.read(tmp_path / f"{number}.pdf", 1, dpi=72, max_pixels=2_000_000)
            status = Path(f"/proc/{reader._process.pid}/status").read_text()
            megabytes.append(int(status.split("RssAnon:")[1].split()[0]) / 1000)
    assert megabytes[-1] - megabytes[2] < 20  # of 4 MB each, 36 in all; malloc keeps some of it


def test_a_damaged_image_ends_no_worker(tmp_path):
    """Of a second frame without its width Pillow raises a TypeError."""
    path = tmp_path / "a.tif"
    odd.picture(64, 80).save(path, save_all=True, append_images=[odd.picture(64, 80, seed=1)])
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (n_entries,) = struct.unpack_from("<H", data, first)
    (second,) = struct.unpack_from("<I", data, first + 2 + 12 * n_entries)
    assert struct.unpack_from("<H", data, second + 2) == (256,)  # ImageWidth
    struct.pack_into("<H", data, second + 2, 60_000)
    path.write_bytes(data)
    with PageReader() as reader:
        with pytest.raises(DocumentError, match="is a damaged image"):
            reader.page_count(path)
        assert reader.page_count(odd.text_pdf(tmp_path / "b.pdf", ["whole"])) == 1
        assert reader.n_started == 1


def test_crash_is_tried_again_in_a_new_process(folder):
    with PageReader() as reader:
        reader.page_count(folder / "good.pdf")
        reader._process.send_signal(signal.SIGSEGV)
        assert "Page 4." in reader.read(folder / "good.pdf", 4, **DRAW).text
        assert reader.n_started == 2


def test_crash_in_a_fresh_process_is_the_files_fault(folder):
    with PageReader() as reader:
        reader._start()
        reader._process.send_signal(signal.SIGSEGV)
        with pytest.raises(DocumentError, match=r"crashed the renderer \(SIGSEGV\)"):
            reader.read(folder / "good.pdf", 4, **DRAW)
        assert "Page 4." in reader.read(folder / "good.pdf", 4, **DRAW).text


def test_closed_reader_starts_nothing(folder):
    reader = PageReader()
    reader.close()
    with pytest.raises(DocumentError, match="reading was stopped"):
        reader.page_count(folder / "good.pdf")


def test_pool_keeps_the_order_and_reads_ahead(folder):
    drawn = []

    def jobs():
        for number in range(1, 6):
            drawn.append(number)
            yield number

    with ReaderPool(2) as pool:
        pool.depth = 3
        pages = pool.map_ahead(
            lambda reader, n: reader.read(folder / "good.pdf", n, **DRAW), jobs()
        )
        assert next(pages).number == 1
        assert drawn == [1, 2, 3]  # ahead by the depth, no further
        assert [page.number for page in pages] == [2, 3, 4, 5]


def test_pool_ends_its_workers(folder):
    with ReaderPool(2) as pool:
        list(pool.map_ahead(lambda reader, n: reader.read(folder / "good.pdf", n, **DRAW), [1, 2]))
        processes = [reader._process for reader in pool._readers]
        assert all(process.poll() is None for process in processes)
    assert all(process.poll() is not None for process in processes)
