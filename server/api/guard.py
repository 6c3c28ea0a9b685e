"""What every request passes before a route sees it: its token, and the cap on its body.

Rules, cited by number in the tests:

H1. Everything below /api needs the API token as its bearer token, or for POST /api/nodes/register alone the enrolment
    token. They are compared in constant time; nothing of the body is read before.
H2. A body over its cap is refused by its Content-Length, and cut off at the cap where it says nothing or lies.
"""

import hmac
import re
from collections.abc import Callable
from typing import Final

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import answer
from server.services.artifacts import too_large
from server.tokens import Tokens

_ARTIFACT: Final = re.compile(r"/api/(artifacts/[^/]+|releases)/?")
_CATALOGUE: Final = re.compile(r"/api/catalogue/?")
_MISSING: Final = "send the header `Authorization: Bearer <token>`; the token is in the server's data directory"
_WRONG: Final = "the token is wrong; the right one is in the server's data directory, in the file `token`"
_ONLY_ENROLS: Final = "the enrolment token may enrol devices and nothing else: POST /api/nodes/register"
ENROLMENT: Final = "/api/nodes/register"
"""The one path that the enrolment token opens."""


class Guard:
    """ASGI middleware for H1 and H2."""

    def __init__(self, app: ASGIApp, *, tokens: Tokens, cap_bytes: Callable[[str], int]) -> None:
        self._app = app
        self._api, self._enrol = tokens.api.encode(), tokens.enrol.encode()
        self._cap_bytes = cap_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], scope["path"], headers.get("authorization"))
        if refusal is not None:
            await answer(401, "unauthorized", refusal)(scope, receive, send)
            return
        cap_bytes = self._cap_bytes(scope["path"])
        error = too_large(cap_bytes)
        if _declared(headers) > cap_bytes:
            await answer(413, error.code, error.detail)(scope, receive, send)
            return
        await self._app(scope, _counted(receive, cap_bytes), send)

    def _refusal(self, method: str, path: str, header: str | None) -> str | None:
        """Rule H1."""
        if not (path == "/api" or path.startswith("/api/")):
            return None
        kind, _, given = (header or "").partition(" ")
        if kind.lower() != "bearer" or not given:
            return _MISSING
        # Latin-1 is what header bytes were decoded with; anything may stand in it.
        token = given.strip().encode("latin-1")
        enrols = hmac.compare_digest(token, self._enrol)
        if hmac.compare_digest(token, self._api) or (enrols and (method, path) == ("POST", ENROLMENT)):
            return None
        return _ONLY_ENROLS if enrols else _WRONG


def _counted(receive: Receive, cap_bytes: int) -> Receive:
    """Rule H2 for what the client really sends."""
    read_bytes = 0

    async def counted() -> Message:
        nonlocal read_bytes
        message = await receive()
        read_bytes += len(message.get("body", b""))
        if read_bytes > cap_bytes:
            # The one exception that FastAPI lets through while it reads a body.
            raise HTTPException(413, too_large(cap_bytes).detail)
        return message

    return counted


def caps(*, body_most_bytes: int, catalogue_most_bytes: int, artifact_most_bytes: int) -> Callable[[str], int]:
    """The cap in bytes by path."""

    def cap_bytes(path: str) -> int:
        if _ARTIFACT.fullmatch(path):
            return artifact_most_bytes + body_most_bytes
        return catalogue_most_bytes if _CATALOGUE.fullmatch(path) else body_most_bytes

    return cap_bytes


def _declared(headers: Headers) -> int:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else 0
