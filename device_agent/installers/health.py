"""Asks a release how it is, as its signed health check says: over loopback HTTP, or by a program of its own."""

import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from device_agent.installers.child_output import output_until_end
from device_agent.installers.port import Verdict
from device_agent.installers.substitution import substitute
from fleet_protocol.archive import check_member_name
from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import shown
from fleet_protocol.install import HealthCheck

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_OUTPUT_MOST: Final = 4_096
_DETAIL_MOST: Final = 300


def run_check(check: HealthCheck, slot: Path, environment: Mapping[str, str], variables: Mapping[str, str]) -> Verdict:
    """Well, or `unhealthy` with the reason, after at most `timeout_s` whatever the release does."""
    target = substitute(check.target, variables)
    if check.kind == "http":
        return _http(target, check.timeout_s)
    return _program(target, slot, environment, check.timeout_s)


def _unhealthy(detail: str) -> Verdict:
    return Verdict(code="unhealthy", detail=detail[:_DETAIL_MOST])


def _http(target: str, timeout_s: float) -> Verdict:
    try:
        parts = urlsplit(target)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        return _unhealthy(f"the check's address {shown(target)} is not one")
    if parts.scheme != "http" or host not in _LOOPBACK:
        return _unhealthy(f"the check's address {shown(target)} is not on this device")
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with _time_limit(connection, timeout_s) as is_over:
            connection.request("GET", path, headers={"Connection": "close"})
            status = connection.getresponse().status
            if is_over():  # the cut looks like the end of the headers
                raise TimeoutError
    except TimeoutError:
        return _unhealthy(f"{target} does not answer within {timeout_s} s")
    except (OSError, http.client.HTTPException) as error:
        return _unhealthy(f"{target}: {error or type(error).__name__}")
    finally:
        connection.close()
    return Verdict(code=None) if 200 <= status <= 299 else _unhealthy(f"{target} answers {status}")


@contextmanager
def _time_limit(connection: http.client.HTTPConnection, limit_s: float) -> Iterator[Callable[[], bool]]:
    """Cut the connection at the limit: each read has a timeout, but a release may drip one byte at a time.

    Yields what tells whether it was cut.
    """
    started_s = time.monotonic()
    connection.connect()
    second, over = connection.sock.dup(), threading.Event()

    def cut() -> None:
        over.set()
        with suppress(OSError):
            second.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, limit_s - (time.monotonic() - started_s)), cut)
    timer.daemon = True
    timer.start()
    try:
        yield over.is_set
    finally:
        timer.cancel()
        timer.join()
        second.close()


def _program(target: str, slot: Path, environment: Mapping[str, str], timeout_s: float) -> Verdict:
    try:
        program = slot / check_member_name(target)
    except ProtocolError:
        return _unhealthy(f"the check {shown(target)} is not a path inside the release")
    try:
        process = subprocess.Popen(  # noqa: S603  a program of the signed release, without a shell
            [program],
            cwd=slot,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return _unhealthy(f"{target}: {error.strerror}")
    with process:
        try:
            said = output_until_end(process, timeout_s, _OUTPUT_MOST)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return _verdict(target, process.returncode, None if said is None else said[0], timeout_s)


def _verdict(target: str, status: int, output: bytearray | None, timeout_s: float) -> Verdict:
    if output is None:
        return _unhealthy(f"{target} does not end within {timeout_s} s")
    if status == 0:
        return Verdict(code=None)
    said = output.decode("utf-8", errors="replace").strip()[-200:]
    return _unhealthy(f"{target} ends with status {status}: {said}")
