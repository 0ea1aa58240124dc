"""What `verify --mend` asks of the index, however many documents it drops."""

from index.page_index import PageIndex
from rag.house import House
from rag.ingest import PageRange
from tests.unit.index_data import SETTINGS, document, page


def test_failures_are_read_once_for_all_documents(tmp_path, monkeypatch):
    with PageIndex.open(tmp_path, SETTINGS, writable=True) as page_index:
        for seed in range(5):
            page_index.begin_document(document(f"{seed}.pdf", seed, 9))
            for number in (2, 3):
                page_index.add_page(f"{seed}.pdf", page(seed, number))
            page_index.fail_page(f"{seed}.pdf", 7, "cannot be drawn")
            page_index.finish_document(f"{seed}.pdf")
    for path in tmp_path.glob("segments/*/vectors.bin"):
        path.write_bytes(bytes(path.stat().st_size))
    calls, failures = [], PageIndex.failures
    monkeypatch.setattr(PageIndex, "failures", lambda self: calls.append(self) or failures(self))
    dropped = House(tmp_path).mend()
    assert [each.record.name for each in dropped] == [f"{seed}.pdf" for seed in range(5)]
    assert {each.pages for each in dropped} == {(PageRange(2, 3), PageRange(7, 7))}
    assert len(calls) == 1
