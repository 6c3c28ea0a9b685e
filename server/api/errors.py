"""Every error leaves as `{"code", "detail"}`: what was wrong, and what to do. Never a traceback."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from loguru import logger
from starlette.exceptions import HTTPException

from fleet_protocol.errors import CODES, Fault, FleetError

_BY_CODE: Final[Mapping[str, int]] = {
    "bad-request": 400,
    "schema": 400,
    "parse": 400,
    "unauthorized": 401,
    "unknown-node": 404,
    "unknown-group": 404,
    "unknown-update": 404,
    "unknown-release": 404,
    "unknown-artifact": 404,
    "unknown-service": 404,
    "too-large": 413,
    "size": 413,
    "catalogue": 422,
    "offline": 504,
    "no-space": 507,
    "database": 500,
    "internal": 500,
}
_BY_FAULT: Final[Mapping[Fault, int]] = {
    Fault.POLICY: 409,
    Fault.PROTOCOL: 422,
    Fault.INSTALL: 409,
    Fault.TRANSPORT: 503,
}
_DETAIL_MOST: Final = 600
_BY_STATUS: Final[Mapping[int, tuple[str, str]]] = {
    404: ("bad-request", "there is no such address; /docs lists all of them"),
    405: ("bad-request", "this address does not take that method; /docs lists what it takes"),
}


def status_of(error: FleetError) -> int:
    """The HTTP status of an error."""
    return status_of_code(error.code)


def status_of_code(code: str) -> int:
    """The HTTP status of a code: its own, or that of whose fault it is."""
    return _BY_CODE.get(code, _BY_FAULT[CODES[code].fault])


def answer(status: int, code: str, detail: str) -> JSONResponse:
    """The body of every error."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"code": code, "detail": _line(detail)}, status_code=status, headers=headers)


def add_handlers(app: FastAPI) -> None:
    """Have every exception of every route answered in that form."""
    app.add_exception_handler(FleetError, _fleet_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _defect)


def first_fault(errors: Sequence[Any]) -> str:
    """One line for the first of pydantic's complaints: where, and what."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    text = str(first["msg"]).removeprefix("Value error, ")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place}: {text}{more}" if place else f"{text}{more}"


async def _fleet_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FleetError)
    status = status_of(error)
    if status == 500:
        return _told(request, error, error.code, error.detail)
    return answer(status, error.code, error.detail)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return answer(400, "bad-request", first_fault(error.errors()))


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = "too-large" if error.status_code == 413 else "bad-request"
    code, detail = _BY_STATUS.get(error.status_code, (code, str(error.detail)))
    return answer(error.status_code, code, detail)


async def _defect(request: Request, error: Exception) -> JSONResponse:
    return _told(request, error, "internal", "the server failed")


def _told(request: Request, error: Exception, code: str, detail: str) -> JSONResponse:
    """A fault of the server: the log has everything under an id, the client gets the id."""
    number = secrets.token_hex(4)
    logger.opt(exception=error).error("{} {} failed, id {}", request.method, request.url.path, number)
    return answer(500, code, f"{detail}; the server's log has the details under id {number}")


def _line(text: str) -> str:
    return " ".join(text.split())[:_DETAIL_MOST]
