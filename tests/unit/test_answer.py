"""From evidence to a streamed answer: what the model is given, what is cited, what is said."""

from contextlib import suppress
from dataclasses import replace

import pytest
from PIL import Image, ImageDraw

from index.records import PageHit
from models.errors import ModelFilesError, PromptError
from models.session import Cancelled
from rag.answer import (
    QUOTED,
    Answer,
    AnswerStream,
    Evidence,
    Key,
    PageImage,
    PageRows,
    Question,
    worth_quoting,
)
from rag.cli_ask import _show, answer_json
from rag.errors import DocumentError, UsageError
from rag.manner import SYSTEM, AnswerOptions, Manner
from rag.page_choice import PageRef
from rag.words import QUOTED_NOTE, not_found

HITS = (PageHit("a.pdf", 2, 0.9, 1), PageHit("b.pdf", 1, 0.4, 2))
FOUND = (PageRef("a.pdf", 2), PageRef("b.pdf", 1), PageRef("a.pdf", 3, found=False))


def draw(page: PageRef) -> PageImage:
    """A page of 112 × 112 px that looks like no other: 16 visual tokens."""
    image = Image.new("RGB", (112, 112), "white")
    ImageDraw.Draw(image).text((4, 40), f"{page.document} {page.page}", fill="black")
    return PageImage(image)


def stream(engine, pages=FOUND, question="How many?", read=draw, **options) -> AnswerStream:
    asked = question if isinstance(question, Question) else Question(question)
    options = AnswerOptions(**({"max_new_tokens": 3} | options))
    return AnswerStream(Evidence(asked, HITS, pages, 0.25, 0.5), lambda: engine, read, options)


def finished(made: AnswerStream) -> Answer:
    pieces = list(made)
    answer = made.result()
    assert "".join(pieces).strip() == answer.text
    return answer


def test_stopped_before_the_first_word_is_stopped(engine):
    made = stream(engine)
    made.close()
    with suppress(Cancelled):
        list(made)
    assert made.result().stop_reason == "cancelled"


@pytest.fixture
def given(engine, monkeypatch) -> dict:
    """What the generator was given."""
    seen, generate = {}, engine.generator.generate

    def spy(images, prompt, max_new_tokens, **more):
        seen.update(images=images, prompt=prompt, max_new_tokens=max_new_tokens, **more)
        return generate(images, prompt, max_new_tokens, **more)

    monkeypatch.setattr(engine.generator, "generate", spy)
    return seen


def n_tokens(engine, *texts: str) -> int:
    return sum(len(engine.tokenizer.encode(each)) for each in texts)


def shrink_context(engine, size: int) -> None:
    text = replace(engine.config.text, max_positions=size)
    engine.config = replace(engine.config, text=text)


def test_evidence_is_there_before_the_text(engine):
    made = stream(engine)
    assert [page.key for page in made.pages] == [("a.pdf", 2), ("a.pdf", 3), ("b.pdf", 1)]
    assert made.result().text == ""
    assert made.result().hits == HITS
    answer = finished(made)
    assert answer.timings.tokens == 3
    assert answer.stop_reason in ("length", "end")
    assert (answer.timings.encode_query, answer.timings.search) == (0.25, 0.5)
    assert min(answer.timings.prefill, answer.timings.decode, answer.timings.read_pages) > 0


def test_citations_are_the_given_pages_that_retrieval_found(engine):
    answer = finished(stream(engine))
    assert [page.key for page in answer.pages] == [("a.pdf", 2), ("a.pdf", 3), ("b.pdf", 1)]
    assert [page.key for page in answer.citations] == [("a.pdf", 2), ("b.pdf", 1)]


