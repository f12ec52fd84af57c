"""T5 and Whisper write what transformers writes; a source is read once."""

import numpy as np
import pytest
import torch
from benchmarks.common import torchvision_operators  # noqa: F401  (before transformers)

from treadle.base.errors import LanguageModelError
from treadle.language.config import Relative
from treadle.language.pair import EncoderDecoder
from treadle.language.positions import buckets

from transformers import (  # isort: skip
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from transformers.models.t5.modeling_t5 import T5Attention  # isort: skip

TOLERANCE = {"rtol": 5e-4, "atol": 2e-4}


def shaken(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


def t5(kind="relu", tied=True):
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=60, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        relative_attention_max_distance=20, relative_attention_num_buckets=12,
        feed_forward_proj=kind, decoder_start_token_id=0, tie_word_embeddings=tied,
    )  # fmt: skip
    return shaken(T5ForConditionalGeneration(config))


def whisper():
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=40, max_source_positions=21,
        max_target_positions=40, num_mel_bins=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, init_std=0.2,
    )  # fmt: skip
    return shaken(WhisperForConditionalGeneration(config))


def load(theirs, folder):
    theirs.save_pretrained(folder)
    return EncoderDecoder.load(folder, threads=1)


@pytest.fixture(scope="module", params=["relu", "gated-gelu"])
def text_pair(request, tmp_path_factory):
    theirs = t5(request.param)
    return theirs, load(theirs, tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def sound_pair(tmp_path_factory):
    theirs = whisper()
    return theirs, load(theirs, tmp_path_factory.mktemp("whisper"))


def logits(theirs, source, tokens):
    source = torch.as_tensor(source)[None]
    with torch.no_grad():
        return theirs(source, decoder_input_ids=torch.tensor([tokens])).logits[0].numpy()


def written(theirs, source, count):
    tokens = [theirs.config.decoder_start_token_id]
    for _ in range(count):
        tokens.append(int(logits(theirs, source, tokens)[-1].argmax()))
    return tokens[1:]


def check_ragged_texts(theirs, ours, sources):
    """Logits of texts of different lengths on different sources, in steps of different sizes."""
    random = np.random.default_rng(2)
    texts = [random.integers(3, 60, n).tolist() for n in (30, 3, 18)]
    cache = ours.new_cache(8, 16)
    sequences = ours.read(cache, sources)
    parts = list(zip(sequences, texts, strict=True))
    ours.step(cache, cache.texts.append([(s, t[:-2]) for s, t in parts]))
    found = ours.step(cache, cache.texts.append([(s, t[-2:]) for s, t in parts], "all"))
    wanted = [logits(theirs, source, t)[-2:] for source, t in zip(sources, texts, strict=True)]
    np.testing.assert_allclose(found, np.concatenate(wanted), **TOLERANCE)
    other = cache.fork(sequences[0])
    for s in (*sequences, other):
        cache.release(s)
    assert (cache.texts.free_pages, cache.free_source_pages) == (8, 16)


def test_texts_on_texts_have_the_logits_of_transformers(text_pair):
    random = np.random.default_rng(1)
    check_ragged_texts(*text_pair, [random.integers(3, 60, n) for n in (5, 50, 17)])


def test_texts_on_sound_have_the_logits_of_transformers(sound_pair):
    random = np.random.default_rng(1)
    sources = [random.standard_normal((8, 42)).astype(np.float32) for _ in range(3)]
    check_ragged_texts(*sound_pair, sources)


def test_t5_writes_the_tokens_of_transformers(text_pair):
    theirs, ours = text_pair
    sources = [[5, 6, 7, 8], list(range(3, 40))]
    found = ours.generate(sources, max_tokens=24, stop=())
    assert found == [written(theirs, s, 24) for s in sources]


def test_whisper_writes_the_tokens_of_transformers(sound_pair):
    theirs, ours = sound_pair
    source = np.random.default_rng(5).standard_normal((8, 42)).astype(np.float32)
    assert ours.generate([source], max_tokens=20, stop=()) == [written(theirs, source, 20)]


def test_what_does_not_fit_is_refused(text_pair, sound_pair):
    for code, ours, source in (
        ("E0916", text_pair[1], []),
        ("E0924", text_pair[1], [60]),
        ("E0925", sound_pair[1], np.zeros((8, 41), np.float32)),
    ):
        with pytest.raises(LanguageModelError) as caught:
            ours.generate([source])
        assert caught.value.code == code
    cache = text_pair[1].new_cache(2, 2)
    with pytest.raises(LanguageModelError) as caught:
        text_pair[1].read(cache, [[3] * 20, [3] * 20])
    assert (caught.value.code, cache.free_source_pages) == ("E0921", 2)


@pytest.mark.parametrize(("count", "farthest"), [(32, 128), (12, 20), (64, 256)])
def test_distances_fall_into_the_buckets_of_transformers(count, farthest):
    relative = Relative(count, farthest)
    back = T5Attention._relative_position_bucket(
        -torch.arange(farthest + 1), False, count, farthest
    )
    assert buckets(relative, False).tolist() == back.tolist()
    both = T5Attention._relative_position_bucket(
        torch.arange(-farthest, farthest + 1), True, count, farthest
    )
    assert buckets(relative, True).tolist() == both.tolist()
