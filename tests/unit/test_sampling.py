"""Choosing tokens, on scores a person can check; loops."""

import json

import numpy as np
import pytest

from models.errors import ModelFilesError
from models.sampling import Sampler, Sampling, is_looping

NO_PROMPT = np.array([], np.int64)
SCORES = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))


def chosen(sampling: Sampling, scores=SCORES, n=200) -> set[int]:
    """Every token that `n` seeds choose."""
    return {
        Sampler(Sampling(**{**vars(sampling), "seed": seed}), NO_PROMPT).choose(scores)
        for seed in range(n)
    }


def test_greedy_takes_the_likeliest():
    assert Sampler(Sampling(), NO_PROMPT).choose(SCORES) == 1


@pytest.mark.parametrize("sampling", [Sampling(True, top_k=1), Sampling(True, temperature=0)])
def test_sampling_that_leaves_one_choice_is_greedy(sampling):
    assert chosen(sampling) == {1}


@pytest.mark.parametrize(("top_k", "wanted"), [(2, {1, 3}), (3, {1, 2, 3}), (0, {0, 1, 2, 3})])
def test_top_k_keeps_the_k_likeliest(top_k, wanted):
    assert chosen(Sampling(True, top_k=top_k)) == wanted


@pytest.mark.parametrize(
    ("top_p", "wanted"),
    [(0.0, {1}), (0.39, {1}), (0.41, {1, 3}), (0.71, {1, 2, 3}), (1.0, {0, 1, 2, 3})],
)
def test_top_p_keeps_the_fewest_that_reach_p(top_p, wanted):
    assert chosen(Sampling(True, top_p=top_p)) == wanted


def test_top_p_looks_at_what_top_k_left():
    """0.4 / 0.7 = 0.57 of what top-k left already reach 0.5; of all tokens they would not."""
    assert chosen(Sampling(True, top_k=2, top_p=0.5)) == {1}
    assert chosen(Sampling(True, top_p=0.5)) == {1, 3}


def test_temperature_divides_the_scores():
    """At a temperature of 2, 0.64 and 0.36 become 0.8 and 0.6, that is 4 in 7."""
    scores = np.log(np.array([0.64, 0.36], np.float32))
    sampler = Sampler(Sampling(True, temperature=2.0, seed=7), NO_PROMPT)
    share = np.mean([sampler.choose(scores) == 0 for _ in range(4000)])
    assert abs(share - 4 / 7) < 0.024  # three standard deviations


def test_a_seed_gives_the_same_tokens_again():
    first, second, other = (
        [sampler.choose(SCORES) for _ in range(40)]
        for sampler in (Sampler(Sampling(True, seed=seed), NO_PROMPT) for seed in (5, 5, 6))
    )
    assert first == second != other


def test_repetition_penalty_is_that_of_transformers():
    """RepetitionPenaltyLogitsProcessor: where(score < 0, score * penalty, score / penalty)."""
    scores = np.array([3.0, 2.0, -1.0, -1.2], np.float32)
    found = Sampler(Sampling(repetition_penalty=2.0), np.array([0, 2, 2]))._penalised(scores)
    assert found.tolist() == [1.5, 2.0, -2.0, np.float32(-1.2)]
    assert scores[0] == 3.0, "the caller's logits are not touched"


def test_repetition_penalty_counts_the_prompt_and_what_was_generated():
    sampler = Sampler(Sampling(repetition_penalty=2.0), np.array([0]))
    scores = np.array([3.0, 2.5, 2.0], np.float32)
    assert [sampler.choose(scores) for _ in range(3)] == [1, 2, 0]


def test_generation_config(tmp_path):
    path = tmp_path / "generation_config.json"
    assert Sampling.from_file(path) == Sampling()
    values = {"do_sample": True, "temperature": 0.01, "top_k": 1, "top_p": 0.001}
    path.write_text(json.dumps(values | {"repetition_penalty": 1.05, "eos_token_id": 3}))
    assert Sampling.from_file(path) == Sampling(**values, repetition_penalty=1.05)


def test_zero_in_generation_config_is_not_taken_for_absent(tmp_path):
    """`or 1.0` made greedy (temperature 0) into sampling at a temperature of 1."""
    path = tmp_path / "generation_config.json"
    path.write_text('{"do_sample": true, "temperature": 0, "top_p": 0, "top_k": null}')
    assert Sampling.from_file(path) == Sampling(True, temperature=0, top_p=0)


@pytest.mark.parametrize("wrong", ['{"top_p": "high"}', '{"repetition_penalty": 0}', "[]"])
def test_a_wrong_generation_config_names_its_file(tmp_path, wrong):
    path = tmp_path / "generation_config.json"
    path.write_text(wrong)
    with pytest.raises(ModelFilesError, match=r"generation_config\.json"):
        Sampling.from_file(path)


@pytest.mark.parametrize("period", [1, 2, 3, 7, 20, 32])
def test_a_true_loop_is_seen_and_only_after_128_tokens_and_4_rounds(period):
    loop = [*range(100, 130), *(n % period for n in range(400))]
    first = next(n for n in range(len(loop)) if is_looping(loop[:n])) - 30
    assert 128 <= first < 128 + period


def test_rows_of_zeros_in_a_table_are_no_loop():
    row = [1, 2, 1, 2, 1, 2, 3]  # `| 0 | 0 | 0 |`
    assert not is_looping([5, 6, 7, *row * 18])
    numbered = [token for n in range(40) for token in (100 + n, *row)]
    assert not is_looping(numbered)


def test_a_loop_that_ended_is_none():
    assert is_looping([1] * 128)
    assert not is_looping([1] * 128 + [2])
