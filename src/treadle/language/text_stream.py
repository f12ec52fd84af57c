"""From tokens to text while they arrive, in whole characters."""

from collections.abc import Callable, Sequence

BROKEN = "\ufffd"
# A character has at most four bytes; tokens of single bytes are decoded together, so that all bytes
# of what is next to an incomplete character can show as broken as well.
_HELD = 8
_WINDOW = 32


class TextStream:
    """Text of a growing list of tokens, in pieces that add up to the text of all of them.

    A piece never ends within a character. ``decode`` is asked for the text of a few of the last
    tokens, not of all. Those before the window are chosen such that the text of the parts is that
    of the whole.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._given = 0
        self._clean = 0

    def add(self, token: int) -> str:
        """The text that has become certain with this token; often "" and never half a character."""
        self._window.append(token)
        text = self._decode(self._window)
        stable = text
        for _ in range(_HELD):
            stable = stable.removesuffix(BROKEN)
        piece = stable[self._given :]
        self._given = max(self._given, len(stable))
        if stable == text:
            self._restart_at(self._clean)
            self._clean = len(self._window)
        elif len(self._window) > _WINDOW:
            self._split(text)
        return piece

    def finish(self) -> str:
        """What was held back; the last character may be broken for good."""
        text = self._decode(self._window)
        piece = text[self._given :]
        self._given = len(text)
        return piece

    def _restart_at(self, place: int) -> None:
        """Let the window begin at a token before which all text was whole."""
        if place:
            self._window = self._window[place:]
            self._given = len(self._decode(self._window))

    def _split(self, text: str) -> None:
        """Shorten a window of broken text where its two parts read as the whole does."""
        for place in range(len(self._window) - _HELD, 0, -1):
            left, right = self._window[:place], self._window[place:]
            before = len(self._decode(left))
            if before <= self._given and text[before:] == self._decode(right):
                self._window = right
                self._given -= before
                self._clean = 0
                return
