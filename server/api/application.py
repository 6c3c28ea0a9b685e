"""The FastAPI application over the use cases."""

from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline

from server.api import node_routes, release_routes, server_routes, update_routes
from server.api.errors import add_handlers
from server.api.guard import ENROLMENT, Guard, caps
from server.api.head import Head
from server.api.server_bodies import Error
from server.api.use_cases import UseCases
from server.settings import Settings
from server.tokens import API, ENROL, Tokens

_TEXT: Final = """Signed updates for fleets of Linux devices over MQTT.

Everything below `/api` needs `Authorization: Bearer <token>`; the token is in the file `token` of the server's data
directory. `POST /api/nodes/register` takes the one in `enrol-token` too, which opens nothing else. Every error is
`{"code", "detail"}`: the codes are stable, the detail says what was wrong and what to do.
"""
_TAGS: Final = [
    {"name": "updates", "description": "Publish a release, watch it advance, steer it."},
    {"name": "nodes", "description": "Enrolled devices, and what can be asked of them."},
    {"name": "groups", "description": "Named sets of devices, each with one manifest."},
    {"name": "releases", "description": "The signed catalogue, and the artifacts that it names."},
    {"name": "server", "description": "Health, audit log, metrics."},
]


def create_application(cases: UseCases, settings: Settings, tokens: Tokens) -> FastAPI:
    """An application that answers under the rules of server.api.guard and server.api.errors."""
    errors: dict[int | str, dict[str, Any]] = {"4XX": {"model": Error}, "5XX": {"model": Error}}
    # Its pages come from the wheel: /docs works on a machine without internet.
    app = FastAPIOffline(
        title="Fairlead",
        version=version("fairlead"),
        description=_TEXT,
        openapi_tags=_TAGS,
        responses=errors,
        redoc_url=None,
    )
    for module in (update_routes, node_routes, release_routes, server_routes):
        app.include_router(module.router(cases))
    add_handlers(app)
    cap_bytes = caps(
        body_most_bytes=settings.body_most_bytes,
        catalogue_most_bytes=settings.catalogue_most_bytes,
        artifact_most_bytes=settings.artifact_most_bytes,
    )
    app.add_middleware(Head, routes=app.routes)
    app.add_middleware(Guard, tokens=tokens, cap_bytes=cap_bytes)
    _describe_tokens(app)
    return app


def _describe_tokens(app: FastAPI) -> None:
    """Say in the OpenAPI document which operations need which token."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            bearer = {"type": "http", "scheme": "bearer"}
            schema.setdefault("components", {})["securitySchemes"] = {API: bearer, ENROL: bearer}
            for path, operations in schema["paths"].items():
                for operation in operations.values() if path.startswith("/api") else ():
                    operation["security"] = [{API: []}]
            schema["paths"][ENROLMENT]["post"]["security"].append({ENROL: []})
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema
