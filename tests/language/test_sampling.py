"""Tokens are drawn from what the options leave, with the right frequencies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.base.errors import LanguageModelError
from treadle.language import Sampler, Sampling
from treadle.language.sampling import candidates

LOGITS = np.log(np.array([0.1, 0.4, 0.05, 0.3, 0.15], np.float32))


def left(**options):
    tokens, weights = candidates(LOGITS.astype(np.float64), Sampling(1.0, **options))
    return tokens.tolist(), weights


def test_without_temperature_the_likeliest_token_is_taken():
    assert Sampler().next(LOGITS) == 1


def test_top_k_keeps_the_likeliest():
    tokens, weights = left(top_k=2)
    assert tokens == [1, 3]
    np.testing.assert_allclose(weights, [4 / 7, 3 / 7], rtol=1e-6)


def test_top_p_keeps_the_fewest_that_reach_it():
    assert left(top_p=0.6)[0] == [1, 3]
    assert left(top_p=0.75)[0] == [1, 3, 4]
    assert left(top_p=1e-9)[0] == [1]


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0, 10.0])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.9999])
def test_top_p_of_many_tokens_is_that_of_all_in_order(spread, share):
    scores = np.random.default_rng(1).standard_normal(6000) * spread
    tokens, weights = candidates(scores, Sampling(1.0, top_p=share))
    order = np.sort(np.exp(scores))[::-1]
    count = int(np.searchsorted(np.cumsum(order) / order.sum(), share)) + 1
    assert abs(len(tokens) - count) <= 1
    np.testing.assert_allclose(weights, order[: len(tokens)] / order[: len(tokens)].sum())


def test_min_p_is_relative_to_the_likeliest():
    assert left(min_p=0.3)[0] == [1, 3, 4]
    assert left(min_p=1.0)[0] == [1]


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    st.none() | st.integers(1, 50),
    st.none() | st.floats(0.01, 1),
    st.none() | st.floats(0, 1),
)
def test_what_is_left_is_a_distribution_of_the_likeliest(scores, top_k, top_p, min_p):
    array = np.array(scores, np.float64)
    tokens, weights = candidates(array, Sampling(1.0, top_k, top_p, min_p))
    assert len(set(tokens.tolist())) == len(tokens) >= 1
    assert abs(weights.sum() - 1) < 1e-9
    assert (np.diff(weights) <= 1e-12).all()
    rest = np.delete(array, tokens)
    assert not rest.size or rest.max() <= array[tokens].min()


def test_frequencies_are_the_probabilities():
    sampler = Sampler(Sampling(1.0, seed=3))
    drawn = np.bincount([sampler.next(LOGITS) for _ in range(4000)], minlength=5) / 4000
    np.testing.assert_allclose(drawn, np.exp(LOGITS), atol=0.03)


def test_temperature_sharpens():
    sampler = Sampler(Sampling(0.1, seed=3))
    drawn = [sampler.next(LOGITS) for _ in range(200)]
    assert drawn.count(1) > 180


def test_the_same_seed_gives_the_same_tokens():
    draws = [[s.next(LOGITS) for _ in range(50)] for s in map(Sampler, [Sampling(1.0, seed=7)] * 2)]
    assert draws[0] == draws[1]


def test_a_penalty_makes_tokens_that_came_before_less_likely():
    sampler = Sampler(Sampling(repetition_penalty=3.0), history=[1])
    assert [sampler.next(LOGITS) for _ in range(2)] == [3, 4]


def test_logits_are_not_changed():
    before = LOGITS.copy()
    Sampler(Sampling(1.0, 2, 0.5, 0.1, 2.0, 0), [0, 1]).next(LOGITS)
    assert (before == LOGITS).all()


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0},
        {"top_p": 1.1}, {"min_p": -0.1}, {"repetition_penalty": 0.0}, {"seed": -1},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(options):
    with pytest.raises(LanguageModelError) as caught:
        Sampling(**options)
    assert caught.value.code == "E0920"
