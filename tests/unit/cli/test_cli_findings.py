"""What the doctor makes of a server's answers."""

import time

import pytest

from server.cli import findings
from server.cli.findings import Finding, Verdict
from tests.fakes.scripted_api import health, job, node

GROUPS = [{"name": "line-1", "sequence": 3, "devices": 2}]


def verdicts(found: object) -> dict[str, Verdict]:
    return {finding.what: finding.verdict for finding in found}


def test_a_server_that_is_well() -> None:
    found = list(findings.of_server(health(), "http://127.0.0.1:8080"))
    assert verdicts(found) == {"server": "ok", "broker": "ok", "signing": "ok"}


def test_a_server_that_is_not() -> None:
    body = health(
        status="degraded",
        broker={"connected": False, "url": "mqtt://x"},
        signing="server",
        problems=["the catalogue expires in 2 h: sign it"],
    )
    found = list(findings.of_server(body, "http://fleet.example"))
    assert verdicts(found) == {"server": "ok", "health": "warn", "broker": "fail", "signing": "warn", "token": "warn"}
    assert any("sign it" in finding.text for finding in found)


def test_a_status_without_reasons_is_told_too() -> None:
    assert verdicts(findings.of_server(health(status="degraded"), "https://x"))["health"] == "warn"


@pytest.mark.parametrize(("apart_s", "verdict"), [(0, "ok"), (9, "ok"), (-11, "warn"), (299, "warn"), (301, "fail")])
def test_clocks_apart(apart_s: float, verdict: Verdict) -> None:
    assert findings.of_clock(1_000.0 + apart_s, 1_000.0).verdict == verdict


def test_a_server_without_a_clock() -> None:
    assert findings.of_clock(None, 1.0).verdict == "warn"


@pytest.mark.parametrize(("days", "verdict"), [(-1, "fail"), (1, "warn"), (13.9, "warn"), (15, "ok")])
def test_certificates_end(days: float, verdict: Verdict) -> None:
    assert findings.of_expiry("TLS", days * 86_400, 0.0, "renew it").verdict == verdict


def test_a_fleet_that_is_well() -> None:
    nodes = [node("a", seen=time.time()), node("b", seen=time.time() - 30)]
    assert set(verdicts(findings.of_devices(nodes, GROUPS)).values()) == {"ok"}


def test_a12_a_device_that_obeys_an_old_manifest_is_an_alarm() -> None:
    nodes = [node("a", seen=time.time()), node("b", seen=time.time(), sequence=2)]
    found = {finding.what: finding for finding in findings.of_devices(nodes, GROUPS)}
    assert found["manifests"].verdict == "warn"
    assert "b (2 of 3)" in found["manifests"].text
    assert "a (" not in found["manifests"].text


def test_a_device_that_is_away_obeys_an_old_manifest_rightly() -> None:
    nodes = [node("a", available=False, sequence=1)]
    assert verdicts(findings.of_devices(nodes, GROUPS))["manifests"] == "ok"


def test_silence_attack_and_absence_are_told() -> None:
    nodes = [
        node("mute", seen=time.time() - 700),
        node("never", seen=None),
        node("away", available=False, seen=1.0),
        node("hit", seen=time.time(), attacks={"signature": 1, "parse": 2}),
    ]
    found = {finding.what: finding for finding in findings.of_devices(nodes, GROUPS)}
    assert "mute, never" in found["heartbeats"].text
    assert "away" not in found["heartbeats"].text
    assert found["devices"].verdict == "warn"
    assert "hit (parse 2, signature 1)" in found["attacks"].text, "the report that named one may be lost"


def test_no_devices_and_no_rollouts() -> None:
    assert verdicts(findings.of_devices([], [])) == {"devices": "warn"}
    assert findings.of_rollouts([job("complete")]).verdict == "ok"
    assert findings.of_rollouts([job("held", reason="2 silent")]) == Finding(
        "rollouts", "warn", "held: d-1 (2 silent); fairlead resume or recall"
    )


def test_long_lists_are_cut() -> None:
    assert findings.some([str(number) for number in range(8)]) == "0, 1, 2, 3, 4 and 3 more"