def test_pages_then_the_question_with_the_models_manner(engine, given):
    history = (("Earlier?", "Yes."),)
    finished(stream(engine, question=Question("And now?", history=history)))
    assert given["prompt"] == "And now?"
    assert given["system"] == SYSTEM
    assert given["history"] == history
    assert given["max_new_tokens"] == 3
    assert len(given["images"]) == 3
    first, second = given["images"][:2]
    assert (first.pixel_values != second.pixel_values).any()


def test_pages_are_seen_in_the_order_they_are_listed(engine, given):
    read = []

    def noting(page: PageRef) -> PageImage:
        read.append(page)
        return PageImage(Image.new("RGB", (56 * page.page, 56), "red"))

    made = stream(engine, read=noting)
    finished(made)
    assert read == list(FOUND)  # by importance
    assert [each.size_px[1] for each in given["images"]] == [56 * page.page for page in made.pages]


def test_abstaining_needs_no_model():
    def never():
        pytest.fail("the model was opened")

    evidence = Evidence(Question("What?"), HITS, ())
    made = AnswerStream(evidence, never, draw, AnswerOptions())
    assert not made.generates
    answer = finished(made)
    assert answer.abstained
    assert answer.text == "Not found in these documents."
    assert answer.citations == answer.pages == ()
    assert answer.hits == HITS
    assert answer.timings.tokens == 0


@pytest.mark.parametrize(
    ("question", "language"),
    [("売上は?", "ja"), ("カタカナ", "ja"), ("How much?", "en"), ("¿Cuánto?", "en")],
)
def test_not_found_is_said_in_the_language_of_the_question(question, language):
    assert ("これらの文書" in not_found(question)) == (language == "ja")


def test_what_does_not_fit_the_context_is_left_out_and_said(engine):
    n_text = n_tokens(engine, SYSTEM, "How many?")
    two_pages = n_text + 30 + 3 + 2 * (16 + 2)  # template, answer, 16 tokens and 2 around them
    shrink_context(engine, two_pages)
    answer = finished(stream(engine))
    assert [page.key for page in answer.pages] == [("a.pdf", 2), ("b.pdf", 1)]
    assert answer.notes == (
        f"a.pdf, p. 3 is left out: the model's context of {two_pages} tokens is full",
    )
    shrink_context(engine, two_pages - 1)
    answer = finished(stream(engine))
    assert [page.key for page in answer.pages] == [("a.pdf", 2)]
    assert len(answer.notes) == 2


def test_earlier_turns_take_room_too(engine):
    """A context that holds a page of any size, this conversation and half a page more."""
    page = engine.generator.options.max_pixels // 28**2 + 2
    asked = Question("How many?", history=(("Why?", "So."),))
    n_text = sum(
        len(engine.tokenizer.encode(each)) for each in (SYSTEM, "How many?", "Why?", "So.")
    )
    shrink_context(engine, n_text + 30 + 10 + 3 + page)

    def large(ref: PageRef) -> PageImage:
        return PageImage(draw(ref).image.resize((28 * 24, 28 * 16)))

    answer = finished(stream(engine, pages=FOUND[:2], question=asked, read=large))
    assert answer.pages == FOUND[:1]
    answer = finished(stream(engine, pages=FOUND[:2], read=draw))
    assert len(answer.pages) == 2


def test_the_earliest_turns_make_room_for_a_page(engine, given):
    page = engine.generator.options.max_pixels // 28**2 + 2
    history = (("First " * 30, "One."), ("Why?", "So."))
    n_text = sum(
        len(engine.tokenizer.encode(each)) for each in (SYSTEM, "How many?", "Why?", "So.")
    )
    shrink_context(engine, n_text + 30 + 10 + 3 + page)
    answer = finished(stream(engine, question=Question("How many?", history=history)))
    assert given["history"] == history[1:]
    assert "the earliest 1 of 2 turns are left out" in answer.notes[0]
    assert answer.question.history == history


def test_a_question_longer_than_the_context_is_refused(engine):
    with pytest.raises(PromptError, match="context"):
        list(stream(engine, question="why " * engine.config.text.max_positions))


