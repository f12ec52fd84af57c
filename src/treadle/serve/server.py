"""The application under uvicorn, and how it stops."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn

from treadle.base.errors import OptionError
from treadle.serve.app import create_app
from treadle.serve.service import Service

_MARGIN = 5
_PORTS = 1 << 16


class Server(uvicorn.Server):
    """A server that lets running requests finish before it stops.

    When it is told to stop (SIGINT, SIGTERM, ``should_exit``) it takes no new requests. What it
    has taken goes on, at most for ``grace`` seconds; then clients are told and the server ends. A
    second SIGINT ends it at once.
    """

    def __init__(self, service: Service, *, grace: float = 30) -> None:
        config = uvicorn.Config(
            create_app(service),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=int(grace) + _MARGIN,
        )
        super().__init__(config)
        self._service = service
        self._grace = grace

    @contextmanager
    def running(self, host: str = "127.0.0.1", port: int = 0) -> Generator[str]:
        """Serve from a thread; the URL of the interface. At the end the server stops.

        Raises:
            OptionError: E0864 if it cannot listen there.
        """
        with listen(host, port) as listener:
            thread = threading.Thread(
                target=self.run, kwargs={"sockets": [listener]}, name="treadle-server"
            )
            thread.start()
            try:
                yield url_of(listener)
            finally:
                self.should_exit = True
                thread.join()
                # A server that was stopped while it started has not told the engine.
                self._service.engine.drain(0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, wait for what runs, and end."""
        self._service.engine.drain(self._grace)
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; port 0 takes a free one.

    Raises:
        OptionError: E0864 if that is not possible.
    """
    if not 0 <= port < _PORTS:
        raise _unreachable(host, port, f"ports are from 0 to {_PORTS - 1}")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise _unreachable(host, port, str(error)) from error
    # Connections inherit it. A token must not wait until the client has confirmed the one before.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL of the interface behind a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _unreachable(host: str, port: int, why: str) -> OptionError:
    return OptionError(
        "E0864",
        f"cannot listen at {host}, port {port}",
        notes=(why,),
        help="choose another --host or --port; --port 0 takes a free one",
    )
