"""A question about a sample, answered by a model folder that was built from real weights."""

import os
import re

import pytest

from rag.answer import Question
from rag.intake import IngestRequest
from rag.pipeline import Pipeline
from rag.settings import Settings
from tests.e2e.conftest import SAMPLES, Silent

MODEL = os.environ.get("YOMU_REAL_MODEL")


@pytest.mark.real_weights
@pytest.mark.skipif(not MODEL, reason="YOMU_REAL_MODEL names no model folder")
def test_the_page_is_found_by_its_image_and_read(tmp_path):
    with Pipeline(Settings(index=tmp_path / "index", model=MODEL, ocr="off")) as pipeline:
        report = pipeline.ingest(IngestRequest((SAMPLES / "annual-report.pdf",)), Silent())
        assert report.pages["added"] == 2
        stream = pipeline.ask(Question("What were the total sales in 2023?"), mode="visual")
        text = "".join(stream)
        best = stream.result().hits[0]
    assert (best.document, best.page) == ("annual-report.pdf", 1)
    assert re.search(r"1[,.]?420\b", text)