def test_a_page_that_cannot_be_read_is_left_out_and_said(engine):
    def read(page: PageRef) -> PageImage:
        if page.document == "a.pdf":
            raise DocumentError("is gone")
        return replace(draw(page), note="only a small image")

    answer = finished(stream(engine, read=read))
    assert [page.key for page in answer.pages] == [("b.pdf", 1)]
    assert answer.notes == (
        "a.pdf, p. 2 is left out: is gone",
        "b.pdf, p. 1: only a small image",
        "a.pdf, p. 3 is left out: is gone",
    )


def test_no_page_can_be_read(engine):
    def read(page: PageRef) -> PageImage:
        raise DocumentError("is gone")

    with pytest.raises(DocumentError, match=r"no page can be read.*a\.pdf, p\. 2.*is gone"):
        list(stream(engine, read=read))


def test_stopping_keeps_what_was_written(engine):
    made = stream(engine, max_new_tokens=200)
    first = next(made)
    made.close()
    assert list(made) == []
    answer = made.result()
    assert answer.text == first.strip()
    assert answer.timings.tokens < 200


def test_a_follow_up_about_the_same_pages_reads_none_of_them_again(engine):
    first = stream(engine, pages=FOUND[:2])
    text = finished(first).text
    kept = first.pages
    asked = Question("And then?", history=(("How many?", text),), kept=kept)
    made = stream(engine, question=asked, pages=(*kept, PageRef("c.pdf", 1)))
    finished(made)
    assert [page.key for page in made.pages] == [*(page.key for page in kept), ("c.pdf", 1)]
    reused = made._generated.timings.n_reused_tokens
    assert reused >= 2 * 16  # both pages


def _quoting(
    rows, question="How many visitors?", pages=FOUND, hits=HITS, n_pages=None
) -> AnswerStream:
    def never(*_):
        pytest.fail("the model was opened or a page drawn")

    asked = question if isinstance(question, Question) else Question(question)
    evidence = Evidence(asked, hits, pages)

    def read(page):
        found = rows[page]
        return found if isinstance(found, PageRows) else PageRows(found)

    return AnswerStream(evidence, never, never, AnswerOptions(n_pages), read_rows=read)


def test_a_model_that_cannot_answer_quotes_the_pages_with_such_words():
    rows = {FOUND[0]: ["Visitors 4,500"], FOUND[1]: ["Nothing of it"], FOUND[2]: ["visitors: few"]}
    made = _quoting(rows)
    assert not made.generates
    answer = finished(made)
    first, _, last = (f"{page.document}, p. {page.page}" for page in FOUND)
    assert answer.text == f"{first}:\nVisitors 4,500\n\n{last}:\nvisitors: few"
    assert (answer.pages, answer.citations) == ((FOUND[0], FOUND[2]), FOUND[:1])
    assert answer.stop_reason == QUOTED
    assert answer.notes == (QUOTED_NOTE,)
    assert finished(_quoting(rows, pages=FOUND[:2])).text == "Visitors 4,500"


def test_a_best_page_without_such_words_is_not_passed_over():
    """It may be a scan: what another page says must not stand alone."""
    rows = {FOUND[0]: [], FOUND[1]: ["Visitors 4,500"], FOUND[2]: []}
    answer = finished(_quoting(rows))
    assert answer.quotations == ((FOUND[0], ""), (FOUND[1], "Visitors 4,500"))
    assert answer.text.index("See the page") < answer.text.index("Visitors 4,500")


def test_what_is_asked_for_is_known_with_its_page():
    rows = {FOUND[0]: ["Visitors 4,500"], FOUND[1]: [], FOUND[2]: []}
    assert finished(_quoting(rows)).key == Key(FOUND[0], "4,500", len("Visitors "))
    assert finished(_quoting({page: ["Nothing"] for page in FOUND})).key is None


