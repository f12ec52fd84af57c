from hypothesis import given
from hypothesis import strategies as st

from treadle.serve.text import StopFilter

letters = st.text("ab", max_size=30)


@given(st.lists(letters, max_size=8), st.lists(st.text("ab", min_size=1, max_size=5), max_size=3))
def test_text_is_cut_before_the_first_stop(parts, stops):
    text = "".join(parts)
    found = StopFilter(stops)
    shown = [found.push(part) for part in parts]
    cuts = [place for stop in stops if (place := text.find(stop)) >= 0]
    assert found.stopped == bool(cuts)
    if found.stopped:
        assert "".join(shown) == text[: first_cut(parts, stops)]
    else:
        assert "".join(shown) + found.finish() == text


def first_cut(parts, stops):
    """Where the text ends: the first stop in as much of it as was there when one was complete."""
    text = ""
    for part in parts:
        text += part
        cuts = [place for stop in stops if (place := text.find(stop)) >= 0]
        if cuts:
            return min(cuts)
    return None
