"""Generation, from any kind of weights, with text at both ends."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer as Encoder
from tokenizers import decoders, models, pre_tokenizers
from typer.testing import CliRunner

from treadle.base.errors import LanguageModelError, RuntimeFault
from treadle.cli import app
from treadle.expr.dtype import bf16, f16, f32
from treadle.language import LanguageModel, Sampling
from treadle.language.decoder import decoder_module
from treadle.language.families import read_config
from treadle.language.model import pack_weights
from treadle.language.quantize import dequantized
from treadle.language.tokenizer import Tokenizer
from treadle.language.weights import matrices, random_weights
from treadle.ops import PagedAttention

SETTINGS = {
    "model_type": "llama", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "initializer_range": 0.3,
}  # fmt: skip
PROMPT = list(range(5, 45))


def bytes_encoder():
    """A token for each byte."""
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    encoder = Encoder(models.BPE(vocabulary, []))
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    return encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    bytes_encoder().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "bos_token": {"content": "<s>"},
                "chat_template": "{{ bos_token }}{% for m in messages %}"
                "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
                "[{{ m.role }}]{{ m.content }}\n{% endfor %}"
                "{% if add_generation_prompt %}[assistant]{% endif %}",
            }
        )
    )
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return LanguageModel.load(folder, random=True, threads=1)


def test_chunks_of_the_prompt_change_nothing(model):
    whole = list(model.generate(PROMPT, max_tokens=12))
    assert len(whole) == 12
    for chunk in (1, 7, 16, 39, 40):
        assert list(model.generate(PROMPT, max_tokens=12, chunk=chunk)) == whole


def test_a_cache_keeps_the_prompt_for_the_next_time(model):
    cache = model.new_cache(8)
    first = list(model.generate(PROMPT, max_tokens=5, cache=cache))
    assert cache.free_pages == 8
    batch = cache.append([(cache.create(), PROMPT)])
    assert len(batch.tokens) == len(PROMPT) - 32
    assert list(model.generate(PROMPT, max_tokens=5, cache=model.new_cache(8))) == first


def test_generation_ends_at_a_stop_token_and_at_the_last_position(model):
    tokens = list(model.generate(PROMPT, max_tokens=20))
    assert (
        list(model.generate(PROMPT, max_tokens=20, stop=[tokens[6]]))
        == (tokens[: tokens.index(tokens[6])])
    )
    assert len(list(model.generate([1] * 250, max_tokens=100))) == 7


def test_generation_that_is_left_gives_its_pages_back(model):
    cache = model.new_cache(8)
    steps = model.generate(PROMPT, max_tokens=20, cache=cache)
    next(steps)
    assert cache.free_pages < 8
    steps.close()
    assert cache.free_pages == 8


def test_the_same_seed_gives_the_same_text(model):
    sampling = Sampling(1.0, top_p=0.9, seed=4)
    texts = ["".join(model.stream("hello", sampling=sampling, max_tokens=9)) for _ in range(2)]
    assert texts[0] == texts[1]


def test_streamed_text_is_that_of_all_tokens(model):
    tokens = model.tokenizer.encode("één → ☃")
    stream = model.tokenizer.stream()
    pieces = [stream.add(t) for t in tokens]
    assert "".join(pieces) == "één → ☃" == model.tokenizer.decode(tokens)
    assert "" in pieces


@pytest.mark.parametrize(("threads", "together"), [(1, 6), (2, 3), (3, 2), (4, 1), (100, 1)])
def test_as_many_heads_go_together_as_leave_work_for_all_threads(threads, together):
    heads = {"num_attention_heads": 6, "num_key_value_heads": 6, "hidden_size": 96}
    config = read_config({**SETTINGS, **heads})
    module = decoder_module(config, random_weights(config), threads=threads)
    found = [b.op for b in module.graph("main").body if isinstance(b.op, PagedAttention)]
    assert [op.together for op in found] == [together] * config.layers


def test_the_cache_stays_where_it_is(model):
    cache = model.new_cache(4)
    before = [id(a) for a in cache.arrays]
    model.step(cache.append([(cache.create(), PROMPT)]))
    assert [id(a) for a in cache.arrays] == before


@pytest.mark.parametrize("kind", ["bf16", "int8", "int4"])
def test_narrow_weights_give_the_logits_of_the_values_that_they_stand_for(model, kind):
    config = model.config
    packed = pack_weights(config, random_weights(config), kind)
    assert {*matrices(config)} - {"embedding.weight"} <= {
        n for n, w in packed.items() if not isinstance(w, np.ndarray) or w.dtype != np.float32
    }
    wide = {
        name: np.asarray(w, np.float32) if isinstance(w, np.ndarray) else dequantized(w)
        for name, w in packed.items()
    }
    found, wanted = (
        m.step(c.append([(c.create(), PROMPT)], "all"))
        for m in (LanguageModel(config, w, threads=1) for w in (packed, wide))
        for c in [m.new_cache(4)]
    )
    # Rows that meet bf16 are rounded to it.
    close = 2e-2 if kind == "bf16" else 1e-4
    assert np.linalg.norm(found - wanted) <= close * np.linalg.norm(wanted)


@pytest.mark.parametrize("kept", ["bf16", "f16"])
def test_narrow_caches_give_about_the_logits_of_wide_ones(model, kept):
    narrow = LanguageModel.load(SETTINGS, cache_format=kept, threads=1)
    found = []
    for m in (narrow, model):
        cache = m.new_cache(4)
        sequence = cache.create()
        m.step(cache.append([(sequence, PROMPT)]))
        found.append(m.step(cache.append([(sequence, [3])])))
    assert cache.nbytes == 2 * narrow.new_cache(4).nbytes
    close = {"bf16": 2e-2, "f16": 3e-3}[kept]
    assert 0 < np.linalg.norm(found[0] - found[1]) <= close * np.linalg.norm(found[1])


@pytest.mark.parametrize(
    ("weights", "kept"), [("f32", f32), ("bf16", bf16), ("int8", f16), ("int4", f16)]
)
def test_caches_are_kept_as_the_weights_suggest(weights, kept):
    model = LanguageModel.load(SETTINGS, weights=weights, threads=1)
    assert model.kept == kept
    assert {a.dtype for a in model.new_cache(1).arrays} == {kept.numpy}


def test_narrow_weights_stay_narrow_in_memory(model):
    narrow = LanguageModel.load(SETTINGS, weights="int4", threads=1)
    found, wanted = (sum(a.nbytes for a in m.executable._constants) for m in (narrow, model))
    assert found < wanted * 0.6


def test_conversations_become_prompts_by_the_template(model):
    tokenizer = model.tokenizer
    tokens = tokenizer.chat([{"role": "user", "content": "hi"}])
    assert tokenizer.decode(tokens) == "<s>[user]hi\n[assistant]"
    with pytest.raises(LanguageModelError, match="no system"):
        tokenizer.chat([{"role": "system", "content": "hi"}])


def test_text_needs_a_tokenizer_and_a_prompt_needs_tokens(model):
    with pytest.raises(LanguageModelError) as caught:
        model.tokens_of("")
    assert caught.value.code == "E0916"
    with pytest.raises(LanguageModelError) as caught:
        Tokenizer(bytes_encoder()).chat([])
    assert caught.value.code == "E0915"


def test_the_command_line_continues_a_prompt(folder, model):
    wanted = list(model.generate("hello", max_tokens=6))
    common = ["generate", str(folder), "--random-weights", "--threads", "1", "--max-tokens", "6"]
    text = ",".join(map(str, model.tokenizer.encode("hello")))
    result = CliRunner().invoke(app, [*common, "--tokens", text])
    assert [int(t) for t in result.stdout.split()] == wanted
    assert "prompt: 5 tokens" in result.stderr
    result = CliRunner().invoke(app, [*common, "--prompt", "hello"])
    assert result.exit_code == 0
    assert CliRunner().invoke(app, [*common, "--tokens", "1,x"]).exit_code == 1


def test_a_text_s_vector_is_the_mean_of_its_hidden_states(model):
    cache = model.new_cache(4)
    logits = model.step(cache.append([(cache.create(), PROMPT)], "all"))
    vector = model.embed(PROMPT)
    # The head is linear: the mean of the logits is the head's result of the mean.
    head = random_weights(model.config)["head.weight"]
    np.testing.assert_allclose(head @ vector, logits.mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.embed(PROMPT, chunk=7), vector, rtol=1e-5, atol=1e-5)


def test_what_ends_a_text_is_read_where_generation_is_set_up(folder, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**SETTINGS, "eos_token_id": 3}))
    assert LanguageModel.load(tmp_path, random=True, threads=1).config.end_tokens == (3,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 7]}))
    assert LanguageModel.load(tmp_path, random=True, threads=1).config.end_tokens == (3, 7)


def alone(model, tokens):
    """The logits after a text, without anything in the cache."""
    cache = model.new_cache(16, share=False)
    return model.step(cache.append([(cache.create(), tokens)]))[0]


def test_forks_go_on_by_themselves(model):
    cache = model.new_cache(16)
    first = cache.create()
    model.step(cache.append([(first, PROMPT)]))
    second = cache.fork(first)
    third = cache.fork(first)
    found = model.step(cache.append([(third, [7, 8]), (first, [9]), (second, [10] * 20)]))
    wanted = [alone(model, PROMPT + new) for new in ([7, 8], [9], [10] * 20)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_tokens_that_were_taken_back_leave_no_trace(model):
    cache = model.new_cache(16)
    sequence = cache.create()
    model.step(cache.append([(sequence, PROMPT)]))
    other = cache.fork(sequence)
    cache.pop(sequence, 13)
    found = model.step(cache.append([(sequence, [99, 98]), (other, [97])]))
    wanted = [alone(model, [*PROMPT[:-13], 99, 98]), alone(model, [*PROMPT, 97])]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_shared_beginnings_give_what_each_text_gives_alone(model):
    cache = model.new_cache(16)
    texts = [PROMPT, [*PROMPT[:33], 1, 2, 3], PROMPT[:16] + [4] * 20]
    for text in texts:
        batch = cache.append([(cache.create(), text)])
        np.testing.assert_allclose(model.step(batch)[0], alone(model, text), rtol=1e-4, atol=1e-4)


def test_weights_are_in_memory_once(model, tmp_path):
    assert not model.executable.module.constants
    with pytest.raises(RuntimeFault) as caught:
        model.executable.save(tmp_path / "model.treadle")
    assert caught.value.code == "E0715"
    assert not list(tmp_path.iterdir())