def test_what_a_small_model_read_is_quoted_with_a_warning_and_no_key():
    read = PageRows(["Visitors 4,500"], is_certain=False)
    answer = finished(_quoting({FOUND[0]: read, FOUND[1]: [], FOUND[2]: ["visitors: few"]}))
    assert [text for _, text in answer.quotations] == ["Visitors 4,500", "visitors: few"]
    assert answer.key is None
    quoted, warning = answer.notes
    assert quoted == QUOTED_NOTE
    assert FOUND[0].document in warning and "digits may be wrong" in warning
    silent = PageRows(["Nothing of it"], is_certain=False)
    answer = finished(_quoting({FOUND[0]: ["Visitors 4,500"], FOUND[1]: silent, FOUND[2]: []}))
    assert answer.notes == (QUOTED_NOTE,) and answer.key is not None


def test_a_page_that_says_more_of_the_question_has_the_key():
    asked = "How many visitors came to the castle in spring?"
    rows = {
        FOUND[0]: ["Visitors\t12"],
        FOUND[1]: ["Visitors of the castle in spring\t4,500"],
        FOUND[2]: [],
    }
    assert finished(_quoting(rows, asked)).key == Key(FOUND[1], "4,500", 33)


def test_the_pages_that_say_most_of_the_question_are_quoted_first():
    asked = "How many visitors came to the castle in spring?"
    pages = tuple(PageRef("a.pdf", number) for number in range(1, 6))
    hits = tuple(
        replace(HITS[0], document="a.pdf", page=page.page, score=0.9 - 0.01 * page.page)
        for page in pages
    )
    rows = {page: ["Visitors\t12"] for page in pages}
    rows[pages[3]] = ["Visitors of the castle in spring\t4,500"]
    order = [4, 1, 2]  # best of all, then as they were found
    assert [page.page for page in _quoting(rows, asked, pages, hits).pages] == [1, 2, 3, 4, 5]
    answer = finished(_quoting(rows, asked, pages, hits))
    assert [page.page for page in answer.pages] == order
    assert answer.key == Key(pages[3], "4,500", len("Visitors of the castle in spring "))
    every = finished(_quoting(rows, asked, pages, hits, n_pages=5))
    assert [page.page for page in every.pages] == [4, 1, 2, 3, 5], "as many as were asked for"
    told = {page: ["Visitors are welcome"] for page in pages}
    told[pages[3]] = ["The castle had many visitors in spring, as it had"]
    told = finished(_quoting(told, asked, pages, hits))
    assert [page.page for page in told.pages] == order, "also where nothing is asked for by name"
    around = tuple(replace(page, found=page.page != 3) for page in pages)
    rows = {page: rows[pages[page.page - 1]] for page in around}
    near = finished(_quoting(rows, asked, around, hits))
    assert [page.page for page in near.pages] == [4, 1, 2, 3], "neighbours were asked for"


@pytest.mark.parametrize(
    "other", ["The berth of the ferry", "berth\t6\t8"], ids=["a mention", "a row of figures"]
)
def test_the_page_that_explains_the_thing_is_quoted_first(other):
    explained = "The place where a ship lies is called a berth."
    rows = {FOUND[0]: [other], FOUND[1]: [explained], FOUND[2]: []}
    near = (HITS[0], replace(HITS[1], score=0.8))
    made = _quoting(rows, "What is a berth?", hits=near)
    assert [text for _, text in finished(made).quotations] == [explained, other.replace("\t", " ")]


def test_the_key_is_bold_in_a_terminal_and_plain_in_a_pipe(monkeypatch, capsys):
    rows = {FOUND[0]: ["Visitors 4,500"], FOUND[1]: [], FOUND[2]: []}
    _show(_quoting(rows))
    assert "Visitors 4,500\n" in capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    _show(_quoting(rows))
    assert "Visitors \x1b[1m4,500\x1b[0m\n" in capsys.readouterr().out


