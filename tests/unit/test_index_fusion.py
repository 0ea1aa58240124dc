"""Fusing two rankings: never below the better one, and a probability that means something."""

import json

import numpy as np
import pytest

from index.errors import FilterError
from index.fusion import (
    DEFAULT,
    UNKNOWN_TEXT,
    Fusion,
    Matches,
    Signals,
    background,
    fit,
    ideal_bm25,
    known_share,
    sharpen,
    stand_in,
)
from index.maxsim import chance

VISUAL, TEXT = Fusion(0, 1, 0, 0), Fusion(0, 0, 1, 0)


def questions(generator, n, visual, text):
    """Candidates of n questions; the relevant one stands out by so many deviations."""
    made = []
    for _ in range(n):
        relevant = np.arange(30) == generator.integers(0, 30)
        scores = generator.standard_normal((2, 30)) + np.outer([visual, text], relevant)
        signals = Signals(scores[0], np.clip(0.2 + scores[1] / 12, 0, 1))
        made.append((signals, relevant))
    return made


def hits_at_1(fusion, data):
    return sum(relevant[fusion.logits(signals).argmax()] for signals, relevant in data)


@pytest.mark.parametrize(("visual", "text"), [(3, 0), (0, 3), (3, 3), (4, 1), (1, 4)])
def test_fitted_fusion_is_not_worse_than_the_better_ranking(visual, text):
    generator = np.random.default_rng([visual, text])
    fitted = fit(questions(generator, 80, visual, text))
    held_out = questions(generator, 300, visual, text)
    alone = [hits_at_1(weights, held_out) for weights in (VISUAL, TEXT)]
    noise = 2 * np.sqrt(300 * 0.25) * 0.5  # about two standard errors of a paired difference
    assert hits_at_1(fitted, held_out) >= max(alone) - noise
    assert fitted.visual >= 0 and fitted.text >= 0


def test_the_threshold_tells_answered_from_unanswered_questions():
    generator = np.random.default_rng(0)
    answered = questions(generator, 120, 6, 6)
    unanswered = [(s, np.zeros(30, bool)) for s, _ in questions(generator, 120, 0, 0)]
    fitted = fit(answered[:50] + unanswered[:50])

    def says_yes(data):
        tops = [fitted.probabilities(fitted.logits(signals)).max() for signals, _ in data]
        return np.mean([fitted.answers(top) for top in tops])

    assert says_yes(answered[50:]) > 0.9
    assert says_yes(unanswered[50:]) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_sees_nothing_leaves_the_text_ranking_alone(seed):
    """Without fitting: random visual scores, whatever their scale, cost at most noise."""
    generator = np.random.default_rng(seed)
    data = questions(generator, 200, 0, 4)
    text = hits_at_1(TEXT, data)
    assert hits_at_1(DEFAULT, data) >= text - 6


def test_a_model_that_sees_well_finds_what_no_word_finds():
    generator = np.random.default_rng(0)
    data = questions(generator, 200, 7, 0)
    assert hits_at_1(DEFAULT, data) >= hits_at_1(VISUAL, data) - 6


def test_pages_without_text_stand_where_their_images_stand():
    text = np.array([0.9, 0.5, 0.3, 0.0, 0.0, 0.6])
    visual = np.array([1.0, 2.0, 0.5, 3.0, 0.1, 0.2])
    incomplete = np.array([0, 0, 0, 1, 1, 1], bool)
    # ranks by image: 3, 1, 0, 2, 5, 4; complete texts fall 0.9, 0.5, 0.3, then by rank
    sixth = UNKNOWN_TEXT / 6
    assert stand_in(text, visual, incomplete).tolist() == [0.9, 0.5, 0.3, 0.9, sixth, 0.6]
    assert stand_in(text, visual, np.zeros(6, bool)).tolist() == text.tolist()
    # no text at all: the best image is still enough for an answer, the others are not
    expected = [UNKNOWN_TEXT, UNKNOWN_TEXT / 3, 0.6]
    assert stand_in(text[3:], visual[3:], incomplete[3:]).tolist() == expected
    enough, *_ = DEFAULT.logits(Signals(np.zeros(3), np.array([UNKNOWN_TEXT, 0, 0])))
    assert DEFAULT.answers(DEFAULT.probabilities(enough))
    (nothing,) = DEFAULT.logits(Signals(*np.zeros((2, 1))))
    assert not DEFAULT.answers(DEFAULT.probabilities(nothing))


def matches(best, by_chance=0.0):
    best = np.array(best, np.float32)
    return Matches(best, np.zeros(best.shape[1]) + by_chance)


