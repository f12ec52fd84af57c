"""Which pages of a cache are in use, and by how many; and which hold text that may come again."""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

Digest = bytes
"""Stands for all tokens up to the end of a page."""

NOTHING: Digest = b""
"""The digest before the first page."""


def digest(before: Digest, tokens: Sequence[int]) -> Digest:
    """The digest of a page's tokens that follow the text of ``before``."""
    return blake2b(before + np.asarray(tokens, np.int64).tobytes(), digest_size=16).digest()


class PageTable:
    """Counts who holds each page.

    A full page may be known by its digest. Such a page is kept when nobody holds it any more, so
    that a text with the same beginning can use it, until its memory is needed: the page that was
    given back first goes first.
    """

    def __init__(self, pages: int) -> None:
        self._holders = [0] * pages
        self._free = list(reversed(range(pages)))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._by_digest: dict[Digest, int] = {}
        self._digests: dict[int, Digest] = {}

    @property
    def free(self) -> int:
        """How many pages nobody holds."""
        return len(self._free) + len(self._idle)

    def holders(self, page: int) -> int:
        """How many hold a page."""
        return self._holders[page]

    def is_idle(self, page: int) -> bool:
        """Whether a page is kept though nobody holds it."""
        return page in self._idle

    def take(self) -> int:
        """A page that nobody else holds; there must be a free one."""
        if self._free:
            page = self._free.pop()
        else:
            page, _ = self._idle.popitem(last=False)
            self.forget(page)
        self._holders[page] = 1
        return page

    def hold(self, page: int) -> None:
        """One more holds a page."""
        self._idle.pop(page, None)
        self._holders[page] += 1

    def give_back(self, page: int) -> None:
        """One less holds a page."""
        self._holders[page] -= 1
        if self._holders[page]:
            return
        if page in self._digests:
            self._idle[page] = None
        else:
            self._free.append(page)

    def know(self, page: int, name: Digest) -> None:
        """A page holds the text of ``name``; the first page of a text stays the known one."""
        if name not in self._by_digest:
            self._by_digest[name] = page
            self._digests[page] = name

    def forget(self, page: int) -> None:
        """A page will hold something else."""
        name = self._digests.pop(page, None)
        if name is not None:
            del self._by_digest[name]

    def find(self, name: Digest) -> int | None:
        """The page that holds the text of ``name``."""
        return self._by_digest.get(name)
