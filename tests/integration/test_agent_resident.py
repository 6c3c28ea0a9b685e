"""The agent as a real process on real brokers: it lives, obeys, reports, and survives what brokers and strangers do."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet_protocol import dsse, limits
from fleet_protocol.envelope import key_set, verify
from fleet_protocol.messages import COMMANDS, Health, Heartbeat, Reply, Report
from fleet_protocol.schema import from_payload, from_value
from tests.fakes.agent_process import AgentProcess, ServerSide, running_agent
from tests.fakes.brokers import BROKERS, RunningBroker
from tests.fakes.trust_fleet import Fleet
from tests.fakes.waiting import until

NODE = "node-1"


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningBroker]:
    with BROKERS[request.param](tmp_path) as broker:
        yield broker


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet()
    fleet.add_release("notes", "1.0.0", 1, data=b"first")
    fleet.add_release("notes", "1.1.0", 2, data=b"second")
    fleet.publish()
    return fleet


@pytest.fixture
def server(broker: RunningBroker, fleet: Fleet) -> Iterator[ServerSide]:
    side = ServerSide(broker, fleet)
    yield side
    side.close()


@pytest.fixture
def agent(tmp_path: Path, broker: RunningBroker, fleet: Fleet) -> Iterator[AgentProcess]:
    with running_agent(tmp_path / "agent", broker.url, fleet) as agent:
        yield agent


def _state(server: ServerSide) -> Any:
    return server.newest(NODE, "state")


def _obeyed(server: ServerSide, sequence: int) -> None:
    until(lambda: _state(server).get("sequence") == sequence, deadline_s=60)


def _attacks(server: ServerSide) -> dict[str, int]:
    reports = server.reports(NODE)
    return dict(reports[-1]["attacks"]) if reports else {}


def _enrol(server: ServerSide, fleet: Fleet) -> None:
    fleet.assignment()
    fleet.manifest()
    server.publish_all()
    _obeyed(server, fleet.sequence)


def test_it_says_what_it_is(agent: AgentProcess, server: ServerSide) -> None:
    until(lambda: server.heard(NODE, "availability") == [b"online"])
    until(lambda: len(server.heard(NODE, "heartbeat")) >= 3 and server.heard(NODE, "health"))
    heartbeat = from_value(Heartbeat, server.newest(NODE, "heartbeat"))
    assert heartbeat.stage == "idle"
    telemetry = server.newest(NODE, "telemetry")
    assert all(isinstance(value, (int, float)) for value in telemetry.values())
    assert {"cpu_percent", "memory_percent", "disk_percent", "load_1"} <= telemetry.keys()
    assert from_value(Health, server.newest(NODE, "health")).checks
    until(lambda: _state(server))
    assert all(not isinstance(value, (dict, list)) for value in _state(server).values())


def test_an_orderly_stop_says_offline(agent: AgentProcess, server: ServerSide) -> None:
    until(lambda: server.heard(NODE, "availability") == [b"online"])
    assert agent.kill(signal.SIGTERM) == 0
    until(lambda: server.heard(NODE, "availability")[-1] == b"offline")
    assert "stopped in good order" in agent.log.read_text()


def test_a_killed_agent_is_offline_by_its_will(agent: AgentProcess, server: ServerSide) -> None:
    until(lambda: server.heard(NODE, "availability") == [b"online"])
    agent.kill()
    until(lambda: server.heard(NODE, "availability")[-1] == b"offline", deadline_s=60)
    agent.start()
    until(lambda: server.heard(NODE, "availability")[-1] == b"online")


def test_it_is_assigned_obeys_and_reports(agent: AgentProcess, server: ServerSide, fleet: Fleet) -> None:
    _enrol(server, fleet)
    until(lambda: server.reports(NODE) and server.reports(NODE)[-1]["sequence"] == fleet.sequence, deadline_s=60)
    key = agent.init()
    role = key_set(1, {"k": key})
    for data in server.heard(NODE, "report"):
        envelope = dsse.decode(data, max_size=limits.REPORT_SIZE)
        renamed = dsse.Envelope(
            envelope.payload, envelope.payload_type, tuple(("k", s) for _, s in envelope.signatures)
        )
        report = from_payload(Report, verify(renamed, dsse.REPORT_TYPE, role), max_size=limits.REPORT_SIZE)
        assert (report.device, report.fleet) == (NODE, "acme")
    counters = [report["counter"] for report in server.reports(NODE)]
    assert counters == sorted(counters)


def test_a_second_agent_is_refused_in_one_line(agent: AgentProcess, server: ServerSide) -> None:
    until(lambda: server.heard(NODE, "heartbeat"))
    done = agent.command("run")
    assert done.returncode == 1
    assert "an agent already runs" in done.stderr
    assert done.stderr.count("\n") == 1


def test_status_and_doctor_while_it_runs(agent: AgentProcess, server: ServerSide, fleet: Fleet) -> None:
    _enrol(server, fleet)
    done = agent.command("status")
    assert "group" in done.stdout
    assert "line-1" in done.stdout, done.stderr
    value = json.loads(agent.command("status", "--json").stdout)
    assert value["broker"]["connected"] is True
    doctor = agent.command("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert server.heard(NODE, "availability") == [b"online"], "the agent keeps its connection"


def test_the_doctor_connects_where_no_agent_does_and_takes_nothing_that_waits(
    agent: AgentProcess, server: ServerSide, fleet: Fleet, broker: RunningBroker
) -> None:
    _enrol(server, fleet)
    agent.kill(signal.SIGTERM)
    server.publish(fleet.command_topic, fleet.command("list-services", id="c-1"), retain=False)
    doctor = agent.command("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "takes this device" in doctor.stdout
    if broker.kind == "mosquitto":  # amqtt keeps nothing for who is away
        agent.start()
        until(lambda: server.newest(NODE, "reply").get("id") == "c-1", deadline_s=60)


def test_commands_are_answered(agent: AgentProcess, server: ServerSide, fleet: Fleet) -> None:
    _enrol(server, fleet)
    replies: dict[str, Reply] = {}
    for name in COMMANDS:
        more = {"service": "web", "lines": 5} if name == "fetch-logs" else {}
        server.publish(fleet.command_topic, fleet.command(name, id=f"c-{name}", **more), retain=False)
        until(lambda name=name: server.newest(NODE, "reply").get("id") == f"c-{name}", deadline_s=60)
        replies[name] = from_payload(Reply, server.heard(NODE, "reply")[-1], max_size=limits.REPLY_SIZE)
    assert replies["check-health"].result["checks"]
    assert replies["list-services"].result == {"services": []}
    assert replies["fetch-logs"].code == "unknown-service"


def test_a_killed_broker_comes_back(
    agent: AgentProcess, server: ServerSide, fleet: Fleet, broker: RunningBroker
) -> None:
    _enrol(server, fleet)
    broker.kill()
    broker.restart()
    server.reconnected()
    beats = len(server.heard(NODE, "heartbeat"))
    until(lambda: len(server.heard(NODE, "heartbeat")) > beats + 1)
    fleet.manifest()
    server.publish_all()
    _obeyed(server, fleet.sequence)


def test_bad_documents_change_nothing_and_a_good_one_right_after_is_obeyed(
    agent: AgentProcess, server: ServerSide, fleet: Fleet
) -> None:
    _enrol(server, fleet)
    good = fleet.retained()[fleet.manifest_topic]
    altered = json.loads(good)
    altered["payload"] = (
        altered["payload"][:20] + ("A" if altered["payload"][20] != "A" else "B") + altered["payload"][21:]
    )
    bad = {
        "parse": b"\xef\xbb\xbf{}",
        "size": b"x" * (limits.MANIFEST_SIZE + 1),
        "signature": json.dumps(altered).encode(),
        "envelope": b"{}",
    }
    before = dict(_attacks(server))
    for code, payload in bad.items():
        server.publish(fleet.manifest_topic, payload)
        until(lambda code=code: _attacks(server).get(code, 0) > before.get(code, 0), deadline_s=60)
        until(lambda code=code: _state(server)["attack"] == code)
    server.publish(fleet.manifest_topic, b"")
    server.publish(fleet.manifest_topic, good)
    assert _state(server)["sequence"] == fleet.sequence
    fleet.manifest()
    server.publish_all()
    _obeyed(server, fleet.sequence)


def test_a_flood_of_bad_documents_does_not_stop_the_heartbeat(
    agent: AgentProcess, server: ServerSide, fleet: Fleet
) -> None:
    _enrol(server, fleet)
    process = psutil.Process(agent.pid)
    memory = process.memory_info().rss
    beats = len(server.heard(NODE, "heartbeat"))
    server.flood(fleet.manifest_topic, (b'{"n": %d, "x": "%s"}' % (number, b"y" * 20_000) for number in range(1_500)))
    until(lambda: len(server.heard(NODE, "heartbeat")) > beats + 2)
    assert process.memory_info().rss - memory < 8 * 1024 * 1024
    until(lambda: sum(_attacks(server).values()) > 0, deadline_s=60)
    fleet.manifest()
    server.publish_all()
    _obeyed(server, fleet.sequence)


def test_reports_made_offline_go_out_in_order(
    agent: AgentProcess, server: ServerSide, fleet: Fleet, broker: RunningBroker
) -> None:
    _enrol(server, fleet)
    until(lambda: not list((agent.state_dir / "outbox").glob("*.json")), deadline_s=60)
    known = len(server.reports(NODE))
    broker.kill()
    outbox = agent.state_dir / "outbox"
    for number in (1, 2):
        agent.kill()
        agent.start()
        until(lambda number=number: len(list(outbox.glob("*.json"))) >= number, deadline_s=60)
    agent.kill()
    broker.restart()
    server.reconnected()
    agent.start()
    until(lambda: len(server.reports(NODE)) >= known + 2, deadline_s=60)
    counters = [report["counter"] for report in server.reports(NODE)]
    assert counters == sorted(counters)
    until(lambda: not list((agent.state_dir / "outbox").glob("*.json")))


def test_a_lost_trust_store_stops_updates_and_nothing_else(
    agent: AgentProcess, server: ServerSide, fleet: Fleet
) -> None:
    _enrol(server, fleet)
    (agent.state_dir / "trust" / "floors.json").unlink()
    sequence = fleet.sequence
    fleet.manifest()
    server.publish_all()
    until(lambda: _attacks(server).get("untrusted", 0) > 0, deadline_s=60)
    beats = len(server.heard(NODE, "heartbeat"))
    until(lambda: len(server.heard(NODE, "heartbeat")) > beats + 1)
    assert _state(server)["sequence"] == sequence


def test_a_torn_journal_stops_updates_and_nothing_else(agent: AgentProcess, server: ServerSide, fleet: Fleet) -> None:
    _enrol(server, fleet)
    agent.kill()
    (agent.state_dir / "journal" / "record.json").write_text("torn")
    agent.start()
    until(lambda: str(_state(server).get("why", "")).startswith("untrusted"))
    beats = len(server.heard(NODE, "heartbeat"))
    until(lambda: len(server.heard(NODE, "heartbeat")) > beats + 1)


def test_no_process_is_left(agent: AgentProcess, server: ServerSide, fleet: Fleet) -> None:
    _enrol(server, fleet)
    children = psutil.Process(agent.pid).children(recursive=True)
    agent.kill(signal.SIGTERM)
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert len(gone) == len(children)
