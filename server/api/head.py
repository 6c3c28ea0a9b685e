"""HEAD wherever there is GET (RFC 9110, section 9.3.2)."""

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send


class Head:
    """ASGI middleware: a HEAD that no route takes is answered as its GET. The HTTP server sends no body to a HEAD.

    Artifacts have a route of their own, so that nobody reads gigabytes for their length.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http" and scope["method"] == "HEAD" and not self._is_routed(scope):
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)

    def _is_routed(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes)
