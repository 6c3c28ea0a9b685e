"""uvicorn in a thread, on a socket that is bound before anything else starts."""

import errno
import socket
import threading
from contextlib import suppress
from typing import Final

import uvicorn
from anyio.to_thread import current_default_thread_limiter
from starlette.types import ASGIApp

from fleet_protocol.errors import PolicyError

_THREADS: Final = 100
"""Requests that may wait for devices at the same time."""
_GRACE_S: Final = 5


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 lets the kernel choose. Raises PolicyError `setup` where it can not be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        why = error.strerror or str(error)
        hint = "; stop what runs there or choose another FAIRLEAD_PORT" if error.errno == errno.EADDRINUSE else ""
        raise PolicyError("setup", f"can not listen on {host}:{port}: {why}{hint}") from None


class HttpServer:
    """Serves one application until stopped."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        self._listener = listener
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=_GRACE_S, ws="none"
        )
        self._server = _Announcing(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Return once requests are answered."""
        self._thread.start()
        self._server.ready.wait()

    def stop(self) -> None:
        """Take no more requests, give the running ones five seconds, and end the thread."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        with suppress(OSError):
            self._listener.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self._server.ready.set()


class _Announcing(uvicorn.Server):
    """Says when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        current_default_thread_limiter().total_tokens = _THREADS
        await super().startup(sockets)
        self.ready.set()
