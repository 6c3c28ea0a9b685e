"""The server's log: one line per event on stderr, without secrets."""

import inspect
import logging
import re
import sys
from typing import Any, Final

from loguru import logger

_SECRETS: Final = re.compile(
    r"(?i)(bearer\s+)[A-Za-z0-9._~+/=-]+|(://[^:/@\s]+:)[^@/\s]+(?=@)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_FORMAT: Final = "{time:YYYY-MM-DDTHH:mm:ss.SSS!UTC}Z {level: <7} {name}: {message}"
_LINE_MOST: Final = 4_000


class _Bridge(logging.Handler):
    """Hands the records of libraries that use the standard library's logging to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        frame, depth = inspect.currentframe(), 0
        while frame and (depth == 0 or frame.f_code.co_filename == logging.__file__):
            frame, depth = frame.f_back, depth + 1
        logger.opt(depth=depth, exception=record.exc_info).log(record.levelname, record.getMessage())


def start_logging(level: str = "INFO") -> None:
    """Send this process's log, and that of its libraries, to stderr; bearer tokens, passwords and keys are masked.

    Variables are never shown in tracebacks, because one of them may be a key.
    """
    logger.remove()
    logger.configure(patcher=_mask)
    logger.add(sys.stderr, level=level, format=_FORMAT, backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[_Bridge()], level=logging.INFO, force=True)
    for noisy in ("uvicorn.access", "httpx", "httpcore", "alembic", "transitions", "amqtt", "tuf"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def masked(text: str) -> str:
    """The text as it may stand in a log: secrets replaced, one line, bounded."""
    found = _SECRETS.sub(lambda match: (match[1] or match[2] or "") + "***", text)
    return found.replace("\r", "\\r").replace("\n", "\\n")[:_LINE_MOST]


def _mask(record: Any) -> None:
    record["message"] = masked(record["message"])
