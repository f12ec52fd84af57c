"""Every family gives what transformers gives, with the cache and without."""

import numpy as np
import pytest
from benchmarks.common import decoders

from treadle.language import LanguageModel

TOLERANCE = {"rtol": 2e-4, "atol": 5e-5}


@pytest.fixture(scope="module", params=decoders.SETTINGS)
def pair(request, tmp_path_factory):
    """A model of transformers, and the same one compiled from its folder."""
    theirs = decoders.decoder(request.param)
    folder = decoders.saved(theirs, tmp_path_factory.mktemp(request.param))
    return theirs, LanguageModel.load(folder, threads=1)


def tokens(seed, count):
    return np.random.default_rng(seed).integers(3, 99, count).tolist()


def test_logits_of_a_prompt_are_those_of_transformers(pair):
    theirs, ours = pair
    text = tokens(0, 37)
    cache = ours.new_cache(4)
    found = ours.step(cache.append([(cache.create(), text)], "all"))
    np.testing.assert_allclose(found, decoders.logits_of(theirs, text), **TOLERANCE)


def test_logits_with_the_cache_are_those_of_the_whole_text(pair):
    theirs, ours = pair
    text = tokens(1, 40)
    cache = ours.new_cache(4)
    sequence = cache.create()
    found = []
    for start, stop in ((0, 17), (17, 18), (18, 33), (33, 34), (34, 40)):
        found.append(ours.step(cache.append([(sequence, text[start:stop])], "all")))
    np.testing.assert_allclose(np.concatenate(found), decoders.logits_of(theirs, text), **TOLERANCE)


def test_ragged_batches_give_what_each_text_gives_alone(pair):
    theirs, ours = pair
    texts = [tokens(2, 5), tokens(3, 33), tokens(4, 18)]
    cache = ours.new_cache(10)
    sequences = [cache.create() for _ in texts]
    ours.step(cache.append(list(zip(sequences, (t[:-3] for t in texts), strict=True))))
    found = ours.step(
        cache.append(
            [(sequences[2], texts[2][-3:]), (sequences[0], texts[0][-3:]),
             (sequences[1], texts[1][-3:])]
        )
    )  # fmt: skip
    wanted = [decoders.logits_of(theirs, texts[i])[-1] for i in (2, 0, 1)]
    np.testing.assert_allclose(found, np.stack(wanted), **TOLERANCE)


def test_greedy_decoding_gives_the_tokens_of_transformers(pair):
    theirs, ours = pair
    text = tokens(5, 9)
    found = list(ours.generate(text, max_tokens=24, stop=()))
    assert found == decoders.continued(theirs, text, 24)


def test_a_model_is_compiled_once(pair, monkeypatch):
    _, ours = pair
    monkeypatch.setattr("treadle.language.model.compile", None)
    cache = ours.new_cache(20)
    for count in (1, 2, 15, 16, 17, 50):
        parts = [(cache.create(), tokens(i, count)) for i in range(2)]
        assert ours.step(cache.append(parts)).shape == (2, 99)
        for sequence, _ in parts:
            cache.release(sequence)