def test_the_json_has_a_key_only_where_there_is_one():
    rows = {FOUND[0]: ["Visitors 4,500"], FOUND[1]: [], FOUND[2]: []}
    found = answer_json(finished(_quoting(rows)))
    assert found["key"] == {"text": "4,500", "document": "a.pdf", "page": 2}
    assert "key" not in answer_json(finished(_quoting({page: [] for page in FOUND})))


def test_two_pages_that_say_as_much_have_no_key():
    rows = {FOUND[0]: ["Visitors 4,500"], FOUND[1]: ["Visitors 4,600"], FOUND[2]: []}
    assert finished(_quoting(rows)).key is None
    rows[FOUND[1]] = ["Visitors 4,500"]
    found = finished(_quoting(rows)).key
    assert found and found.text == "4,500"


def test_pages_of_the_conversation_are_quoted_only_where_they_speak_of_it():
    kept, best = PageRef("old.pdf", 9), FOUND[0]
    silent = finished(_quoting({kept: ["Nothing"], best: ["Visitors 4,500"]}, pages=(kept, best)))
    assert (silent.pages, silent.text) == ((best,), "Visitors 4,500")
    asked = Question("How many visitors?", kept=(kept,))
    both = finished(_quoting({kept: ["Visitors 12"], best: []}, asked, (kept, best)))
    assert both.quotations == ((kept, "Visitors 12"), (best, ""))


def test_pages_are_named_in_the_language_of_the_question():
    rows = {page: ["来訪者 12人"] for page in FOUND}
    assert "a.pdf 2ページ:\n来訪者 12人" in finished(_quoting(rows, "来訪者は何人ですか")).text


def test_a_stopped_quotation_reads_no_further_page():
    made = _quoting({})
    made.close()
    answer = finished(made)
    assert (answer.text, answer.pages, answer.stop_reason) == ("", (), "cancelled")


def test_pages_far_behind_the_best_are_not_quoted():
    hits = tuple(replace(HITS[0], score=score) for score in (0.9, 0.7, 0.6, 0.8, 0.9, 0.9))
    assert worth_quoting(hits) == (*hits[:2], *hits[3:5])
    assert worth_quoting(()) == ()
    below = tuple(replace(HITS[0], score=score) for score in (-0.5, -0.6))
    assert worth_quoting(below)[:1] == below[:1]


@pytest.mark.parametrize(
    ("question", "says"), [("How many visitors?", "See the page"), ("何人ですか", "ページをご覧")]
)
def test_without_such_words_the_page_itself_is_pointed_at(question, says):
    answer = finished(_quoting({page: [] for page in FOUND}, question))
    assert answer.text.startswith(says)
    assert answer.pages == FOUND[:1]
    assert not answer.abstained


def test_a_model_folder_says_how_it_is_asked(engine, given, tmp_path):
    assert Manner.load(tmp_path) == Manner()
    (tmp_path / "answer.json").write_text('{"pages": 1, "system": null, "max_new_tokens": 2}')
    assert Manner.load(tmp_path) == Manner(1, None, 2)
    engine.folder = tmp_path
    finished(stream(engine, max_new_tokens=None))
    assert given["system"] is None
    assert given["max_new_tokens"] == 2


@pytest.mark.parametrize("text", ["{", "[1]", '{"page": 1}', '{"pages": 0}', '{"pages": "two"}'])
def test_a_damaged_manner_names_its_file(tmp_path, text):
    (tmp_path / "answer.json").write_text(text)
    with pytest.raises(ModelFilesError, match=r"answer\.json"):
        Manner.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pages": 0}, "--pages is 0"),
        ({"neighbours": -1}, "--neighbours is -1"),
        ({"max_new_tokens": 0}, "--max-new-tokens is 0"),
    ],
)
def test_numbers_that_cannot_be_meant(options, says):
    with pytest.raises(UsageError, match=says):
        AnswerOptions(**options)
