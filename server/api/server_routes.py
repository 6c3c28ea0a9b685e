"""The server itself: health, audit log and metrics."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from server.api.server_bodies import AuditAnswer, AuditsAnswer, HealthAnswer
from server.api.use_cases import UseCases

Most = Annotated[int, Query(ge=1, le=10_000, description="How many of the newest.")]


def router(cases: UseCases) -> APIRouter:
    """GET /, /health and /metrics, without a token, and /api/audit."""
    routes = APIRouter(tags=["server"])

    @routes.get("/", status_code=307, response_class=RedirectResponse)
    def front() -> RedirectResponse:
        """Leads to this documentation: who typed the server's address finds what it answers."""
        return RedirectResponse("/docs")

    @routes.get("/health")
    def health() -> HealthAnswer:
        """Whether the server does its work. Always 200: `status` is `ok` or `degraded`, and `problems` say why."""
        return HealthAnswer.of(cases.status.status())

    @routes.get("/api/audit")
    def audit(most: Most = 100) -> AuditsAnswer:
        """What operators, the engine and the guardian did, the newest first."""
        with cases.store.read() as reads:
            return AuditsAnswer(entries=[AuditAnswer.of(entry) for entry in reads.audit_entries(most)])

    @routes.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Prometheus metrics."""
        return Response(generate_latest(cases.registry), media_type=CONTENT_TYPE_LATEST)

    return routes
