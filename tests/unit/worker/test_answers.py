"""What a worker claims is taken for what it is, or not at all."""

import json
from typing import Any

import pytest

from device_agent.worker import LINE_SIZE, answers
from fleet_protocol.errors import ProtocolError

COMMAND = {"id": "c-1", "name": "fetch-logs", "package": None, "service": "web", "lines": 10}
PLAN = {"group": "g", "sequence": 1, "digest": "d", "root": 1, "expires_s": 2.0, "deployments": [], "floors": {}}


def ok(result: Any) -> dict[str, Any]:
    return {"ok": True, "result": result}


def refusal(**more: Any) -> dict[str, Any]:
    return {"ok": False, "code": "busy", "detail": "later", "retry_after_s": 5, **more}


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ("refresh", ok({"root": 1})),
        ("stage", ok({"tree": "t"})),
        ("assignment", ok({"group": "line-1", "sequence": 3})),
        ("command", ok(COMMAND)),
        ("sign", ok({"envelope": "{}"})),
        ("manifest", ok(PLAN)),
        ("fetch", refusal()),
        ("fetch", refusal(retry_after_s=None)),
    ],
)
def test_what_an_honest_worker_says(op: str, message: dict[str, Any]) -> None:
    assert answers.answer(op, answers.read(json.dumps(message).encode())) == message


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ("assignment", ok({"group": "../#", "sequence": 3})),
        ("assignment", ok({"group": "line-1"})),
        ("assignment", ok({"group": ["line-1"], "sequence": 3})),
        ("command", ok({**COMMAND, "lines": 10**9})),
        ("command", ok({**COMMAND, "name": "reboot"})),
        ("command", ok({**COMMAND, "package": "../etc"})),
        ("command", ok({**COMMAND, "id": "C 1"})),
        ("sign", ok({"envelope": 5})),
        ("sign", ok({})),
        ("manifest", ok({**PLAN, "sequence": True})),
        ("manifest", ok({**PLAN, "more": 1})),
        ("manifest", ok({**PLAN, "deployments": [{}]})),
        ("manifest", ok([])),
        ("manifest", {"ok": 1, "result": PLAN}),
        ("fetch", refusal(code="no-such-code")),
        ("fetch", refusal(code=["busy"])),
        ("fetch", refusal(detail=None)),
        ("fetch", refusal(retry_after_s=-1)),
        ("fetch", refusal(retry_after_s=1e300)),
        ("fetch", refusal(retry_after_s=True)),
        ("fetch", refusal(retry_after_s="5")),
    ],
)
def test_what_is_no_answer(op: str, message: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        answers.answer(op, message)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[1]",
        b'"want"',
        b'{"ok": true, "result": {"envelope": "\\ud800"}}',
        b'{"progress": NaN}',
        b'{"progress": 1e999}',
        b'{"ok": true, "ok": false}',
        b'{"ok": true, "result": {"n": 9007199254740993}}',
        b'{"a": ' * 17 + b"1" + b"}" * 17,
        b"[" * 100_000,
        b'{"a": "' + b"x" * LINE_SIZE + b'"}',
    ],
)
def test_what_is_no_line(line: bytes) -> None:
    """Nothing that the journal could not be read with afterwards, and nothing that ends the reader."""
    with pytest.raises(ProtocolError):
        answers.read(line)


def test_a_long_detail_is_cut() -> None:
    assert len(answers.answer("fetch", refusal(detail="x" * 100_000))["detail"]) == 1_000


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_progress_that_is_none(value: object) -> None:
    with pytest.raises(ProtocolError):
        answers.share(value)
    assert answers.share(0.5) == 0.5