def test_sharpened_matches_prefer_a_full_one_to_two_halves():
    others = matches(np.full((2, 5), 0.5))  # what any page has
    found = matches([[1.0, 0.8, 0.5], [0.5, 0.8, 0.5]])
    full, halves, nothing = sharpen(found, others, 2)
    assert np.allclose([full, halves, nothing], [np.sqrt(1 / 2), 0.6, 0])
    linear = sharpen(found, others, 1)
    assert linear.argmax() == found.best.sum(0).argmax() == 1
    for few in (matches(np.zeros((2, 0))), matches(np.ones((2, 5)))):  # an index without pages
        assert np.isfinite(sharpen(found, few, 2)).all()


def test_words_that_many_pages_show_weigh_less():
    others = np.full((2, 9), 0.5)
    others[0, :4] = 0.9
    common, rare = sharpen(matches([[0.9, 0.5], [0.5, 0.9]]), matches(others), 2)
    weights = np.log1p([5.5 / 4.5, 9.5 / 0.5])
    assert np.allclose([common, rare], 0.8 * np.sqrt(weights / weights.sum()))


def test_what_a_long_page_matches_by_chance_does_not_count():
    generator = np.random.default_rng(5)
    lengths = generator.integers(200, 4000, 400)

    def units(n):
        found = generator.normal(size=(n, 64)).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    query = units(12)
    best = np.stack([(query @ units(n).T).max(1) for n in lengths], axis=1)

    def leaning(found):  # of the scores to longer pages
        return np.corrcoef(sharpen(found, found, 1), np.log(lengths))[0, 1]

    assert leaning(matches(best)) > 0.6
    assert abs(leaning(matches(best, chance(lengths, 64)))) < 0.35
    assert np.allclose(chance(lengths, 64), best.mean(0), rtol=0.2)  # what unrelated pages have


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_hybrid_finds_pages_with_text_and_pages_without(share):
    """Without fitting, and whichever kind is the larger: never far below the better ranking."""
    generator = np.random.default_rng(round(10 * share))
    found = {True: [], False: []}
    for signals, relevant in questions(generator, 400, 3, 5):
        incomplete = generator.random(30) < share
        own = np.where(incomplete, 0, signals.text)
        fused = DEFAULT.logits(Signals(signals.visual, stand_in(own, signals.visual, incomplete)))
        is_unread = bool(incomplete[relevant][0])
        best = signals.visual if is_unread else own
        first, alone = (relevant[np.argsort(-score)[:2]].any() for score in (fused, best))
        found[is_unread].append((first, alone))
    for pairs in found.values():
        fused_rate, alone_rate = np.mean(pairs, axis=0)
        assert fused_rate >= alone_rate - 0.1, share


def test_the_background_is_not_moved_by_the_pages_that_answer():
    ordinary = np.linspace(0.4, 0.6, 101)
    middle, spread = background(np.append(ordinary, [0.99, 0.98]))
    assert middle == pytest.approx(0.5, abs=0.01)
    assert spread == pytest.approx(0.05 * 1.4826, abs=0.005)
    assert background(np.zeros(0))[1] > 0


def test_a_few_pages_say_little_about_the_spread():
    """One page of seven in the language of the question does not stand out by twenty deviations."""
    scores = np.array([0.54, 0.30, 0.30, 0.30, 0.29, 0.27, 0.26])
    middle, spread = background(scores)
    assert (scores[0] - middle) / spread < 4
    many = np.tile(scores[1:], 200)
    assert background(many)[1] < spread / 2


def test_weights_survive_their_file():
    assert Fusion.from_json(DEFAULT.to_json()) == DEFAULT


@pytest.mark.parametrize("text", ["[]", "{", json.dumps({"visual": 1}), '{"visual": "x"}'])
def test_a_file_of_other_weights_is_refused(text):
    with pytest.raises(FilterError, match="fusion weights"):
        Fusion.from_json(text)


def test_a_file_from_before_sharpness_is_read_and_a_senseless_one_refused():
    values = json.loads(DEFAULT.to_json())
    del values["sharpness"]
    assert Fusion.from_json(json.dumps(values)) == DEFAULT
    for wrong in (0, -1, "Infinity", "nan"):
        with pytest.raises(FilterError, match="sharpness"):
            Fusion.from_json(json.dumps(values | {"sharpness": wrong}))


def test_ideal_bm25_of_numbers_a_person_can_check():
    rarity = np.log((100 - 1 + 0.5) / (1 + 0.5))
    assert ideal_bm25(100, [1, 90]) == pytest.approx(2.2 * (rarity + 1e-6))


def test_an_unknown_word_weighs_as_much_as_a_rare_one_and_a_name_more():
    assert known_share(100, [1, 1], [False, True]) == 1
    assert known_share(100, [1, 0], [True, False]) == pytest.approx(0.5)
    assert known_share(100, [1, 0], [False, True]) == pytest.approx(0.25)
    assert known_share(1, [1, 1, 1, 0], 4 * [False]) == pytest.approx(0.75)
    assert known_share(1000, [900, 0], 2 * [False]) < 0.05
