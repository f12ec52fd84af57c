"""Events from the engine's thread to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class Mailbox:
    """Puts items into queues of an event loop, from any thread.

    The loop is woken once for all items that come in quick succession: waking it for each token
    would take longer than choosing the token.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._deliveries: deque[Callable[[], None]] = deque()
        self._woken = False

    def put(self, queue: asyncio.Queue[T], item: T) -> None:
        """Put an item into a queue of the loop, soon and in order."""
        self._deliveries.append(partial(queue.put_nowait, item))
        if not self._woken:
            self._woken = True
            # The loop may be closed by now, and then nobody waits for this.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # In this order: what is put after the flag is down wakes the loop again.
        self._woken = False
        while self._deliveries:
            self._deliveries.popleft()()
