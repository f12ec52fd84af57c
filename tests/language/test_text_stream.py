from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from treadle.language.text_stream import BROKEN, TextStream


def whole_bytes(tokens):
    """As byte-level tokenizers do: broken parts become U+FFFD, one for each."""
    return b"".join(tokens).decode(errors="replace")


def single_bytes(tokens):
    """As tokenizers with a fallback to bytes do: one U+FFFD per byte of a run that is broken."""
    text, run = [], b""
    for token in [*tokens, ""]:
        if isinstance(token, bytes):
            run += token
            continue
        try:
            text.append(run.decode())
        except UnicodeDecodeError:
            text.append(BROKEN * len(run))
        run = b""
        text.append(token)
    return "".join(text)


def pieces(decode, tokens):
    stream = TextStream(decode)
    return [*(stream.add(token) for token in tokens), stream.finish()]


anything = st.lists(st.binary(min_size=1, max_size=4), max_size=80)
texts = st.text(max_size=40)


def cut(data, places):
    """The bytes, cut into tokens at some places."""
    ends = sorted({p % (len(data) + 1) for p in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


@given(anything)
def test_pieces_of_any_bytes_add_up_to_the_text_of_all(tokens):
    assert "".join(pieces(whole_bytes, tokens)) == whole_bytes(tokens)


@given(texts, st.lists(st.integers(0, 400), max_size=60))
def test_no_piece_of_a_text_is_broken_however_it_is_cut(text, places):
    found = pieces(whole_bytes, cut(text.encode(), places))
    assert "".join(found) == text
    assert BROKEN in text or not any(BROKEN in piece for piece in found)


@given(texts)
def test_no_piece_is_broken_where_characters_come_as_single_bytes(text):
    tokens = []
    for letter in text:
        data = letter.encode()
        tokens += [letter] if len(data) == 1 else [data[i : i + 1] for i in range(len(data))]
    found = pieces(single_bytes, tokens)
    assert "".join(found) == text
    assert BROKEN in text or not any(BROKEN in piece for piece in found)


def test_a_long_text_is_decoded_in_short_parts():
    lengths = []

    def decode(tokens):
        lengths.append(len(tokens))
        return whole_bytes(tokens)

    for byte in (b"a", b"\xff", b"\xf0"):
        tokens = [byte] * 500
        assert "".join(pieces(decode, tokens)) == whole_bytes(tokens)
    assert max(lengths) < 50


def test_what_is_complete_is_given_at_once():
    stream = TextStream(whole_bytes)
    assert [stream.add(t) for t in (b"a", b"\xe2", b"\x82", b"\xacb")] == ["a", "", "", "€b"]


def test_a_leading_space_that_decoding_drops_is_kept_between_words():
    def decode(tokens):
        return "".join(tokens).removeprefix(" ")

    tokens = [" one", " two", " three", " four"]
    assert "".join(pieces(decode, tokens)) == "one two three four"
