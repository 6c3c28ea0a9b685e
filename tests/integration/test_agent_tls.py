"""The agent on a production broker: TLS, its certificate, and the access rules rendered from the topics."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker_config.ca import Authority, Kind
from broker_config.mosquitto import DeviceListener, MosquittoSettings, ServiceListener, Tls, render
from tests.fakes.agent_process import AgentProcess
from tests.fakes.brokers import RunningBroker
from tests.fakes.mqtt_peer import Peer
from tests.fakes.ports import HOST, reserved_ports
from tests.fakes.trust_fleet import Fleet
from tests.fakes.waiting import until

PREFIX = "fleet/v1/devices/node-1/"


@dataclass
class Production:
    """A broker with two authorities, and a client that is the server."""

    devices: Authority
    services: Authority
    broker: RunningBroker
    server: Peer
    home: Path

    def heard(self, topic: str) -> bytes:
        """The next message of that topic."""
        while (message := self.server.messages.get(timeout=60)).topic != topic:
            pass
        return message.payload


@pytest.fixture
def production(tmp_path: Path) -> Iterator[Production]:
    with reserved_ports(2) as (device_port, service_port):
        yield from _production(tmp_path, device_port, service_port)


def _production(tmp_path: Path, device_port: int, service_port: int) -> Iterator[Production]:
    home = tmp_path / "broker"
    (home / "data").mkdir(parents=True)
    devices = Authority.create(home / "devices", Kind.DEVICE, "acme")
    services = Authority.create(home / "services", Kind.SERVICE, "acme")
    cert, key = services.issue_server([HOST]).write(home, "server")
    assert key is not None
    settings = MosquittoSettings(
        home=home,
        data_dir=home / "data",
        devices=DeviceListener(
            tls=Tls(ca_file=devices.ca_file, cert_file=cert, key_file=key, crl_file=devices.crl_file),
            port=device_port,
            address=HOST,
        ),
        services=ServiceListener(
            tls=Tls(ca_file=services.ca_file, cert_file=cert, key_file=key), port=service_port, address=HOST
        ),
        user="root",
    )
    for name, text in render(settings).items():
        (home / name).write_text(text)
        (home / name).chmod(0o600)
    broker = RunningBroker(
        "mosquitto", HOST, device_port, home / "log", ["/usr/sbin/mosquitto", "-c", f"{home}/mosquitto.conf"]
    )
    broker.restart()
    context = ssl.create_default_context(cafile=str(services.ca_file))
    context.load_cert_chain(*services.issue_service("service.server").write(home, "service"))
    server = Peer(HOST, service_port, "server", tls=context)
    server.client.subscribe(PREFIX + "#", 1)
    yield Production(devices, services, broker, server, home)
    server.close()
    broker.kill()


def _agent(production: Production, tmp_path: Path, device: str, *, ca_file: Path | None = None) -> AgentProcess:
    cert, key = production.devices.issue_device(device).write(tmp_path, device)
    agent = AgentProcess(tmp_path / device, f"mqtts://{HOST}:{production.broker.port}", Fleet(device=device))
    text = agent.config.read_text()
    keys = f'ca_file = "{ca_file or production.services.ca_file}"\ncert_file = "{cert}"\nkey_file = "{key}"\n'
    agent.config.write_text(text.replace("[download]", keys + "[download]"))
    agent.init()
    return agent


@pytest.fixture
def started() -> Iterator[list[AgentProcess]]:
    agents: list[AgentProcess] = []
    yield agents
    for agent in agents:
        if agent.process is not None:
            agent.kill()


def test_a_device_with_its_certificate(production: Production, tmp_path: Path, started: list[AgentProcess]) -> None:
    agent = _agent(production, tmp_path, "node-1")
    started.append(agent)
    agent.start()
    assert production.heard(PREFIX + "availability") == b"online"
    for kind in ("heartbeat", "telemetry", "health", "state", "report"):
        assert production.heard(PREFIX + kind)
    assert "refused" not in agent.log.read_text()


def test_a_broker_of_another_authority_is_not_trusted(
    production: Production, tmp_path: Path, started: list[AgentProcess]
) -> None:
    other = Authority.create(tmp_path / "other", Kind.SERVICE, "acme")
    agent = _agent(production, tmp_path, "node-1", ca_file=other.ca_file)
    started.append(agent)
    agent.start()
    until(lambda: "certificate verify failed" in agent.log.read_text())


def test_a_revoked_certificate_does_not_connect(
    production: Production, tmp_path: Path, started: list[AgentProcess]
) -> None:
    agent = _agent(production, tmp_path, "node-1")
    production.devices.revoke("node-1")
    production.broker.restart()
    assert "certificate revoked" in _broker_line(agent, "BAD")
    started.append(agent)
    agent.start()
    until(lambda: "certificate revoked" in agent.log.read_text())
    assert "connected to" not in agent.log.read_text()
    assert " WARNING link: mqtts://" in agent.log.read_text()
    assert "certificate revoked" in _broker_line(agent, "BAD")


def test_the_doctor_connects_as_the_device_where_no_agent_does(
    production: Production, tmp_path: Path, started: list[AgentProcess]
) -> None:
    """And takes nothing of what waits for the agent, which it leaves its connection."""
    agent = _agent(production, tmp_path, "node-1")
    assert "takes this device" in _broker_line(agent, "ok")
    started.append(agent)
    agent.start()
    assert production.heard(PREFIX + "availability") == b"online"
    until(lambda: "connected to" in agent.log.read_text())
    assert "takes this device" in _broker_line(agent, "ok")
    assert "link: mqtts://" not in agent.log.read_text(), "its connection was lost"
    other = Authority.create(tmp_path / "other", Kind.SERVICE, "acme")
    agent.config.write_text(agent.config.read_text().replace(str(production.services.ca_file), str(other.ca_file)))
    agent.kill()
    assert "certificate verify failed" in _broker_line(agent, "BAD")


def _broker_line(agent: AgentProcess, word: str) -> str:
    done = agent.command("doctor")
    lines = [line for line in done.stdout.splitlines() if line.split()[:2] == [word, "broker"]]
    assert lines, done
    return lines[0]
