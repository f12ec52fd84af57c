"""A small deterministic model in place of a compiled one, and servers on a port of their own."""

import threading
import time
import zlib
from contextlib import contextmanager

import numpy as np
import openai
import pytest

from treadle.base.errors import RuntimeFault
from treadle.serve.engine import Engine
from treadle.serve.schedule import Limits
from treadle.serve.server import Server
from treadle.serve.service import Service

END = 256
VOCABULARY = 257
PAGE = 4


class Bytes:
    """A token is a byte; END ends."""

    def encode(self, text):
        return list(text.encode())

    def decode(self, tokens):
        return bytes(t for t in tokens if t < END).decode(errors="replace")

    def chat(self, messages):
        return self.encode("".join(f"{m['role']}: {m['content']}\n" for m in messages))


class Sequence:
    def __init__(self):
        self.tokens, self.pages = [], []


class Pages:
    """A cache that holds the tokens themselves, in pages that are counted and shared."""

    page_size = PAGE

    def __init__(self, pages):
        self._users = [0] * pages
        self.appended = 0

    @property
    def free_pages(self):
        return self._users.count(0)

    def _page(self):
        if 0 not in self._users:
            raise RuntimeFault("E0799", "the cache is full")
        page = self._users.index(0)
        self._users[page] = 1
        return page

    def create(self):
        return Sequence()

    def fork(self, sequence):
        copy = Sequence()
        copy.tokens, copy.pages = list(sequence.tokens), list(sequence.pages)
        for page in copy.pages:
            self._users[page] += 1
        return copy

    def release(self, sequence):
        for page in sequence.pages:
            self._users[page] -= 1
        sequence.pages = None

    def append(self, parts, wanted):
        self.appended = sum(len(tokens) for _, tokens in parts)
        for sequence, tokens in parts:
            assert tokens
            for token in tokens:
                if len(sequence.tokens) % PAGE == 0:
                    sequence.pages.append(self._page())
                elif self._users[sequence.pages[-1]] > 1:
                    self._users[sequence.pages[-1]] -= 1
                    sequence.pages[-1] = self._page()
                sequence.tokens.append(token)
        which = zip(parts, wanted, strict=True)
        return [tuple(sequence.tokens) for (sequence, _), asked in which if asked == "last"]


class StandIn:
    """The next byte follows from all bytes before; ``open`` lets steps go on."""

    def __init__(self, pace=0.0, ends=False):
        self.pace, self.ends = pace, ends
        self.open = threading.Event()
        self.open.set()
        self.sizes, self.tokens = [], []
        self.fault = None

    def new_cache(self, pages):
        self.cache = Pages(pages)
        return self.cache

    def step(self, batch):
        self.open.wait(10)
        time.sleep(self.pace)
        self.sizes.append(len(batch))
        self.tokens.append(self.cache.appended)
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        rows = [self.logits(tokens) for tokens in batch]
        return np.stack(rows) if rows else np.zeros((0, VOCABULARY), np.float32)

    def logits(self, tokens):
        rng = np.random.default_rng(zlib.crc32(np.array(tokens, np.int32).tobytes()))
        scores = rng.standard_normal(VOCABULARY).astype(np.float32)
        scores[:END] += np.where((np.arange(END) >= 97) & (np.arange(END) < 123), 8, 0)
        scores[END] = 9.5 if self.ends else -9
        return scores

    def greedy(self, prompt, count):
        """What one request alone gives."""
        tokens = list(prompt.encode())
        for _ in range(count):
            token = int(np.argmax(self.logits(tokens)))
            if token == END:
                break
            tokens.append(token)
        return bytes(tokens[len(prompt.encode()) :]).decode()


class Served:
    """A running server and a client of it."""

    def __init__(self, url, server, engine, model):
        self.server, self.engine, self.model = server, engine, model
        self.url = url.removesuffix("/v1")
        self.client = openai.OpenAI(base_url=url, api_key="key", max_retries=0)

    def free_pages(self, expected, seconds=5):
        """The free pages, once they are as expected or time is up."""
        end = time.monotonic() + seconds
        while self.engine.snapshot().free_pages != expected and time.monotonic() < end:
            time.sleep(0.01)
        return self.engine.snapshot().free_pages


@contextmanager
def run_server(model, *, pages=256, grace=5, limits=None, **service):
    engine = Engine(model, pages=pages, limits=limits or Limits())
    defaults = {"tokenizer": Bytes(), "name": "tiny", "vocabulary": VOCABULARY}
    defaults["end_tokens"] = frozenset([END])
    server = Server(Service(engine, **{**defaults, **service}), grace=grace)
    with server.running() as url:
        served = Served(url, server, engine, model)
        try:
            yield served
        finally:
            served.client.close()
            model.open.set()
    assert engine.join(5)


@pytest.fixture(scope="session")
def serve():
    """Starts a server with a model and options."""
    return run_server


@pytest.fixture(scope="session")
def stand_in():
    """The class of the model."""
    return StandIn


@pytest.fixture
def served():
    """A server with all its defaults."""
    with run_server(StandIn()) as found:
        yield found


@pytest.fixture(scope="module")
def shared():
    """A server with all its defaults, for tests that leave nothing behind."""
    with run_server(StandIn()) as found:
        yield found
