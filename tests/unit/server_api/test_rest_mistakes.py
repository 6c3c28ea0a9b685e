"""Every mistake gets a 4xx with a code of the table and one line; never a traceback."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from httpx import Client
from loguru import logger

from fleet_protocol.errors import CODES
from tests.fakes.http_api import serving
from tests.fakes.server_stack import GROUP, ServerStack

SHA256 = hashlib.sha256(b"x").hexdigest()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> ServerStack:
    made = ServerStack(tmp_path_factory.mktemp("mistakes"))
    made.release("web", "1.0.0", 1)
    made.enrol("node-1")
    return made


@pytest.fixture(scope="module")
def client(stack: ServerStack) -> Iterator[Client]:
    with serving(stack) as client:
        yield client


def check(answer: Any, status: int, code: str, says: str = "") -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert set(answer.json()) == {"code", "detail"}
    detail = answer.json()["detail"]
    assert code in CODES
    assert says in detail
    assert detail and "\n" not in detail and "Traceback" not in detail and len(detail) <= 600


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"update_type": "service"}',
        b'{"update_type": "rocket", "package_name": "web", "package_version": "1", "group": "g"}',
        b"[" * 2_000,
        b'{"group": ' * 400,
        b'{"update_type": "files", "package_name": "web", "package_version": 1, "group": "g"}',
    ],
)
def test_bodies_that_are_no_update(client: Client, body: bytes) -> None:
    answer = client.post("/api/updates", content=body, headers={"content-type": "application/json"})
    check(answer, 400, "bad-request")


def test_the_line_says_which_member_is_wrong(client: Client) -> None:
    asked = {"update_type": "files", "package_name": "We b", "package_version": "1.0.0", "group": GROUP}
    check(client.post("/api/updates", json=asked), 400, "bad-request", "package_name")
    check(client.post("/api/updates", json=asked | {"extra": 1, "package_name": "web"}), 400, "bad-request", "extra")
    says = "package_url: 'garbage' is no address: it begins with http:// or https://"
    for url in ("garbage", ["http://x/{sha256}", "garbage"]):
        answer = client.post("/api/updates", json=asked | {"package_name": "web", "package_url": url})
        check(answer, 400, "bad-request")
        assert answer.json()["detail"] == says


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "bad-request"),
        ("GET", "/api/nothing", 404, "bad-request"),
        ("DELETE", "/api/nodes", 405, "bad-request"),
        ("GET", "/api/nodes/nobody", 404, "unknown-node"),
        ("GET", "/api/nodes/..%2f..%2fetc", 404, "bad-request"),
        ("GET", "/api/nodes/Node", 400, "bad-request"),
        ("GET", "/api/updates/nothing", 404, "unknown-update"),
        ("POST", "/api/updates/nothing/hold", 404, "unknown-update"),
        ("POST", "/api/updates/nothing/explode", 404, "bad-request"),
        ("POST", "/api/nodes/nobody/status", 404, "unknown-node"),
        ("GET", f"/artifacts/{SHA256}", 404, "unknown-artifact"),
        ("GET", "/artifacts/token", 400, "schema"),
        ("GET", "/artifacts/..%2ftoken", 404, "bad-request"),
        ("GET", "/api/audit?most=0", 400, "bad-request"),
        ("GET", "/api/audit?most=many", 400, "bad-request"),
    ],
)
def test_addresses(client: Client, method: str, path: str, status: int, code: str) -> None:
    check(client.request(method, path), status, code)


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b'{"targets": 1}', b'{"targets": {}, "x": 1}', b"\xef\xbb\xbf{}"])
def test_bodies_that_are_no_catalogue(client: Client, body: bytes) -> None:
    answer = client.post("/api/catalogue", content=body)
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] in ("bad-request", "parse", "catalogue")


def test_a_catalogue_that_does_not_verify(client: Client) -> None:
    check(client.post("/api/catalogue", json={"root": [], "targets": {"signed": {}}}), 422, "catalogue")
    check(client.post("/api/catalogue", files={"root": b"x"}), 400, "bad-request", "targets")


def test_h2_a_body_over_its_cap(client: Client) -> None:
    check(client.post("/api/updates", content=b" " * 5_000), 413, "too-large")
    check(client.post("/api/catalogue", content=b" " * 100_001), 413, "too-large")
    check(client.put(f"/api/artifacts/{SHA256}", content=b" " * 1_000_001), 413, "too-large")


def test_h2_a_body_that_does_not_say_how_long_it_is(client: Client) -> None:
    def some(size: int) -> Iterator[bytes]:
        for _ in range(size // 1_000):
            yield b" " * 1_000

    check(client.post("/api/updates", content=some(6_000)), 413, "too-large")
    check(client.post("/api/catalogue", content=some(200_000)), 413, "too-large")
    check(client.put(f"/api/artifacts/{SHA256}", content=some(3_000_000)), 413, "too-large")


def test_an_artifact_of_other_bytes(stack: ServerStack, client: Client) -> None:
    check(client.put(f"/api/artifacts/{SHA256}", content=b"y"), 422, "digest")
    check(client.put("/api/artifacts/not-a-digest", content=b"y"), 400, "schema")
    assert stack.artifacts.size(SHA256) is None


def test_a_release_where_the_server_has_no_offline_keys(client: Client) -> None:
    answer = client.post("/api/releases", files={"artifact": b"x"}, data={"info": "{}"})
    check(answer, 409, "wrong-state", "fairlead-firmware")


def test_a_defect_is_logged_under_an_id_and_not_shown(
    stack: ServerStack, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(type(stack.publishing), "create", lambda self, request: broken(request))
    asked = {"update_type": "files", "package_name": "web", "package_version": "1.0.0", "group": GROUP}
    lines: list[str] = []
    sink = logger.add(lines.append, diagnose=False)
    # The server hangs up after a defect: the connection must not be the next test's.
    answer = client.post("/api/updates", json=asked, headers={"connection": "close"})
    logger.remove(sink)
    check(answer, 500, "internal", "id ")
    assert "secret" not in answer.text
    number = answer.json()["detail"].rsplit(" ", 1)[-1]
    assert any(number in line and "a secret of the inside" in line for line in lines)


def test_the_documentation_lists_every_route_with_a_text(client: Client) -> None:
    schema = client.get("/openapi.json").json()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path}"
            assert ("security" in operation) == path.startswith("/api"), path
    page = client.get("/docs").text
    assert "://" not in page, "works without the internet"
    assert all(client.get(path).status_code == 200 for path in re.findall(r'(?:src|href)="([^"]+)"', page))
