"""Every row of the REST table: what is asked, what is answered, and that nobody gets in without the token."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from securesystemslib.signer import CryptoSigner

from fleet_protocol import envelope, strict_json
from fleet_protocol.messages import Command, Reply
from fleet_protocol.payload import to_payload
from fleet_protocol.schema import from_payload
from fleet_protocol.topics import COMMAND
from tests.fakes.http_api import ENROL_TOKEN, TOKEN, serving
from tests.fakes.server_stack import CLASS, GROUP, ServerStack

Json = dict[str, Any]


@pytest.fixture
def stack(tmp_path: Path) -> ServerStack:
    made = ServerStack(tmp_path)
    made.release("web", "1.0.0", 1)
    made.enrol("node-1", "node-2")
    return made


@pytest.fixture
def bare(stack: ServerStack) -> Iterator[Client]:
    """Without a token."""
    with serving(stack, token=False) as client:
        yield client


@pytest.fixture
def client(bare: Client) -> Client:
    bare.headers["authorization"] = f"Bearer {TOKEN}"
    return bare


def answering(stack: ServerStack, results: dict[str, Json], *, code: str | None = None) -> None:
    """Have every device answer each command at once."""
    publish = stack.link.publish

    def published(topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
        publish(topic, payload, retain=retain, qos=qos)
        if stack.topics.parse(topic).type is COMMAND:
            command = from_payload(Command, envelope.decode(payload, max_size=9_000).payload, max_size=9_000)
            reply = Reply(id=command.id, code=code, detail="so it is", result=results.get(command.name, {}))
            threading.Thread(target=stack.commands.answered, args=(command.device, to_payload(reply))).start()

    stack.link.publish = published  # type: ignore[method-assign]


def publish(client: Client, **more: Any) -> Json:
    asked = {"update_type": "files", "package_name": "web", "package_version": "1.0.0", "group": GROUP} | more
    answer = client.post("/api/updates", json=asked)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_health_needs_no_token(bare: Client) -> None:
    answer = bare.get("/health").json()
    assert answer["status"] == "ok"
    assert answer["broker"] == {"connected": True, "url": "mqtt://broker:1883"}
    assert (answer["devices"], answer["rollouts"]) == ({"total": 2, "available": 0}, {"active": 0})
    assert {"version", "signing", "uptime_s", "problems"} <= set(answer)


def test_health_says_what_is_wrong(stack: ServerStack, bare: Client) -> None:
    stack.link.connected = False
    answer = bare.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert "no connection to the broker" in answer.json()["problems"][0]


def test_the_front_leads_to_the_documentation(bare: Client) -> None:
    answer = bare.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")
    assert bare.get("/", follow_redirects=True).headers["content-type"].startswith("text/html")


def test_head_is_answered_wherever_get_is(client: Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    gets = [path for path, methods in paths.items() if "get" in methods]
    assert len(gets) > 10
    for path in [*(re.sub(r"{\w+}", "node-1", path) for path in gets), "/docs", "/openapi.json", "/nothing"]:
        get, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        assert head.headers.get("content-type") == get.headers.get("content-type"), path
    assert client.head("/api/health-checks").status_code == 405, "there is no GET"
    del client.headers["authorization"]
    assert client.head("/api/nodes").status_code == 401


def test_every_api_route_needs_the_token(bare: Client) -> None:
    paths = bare.get("/openapi.json").json()["paths"]
    rows = [(path, method) for path, methods in paths.items() for method in methods if path.startswith("/api")]
    assert len(rows) > 20
    for path, method in rows:
        for header in (None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff\xfe"):
            headers = {} if header is None else {b"authorization": header.encode("latin-1")}
            answer = bare.request(method, path.replace("{", "x").replace("}", "x"), headers=headers)  # type: ignore[arg-type]
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), (path, method, header)
            assert answer.headers["www-authenticate"] == "Bearer"


def test_the_enrolment_token_enrols_and_opens_nothing_else(stack: ServerStack, bare: Client) -> None:
    document = bare.get("/openapi.json").json()
    bare.headers["authorization"] = f"Bearer {ENROL_TOKEN}"
    rows = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
    others = {row for row in rows if row[1].startswith("/api")} - {("POST", "/api/nodes/register")}
    assert len(others) == len([path for _, path in rows if path.startswith("/api")]) - 1
    register = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]
    others |= {(method, "/api/nodes/register") for method in register} | {("POST", "/api/nodes/register/")}
    for method, path in sorted(others):
        answer = bare.request(method, path.replace("{", "x").replace("}", "x"))
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), (method, path)
        if method != "HEAD":
            assert answer.json()["code"] == "unauthorized" and "may enrol devices and nothing else" in answer.text

    key = CryptoSigner.generate_ed25519().public_key.to_dict()
    body = {"id": "node-9", "group": GROUP, "class": CLASS, "public_key": key}
    assert bare.post("/api/nodes/register", json=body).status_code == 201
    with stack.store.read() as reads:
        assert reads.device("node-9") is not None
    assert document["paths"]["/api/nodes/register"]["post"]["security"] == [{"token": []}, {"enrol-token": []}]
    assert document["paths"]["/api/nodes"]["get"]["security"] == [{"token": []}]


def test_register(stack: ServerStack, client: Client) -> None:
    key = CryptoSigner.generate_ed25519().public_key.to_dict()
    body = {"id": "node-9", "group": GROUP, "class": CLASS, "public_key": key}
    answer = client.post("/api/nodes/register", json=body)
    assert answer.status_code == 201
    assert (answer.json()["id"], answer.json()["class"]) == ("node-9", CLASS)
    root = stack.catalogue.require().root.data
    assert answer.json()["root"] == strict_json.loads(root, max_size=len(root))
    assert client.post("/api/nodes/register", json=body).status_code == 200
    other = body | {"public_key": CryptoSigner.generate_ed25519().public_key.to_dict()}
    answer = client.post("/api/nodes/register", json=other)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_nodes(stack: ServerStack, client: Client) -> None:
    stack.installed("node-1", "1.0.0", 1)
    nodes = client.get("/api/nodes").json()["nodes"]
    assert [node["id"] for node in nodes] == ["node-1", "node-2"]
    wanted = {"id", "group", "class", "available", "seen", "stage", "why", "sequence", "installed", "attack", "attacks"}
    assert wanted | {"telemetry", "health"} <= set(nodes[0])
    assert nodes[0]["installed"] == [{"package": "web", "version": "1.0.0", "counter": 1, "deployment": None}]
    assert client.get("/api/nodes", params={"group": "nothing"}).json()["code"] == "unknown-group"
    job = publish(client)["job_id"]
    stack.report(job, "node-1", "failed", code="io")
    detail = client.get("/api/nodes/node-1").json()
    assert [(attempt["deployment"], attempt["code"]) for attempt in detail["attempts"]] == [(job, "io")]
    assert client.get("/api/nodes/nobody").status_code == 404


def test_groups_and_moving(client: Client) -> None:
    moved = client.put("/api/nodes/node-2/group", json={"group": "line-2"}).json()
    assert moved["group"] == "line-2"
    groups = client.get("/api/groups").json()["groups"]
    assert [(group["name"], group["devices"]) for group in groups] == [(GROUP, 1), ("line-2", 1)]


def test_questions_to_a_device(stack: ServerStack, client: Client) -> None:
    services = [{"name": "web", "running": True, "pid": 7, "restarts": 0, "version": "1.0.0"}]
    health = {"verdict": "ok", "checks": []}
    results: dict[str, Json] = {
        "list-services": {"services": services},
        "fetch-logs": {"service": "web", "lines": ["a", "b"]},
        "check-health": health,
    }
    answering(stack, results)
    assert client.get("/api/nodes/node-1/services").json() == {"services": services}
    assert client.get("/api/nodes/node-1/logs/web?lines=2").json() == {"service": "web", "lines": ["a", "b"]}
    assert client.post("/api/nodes/node-1/status").json() == health
    assert client.post("/api/nodes/node-1/rollback", json={"package": None}).json()["detail"] == "so it is"
    assert client.post("/api/nodes/node-1/retry").status_code == 200
    answer = client.post("/api/health-checks", json={"group": GROUP}).json()
    assert answer == {"results": {"node-1": health, "node-2": health}}
    assert client.get("/api/nodes/node-1/logs/web?lines=0").json()["code"] == "bad-request"
    assert client.get("/api/nodes/node-1/logs/Web").json()["code"] == "bad-request"


def test_a_device_that_says_no_or_nothing(stack: ServerStack, client: Client) -> None:
    answer = client.post("/api/nodes/node-1/status")
    assert (answer.status_code, answer.json()["code"]) == (504, "offline")
    assert client.post("/api/health-checks").json()["results"]["node-1"]["code"] == "offline"
    answering(stack, {}, code="no-fallback")
    answer = client.post("/api/nodes/node-1/rollback")
    assert (answer.status_code, answer.json()) == (409, {"code": "no-fallback", "detail": "so it is"})


def test_a_device_that_answers_nonsense(stack: ServerStack, client: Client) -> None:
    answering(stack, {"list-services": {"services": "all of them"}, "fetch-logs": {"lines": 7}})
    for path in ("services", "logs/web"):
        answer = client.get(f"/api/nodes/node-1/{path}")
        assert (answer.status_code, answer.json()["code"]) == (504, "offline")


def test_a_removed_device_is_forgotten(stack: ServerStack, client: Client) -> None:
    answer = client.delete("/api/nodes/node-1")
    assert (answer.status_code, answer.json()["id"], answer.json()["group"]) == (200, "node-1", GROUP)
    assert [node["id"] for node in client.get("/api/nodes").json()["nodes"]] == ["node-2"]
    for again in (client.delete("/api/nodes/node-1"), client.get("/api/nodes/node-1")):
        assert (again.status_code, again.json()["code"]) == (404, "unknown-node")
    assert client.delete("/api/nodes/No%20Id").status_code == 400
    newest = client.get("/api/audit", params={"most": 1}).json()["entries"][0]
    assert (newest["who"], newest["verb"], newest["subject"]) == ("operator", "remove", "node-1")


def test_an_update_and_its_verbs(stack: ServerStack, client: Client) -> None:
    job = publish(client, update_id="monday", waves=[{"share": 50, "devices": ["node-1"]}, {"share": 100}], soak_s=0)
    assert (job["job_id"], job["state"], job["wave"], job["superseded"]) == ("monday", "active", -1, False)
    first, last = job["waves"]
    assert 1 <= first.pop("selected") <= last.pop("selected") == job["counts"]["devices"]
    assert first == {"share": 50.0, "devices": ["node-1"], "open": False}
    assert job["counts"]["devices"] == 2
    stack.tick()
    shown = client.get("/api/updates/monday").json()
    assert (shown["wave"], shown["waves"][0]["open"]) == (0, True)
    assert client.post("/api/updates/monday/hold", json={"reason": "lunch"}).json()["reason"] == "lunch"
    assert client.post("/api/updates/monday/hold").status_code == 409
    assert client.post("/api/updates/monday/resume").json()["state"] == "active"
    assert client.post("/api/updates/monday/advance").status_code == 200
    stack.tick()
    stack.report("monday", "node-1", "failed", code="io")
    shown = client.get("/api/updates/monday").json()
    assert shown["failures"] == [{"device": "node-1", "code": "io", "detail": ""}]
    assert (shown["counts"]["failed"], shown["counts"]["waiting"]) == (1, 1)
    answering(stack, {})
    retried = client.post("/api/updates/monday/retry").json()
    assert (retried["accepted"], retried["unanswered"], retried["counts"]["failed"]) == (["node-1"], [], 0)
    assert client.post("/api/updates/monday/rollback").json()["state"] == "recalled"
    assert client.post("/api/updates/monday/resume").json()["code"] == "wrong-state"


def test_an_update_tells_when_it_expires(client: Client, stack: ServerStack) -> None:
    stack.release("other", "1.0.0", 1)
    shown = publish(client, update_id="monday", expires_s=600)
    assert shown["expires"] == shown["created"] + 600
    assert publish(client, update_id="tuesday", package_name="other")["expires"] is None


def test_the_same_update_twice(client: Client) -> None:
    publish(client, update_id="monday")
    asked = {"update_type": "files", "package_name": "web", "package_version": "1.0.0", "group": GROUP}
    assert client.post("/api/updates", json=asked | {"update_id": "monday"}).status_code == 200
    answer = client.post("/api/updates", json=asked | {"update_id": "monday", "description": "another"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_listing_updates(stack: ServerStack, client: Client) -> None:
    first = publish(client, target_nodes=["node-1"], group=None)["job_id"]
    client.post(f"/api/updates/{first}/recall")
    stack.clock.ahead_s += 1
    second = publish(client)["job_id"]

    def listed(**query: str) -> list[str]:
        return [job["job_id"] for job in client.get("/api/updates", params=query).json()["updates"]]

    assert listed() == [second, first]
    assert (listed(state="recalled"), listed(state="active"), listed(group=GROUP)) == (
        [first],
        [second],
        [second, first],
    )
    assert client.get("/api/updates", params={"state": "finished"}).status_code == 400


def test_releases_and_the_catalogue_in_both_forms(stack: ServerStack, client: Client) -> None:
    release = client.get("/api/releases").json()["releases"][0]
    assert {"package", "version", "counter", "kind", "kinds", "classes", "targets", "text"} == set(release)
    stack.pack("web", "2.0.0", 2)
    targets = stack.desk.targets_bytes()
    assert targets is not None
    root = stack.desk.root().data
    answer = client.post("/api/catalogue", json={"root": [json.loads(root)], "targets": json.loads(targets)})
    assert answer.json() == {"root": 1, "targets": 3, "releases": 2, "missing": []}
    stack.pack("web", "3.0.0", 3)
    targets = stack.desk.targets_bytes()
    assert targets is not None
    files = [("root", ("1.root.json", root)), ("targets", ("4.targets.json", targets))]
    assert client.post("/api/catalogue", files=files).json()["releases"] == 3
    assert client.get("/api/releases").json()["releases"][0]["version"] == "3.0.0"


def test_an_artifact_up_and_down(client: Client) -> None:
    data = b"0123456789" * 1_000
    sha256 = hashlib.sha256(data).hexdigest()
    assert client.get(f"/artifacts/{sha256}").json()["code"] == "unknown-artifact"
    answer = client.put(f"/api/artifacts/{sha256}", content=data)
    assert (answer.status_code, answer.json()) == (201, {"sha256": sha256, "length": 10_000})
    del client.headers["authorization"]
    whole = client.get(f"/artifacts/{sha256}")
    assert (whole.content, whole.headers["etag"]) == (data, f'"{sha256}"')
    part = client.get(f"/artifacts/{sha256}", headers={"range": "bytes=5-14"})
    assert (part.status_code, part.content) == (206, b"5678901234")
    assert part.headers["content-range"] == "bytes 5-14/10000"
    resumed = client.get(f"/artifacts/{sha256}", headers={"range": "bytes=9990-", "if-range": f'"{sha256}"'})
    assert (resumed.status_code, resumed.content) == (206, b"0123456789")
    other = client.get(f"/artifacts/{sha256}", headers={"range": "bytes=9990-", "if-range": '"another"'})
    assert (other.status_code, len(other.content)) == (200, 10_000)
    assert client.get(f"/artifacts/{sha256}", headers={"range": "bytes=10000-"}).status_code == 416
    head = client.head(f"/artifacts/{sha256}")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "10000", b"")
    assert client.get(f"/artifacts/{sha256}", headers={"if-none-match": f'"{sha256}"'}).status_code == 304


def test_the_audit_log_and_the_metrics(client: Client) -> None:
    publish(client, update_id="monday")
    entry = client.get("/api/audit", params={"most": 1}).json()["entries"][0]
    assert (entry["who"], entry["verb"], entry["subject"]) == ("operator", "publish", "monday")
    text = client.get("/metrics").text
    assert 'fairlead_rollouts{state="active"} 1.0' in text
    assert "fairlead_devices 2.0" in text
