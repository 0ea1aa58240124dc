"""The engine against transformers itself, where torch is at hand, on other weights.

The recorded fixtures prove the same without torch; these are not the weights they come from.
"""

import warnings
from dataclasses import replace

import numpy as np
import pytest

import models
from models.build.builder import BuildOptions, Precisions, build
from models.build.inputs import Sources
from models.sampling import Sampling
from tests.parity import cases, tiny

REASON = "live parity needs torch and transformers; the recorded fixtures cover it without"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

pytestmark = pytest.mark.filterwarnings("ignore")
SIZES = replace(tiny.TINY, seed=20261122)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    base = tiny.write_colqwen2(folder / "base", SIZES, with_lora=False)
    adapter = tiny.write_adapter(folder / "adapter", SIZES)
    options = BuildOptions(precisions=Precisions("fp32", "fp32", "fp32"))
    return models.load(build(Sources.find(adapter, base=base), folder / "out", options), "cpu")


@pytest.fixture(scope="module")
def reference():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tests.parity import make_fixtures
    return make_fixtures


def test_logits_and_greedy_tokens(engine, reference):
    model = reference.qwen2vl(SIZES)
    prompt = cases.PROMPTS["two images"]
    with torch.no_grad():
        inputs = reference.prefill(model, prompt)
        wanted = model(**inputs).logits[0, -1].numpy()
        made = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    found = engine.generator.logits(prompt.pictures(), prompt.text)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)
    answer = engine.generator.generate(
        prompt.pictures(), prompt.text, max_new_tokens=16, sampling=Sampling()
    )
    text = engine.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :].tolist())
    assert "".join(answer) == text


@pytest.mark.parametrize("layout", ["hf", "saved-5"])
def test_page_vectors(engine, reference, layout, tmp_path):
    tiny.write_colqwen2(tmp_path, SIZES, layout)
    model = transformers.ColQwen2ForRetrieval.from_pretrained(tmp_path, dtype=torch.float32)
    wanted: dict = {}
    with torch.no_grad():
        reference.pages(model.eval(), wanted)
    pictures = [cases.picture(*size, seed=n) for n, size in enumerate(cases.PAGES)]
    for n, vectors in enumerate(engine.retriever.encode_pages(pictures)):
        np.testing.assert_allclose(vectors, wanted[f"page {n}"].numpy(), rtol=0, atol=1e-5)
