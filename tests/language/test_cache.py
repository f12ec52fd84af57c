"""The cache holds what was appended, whatever sequences share, take back and give back."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import LanguageModelError
from treadle.language import PagedCache, read_config

GPT2 = {
    "model_type": "gpt2", "vocab_size": 50, "n_embd": 4, "n_layer": 1, "n_head": 2,
    "n_positions": 4096,
}  # fmt: skip
MISTRAL = {
    "model_type": "mistral", "vocab_size": 50, "hidden_size": 4, "intermediate_size": 4,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    "sliding_window": 20,
}  # fmt: skip
TEXT = list(range(1, 49))


def new_cache(pages, values=GPT2, **options):
    return PagedCache(read_config(values), pages, **options)


def run(cache, batch):
    """A step that writes each token's number where its key and value belong."""
    keys, values = cache.arrays
    for token, slot in zip(batch.tokens, batch.slots, strict=True):
        keys[slot // 16, :, :, slot % 16] = token
        values[slot // 16, :, slot % 16] = token
    cache.complete(batch, cache.arrays)


def append(cache, sequence, tokens, wanted="last"):
    batch = cache.append([(sequence, tokens)], wanted)
    run(cache, batch)
    return batch


def held(cache, sequence, first=0):
    """The tokens that the cache holds for a sequence."""
    keys, values = cache.arrays
    places = range(first, sequence.length)
    found = [keys[sequence.pages[i // 16], 0, 0, i % 16] for i in places]
    assert found == [values[sequence.pages[i // 16], 0, i % 16, 0] for i in places]
    return [int(x) for x in found]


def refused(code, function, *args):
    with pytest.raises(LanguageModelError) as caught:
        function(*args)
    assert caught.value.code == code


def test_a_batch_says_where_each_token_is_and_goes():
    cache = new_cache(8)
    a, b = cache.create(), cache.create()
    append(cache, a, TEXT[:17])
    batch = cache.append([(b, [40, 41]), (a, [30])], ["all", "last"])
    assert batch.tokens.tolist() == [40, 41, 30]
    assert batch.positions.tolist() == [0, 1, 17]
    assert batch.sequences.tolist() == [0, 0, 1]
    assert batch.wanted.tolist() == [0, 1, 2]
    assert batch.table.tolist() == [[b.pages[0], 0], a.pages]
    assert batch.slots.tolist() == [b.pages[0] * 16, b.pages[0] * 16 + 1, a.pages[1] * 16 + 1]


def test_equal_beginnings_are_computed_once_even_after_their_release():
    cache = new_cache(8)
    first, second = cache.create(), cache.create()
    append(cache, first, TEXT[:40])
    batch = append(cache, second, TEXT[:40])
    assert batch.positions.tolist() == list(range(32, 40))
    assert second.pages[:2] == first.pages[:2]
    cache.release(first)
    cache.release(second)
    assert cache.free_pages == 8
    third = cache.create()
    assert len(append(cache, third, TEXT[:33]).tokens) == 1
    assert held(cache, third) == TEXT[:33]


def test_the_last_token_is_always_computed():
    cache = new_cache(8)
    append(cache, cache.create(), TEXT[:32])
    assert len(append(cache, cache.create(), TEXT[:32]).tokens) == 16


def test_all_tokens_are_computed_where_all_are_wanted():
    cache = new_cache(8)
    append(cache, cache.create(), TEXT[:40])
    assert len(append(cache, cache.create(), TEXT[:40], "all").tokens) == 40


def test_a_chunk_is_shared_after_a_shared_chunk():
    cache = new_cache(8)
    append(cache, cache.create(), TEXT)
    sequence = cache.create()
    assert len(append(cache, sequence, TEXT[:17], "none").tokens) == 1
    assert len(append(cache, sequence, TEXT[17:]).tokens) == 31
    assert held(cache, sequence) == TEXT


def test_a_shared_page_is_copied_before_it_changes():
    cache = new_cache(8)
    a = cache.create()
    append(cache, a, TEXT[:20])
    b = cache.fork(a)
    assert b.pages == a.pages
    append(cache, b, [7])
    append(cache, a, [8])
    assert held(cache, a) == [*TEXT[:20], 8]
    assert held(cache, b) == [*TEXT[:20], 7]
    assert a.pages[0] == b.pages[0]
    assert a.pages[1] != b.pages[1]


def test_memory_that_is_kept_for_sharing_is_used_when_it_is_needed():
    cache = new_cache(3)
    a = cache.create()
    append(cache, a, TEXT[:48])
    cache.release(a)
    b = cache.create()
    append(cache, b, [9] * 40)
    assert held(cache, b) == [9] * 40


def test_a_full_cache_is_refused_and_unchanged():
    cache = new_cache(3)
    a, b = cache.create(), cache.create()
    append(cache, a, TEXT[:20])
    refused("E0921", cache.append, [(a, [1] * 20), (b, [1])])
    assert (a.length, b.length, cache.free_pages) == (20, 0, 1)
    append(cache, a, TEXT[20:40])
    assert held(cache, a) == TEXT[:40]


def test_a_failed_step_is_taken_back():
    cache = new_cache(3)
    a = cache.create()
    append(cache, a, TEXT[:10])
    cache.undo(cache.append([(a, [1] * 20)]))
    assert (a.tokens, cache.free_pages) == (TEXT[:10], 2)


def test_pages_that_no_window_reaches_are_given_back():
    cache = new_cache(4, MISTRAL)
    a = cache.create()
    for start in range(0, 200, 8):
        append(cache, a, [start // 8] * 8)
    assert a.length == 200
    assert sum(p >= 0 for p in a.pages) <= 3
    assert held(cache, a, 181) == [(i // 8) for i in range(181, 200)]
    refused("E0922", cache.pop, a, 60)


@pytest.mark.parametrize(
    ("code", "misuse"),
    [
        ("E0922", lambda c, s: c.append([(s, [1]), (s, [2])])),
        ("E0922", lambda c, s: c.append([(s, [])])),
        ("E0922", lambda c, s: c.append([])),
        ("E0922", lambda c, s: c.append([(s, [1])], "some")),
        ("E0922", lambda c, s: c.append([(s, [1])], ["last", "last"])),
        ("E0922", lambda c, s: c.pop(s, 1)),
        ("E0922", lambda c, s: (c.release(s), c.release(s))),
        ("E0922", lambda c, s: (c.release(s), c.fork(s))),
        ("E0923", lambda c, s: c.append([(s, [1] * 5000)])),
        ("E0924", lambda c, s: c.append([(s, [50])])),
        ("E0924", lambda c, s: c.append([(s, [-1])])),
        ("E0921", lambda c, s: PagedCache(c.config, 0)),
    ],
)
def test_misuse_is_refused(code, misuse):
    cache = new_cache(4)
    refused(code, misuse, cache, cache.create())


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["create", "append", "append", "append", "fork", "pop", "release"]),
        st.integers(0, 3),
        st.integers(1, 40),
        st.integers(0, 1),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(ACTIONS, st.booleans())
def test_sequences_keep_their_tokens_whatever_the_others_do(actions, share):
    cache = new_cache(12, share=share)
    alive = [(cache.create(), [])]
    for action, which, count, token in actions:
        sequence, tokens = alive[which % len(alive)] if alive else (None, None)
        if action == "create" or sequence is None:
            alive.append((cache.create(), []))
        elif action == "append":
            with contextlib.suppress(LanguageModelError):  # when it is full
                append(cache, sequence, [token] * count)
                tokens += [token] * count
        elif action == "fork":
            alive.append((cache.fork(sequence), list(tokens)))
        elif action == "pop":
            count = min(count, len(tokens))
            cache.pop(sequence, count)
            del tokens[len(tokens) - count :]
        else:
            cache.release(sequence)
            alive = [(s, t) for s, t in alive if s is not sequence]
        for s, t in alive:
            assert s.tokens == t
            assert held(cache, s) == t
    used = {p for s, _ in alive for p in s.pages}
    assert cache.free_pages == 12 - len(used)
