"""What changed is told by content: neither size nor date has to differ."""

import os

from tests import odd_files as odd
from tests.e2e.test_ingest import Yomu, counts


def test_another_content_of_the_same_size_and_date_replaces_the_old(
    tmp_path, tiny_model, monkeypatch
):
    for name, value in {"MODEL": tiny_model, "OCR": "off", "DEVICE": "cpu", "READERS": 1}.items():
        monkeypatch.setenv(f"YOMU_{name}", str(value))
    monkeypatch.setenv("YOMU_INDEX", str(tmp_path / "index"))
    yomu = Yomu(tmp_path / "index")
    path = odd.text_pdf(tmp_path / "a.pdf", ["apple orchard"])
    before = path.stat()
    counts(yomu.json("ingest", path), added=1)

    odd.text_pdf(path, ["steel bridges"])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    counts(yomu.json("ingest", path, "--dry-run"), updated=1)
    counts(yomu.json("ingest", path), updated=1)
    for word, n_found in {"bridges": 1, "orchard": 0}.items():
        assert len(yomu.json("search", word, "--mode", "text")["hits"]) == n_found

    os.utime(path, (0, 0))
    counts(yomu.json("ingest", path), unchanged=1)
