"""Who did what: one line for every decision of an operator or of the engine."""

from typing import Final

from loguru import logger

from server.domain.fleet import AuditEntry
from server.ports import Work

OPERATOR: Final = "operator"
ENGINE: Final = "engine"
GUARDIAN: Final = "guardian"
_DETAIL_MOST: Final = 1_000


def record(work: Work, at_s: float, *, who: str, verb: str, subject: str, detail: str = "") -> None:
    """Keep the entry in the same transaction as what it tells of, and say it in the log."""
    work.audit(AuditEntry(at_s=at_s, who=who, verb=verb, subject=subject, detail=detail[:_DETAIL_MOST]))
    logger.info("{} {} {} {}", who, verb, subject, detail)
