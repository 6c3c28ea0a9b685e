"""mosquitto's files against the topic types, and the tool that writes them. On a real broker: tests/attacks."""

from pathlib import Path

import pytest

from broker_config import tool
from broker_config.acl import DASHBOARD_READS, device_acl, service_acl
from broker_config.bounds import PACKET_MOST
from broker_config.mosquitto import (
    CONF,
    DEVICE_ACL,
    SERVICE_ACL,
    DeviceListener,
    MosquittoSettings,
    ServiceListener,
    Tls,
    render,
    render_loopback,
)
from fleet_protocol.errors import PolicyError
from fleet_protocol.topics import TOPIC_TYPES, Side, Topics

TLS = Tls(ca_file=Path("/ca.pem"), cert_file=Path("/b.pem"), key_file=Path("/b.key"), crl_file=Path("/crl.pem"))


def settings(**other: object) -> MosquittoSettings:
    defaults = {
        "home": Path("/etc/mosquitto"),
        "data_dir": Path("/var/lib/mosquitto"),
        "devices": DeviceListener(tls=TLS),
        "services": ServiceListener(tls=TLS, dashboards=("service.grafana",)),
    }
    return MosquittoSettings(**(defaults | other))


def rules(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_l1_a_device_writes_its_own_topics_and_no_others() -> None:
    written = {line.split()[-1] for line in rules(device_acl(Topics())) if " write " in line or "readwrite" in line}
    own = {f"fleet/v1/devices/%u/{kind.name}" for kind in TOPIC_TYPES if kind.publisher is Side.DEVICE}
    assert written == own


def test_l2_a_device_reads_what_its_server_says_to_all_or_to_it() -> None:
    read = {line.split()[-1] for line in rules(device_acl(Topics("a/b"))) if " read " in line}
    assert read == {
        "a/b/trust/root/+",
        "a/b/trust/timestamp",
        "a/b/trust/snapshot/+",
        "a/b/trust/targets/+",
        "a/b/trust/delegated/+/+",
        "a/b/groups/+/manifest",
        "a/b/devices/%u/assignment",
        "a/b/devices/%u/command",
    }


def test_l3_l4_the_server_may_everything_and_a_dashboard_reads_readings() -> None:
    text = service_acl(Topics(), "service.server", ["service.a", "service.b"])
    head, first, second = text.split("\n\n")
    assert len([line for line in head.splitlines() if "readwrite" in line]) == len(TOPIC_TYPES)
    for part, name in ((first, "service.a"), (second, "service.b")):
        lines = part.splitlines()
        assert lines[0] == f"user {name}"
        assert all(line.startswith("topic read ") for line in lines[1:])
        assert len(lines) == 2 + len(DASHBOARD_READS)
    for word in ("report", "reply", "command", "assignment"):
        assert word not in first


def test_l5_nobody_is_given_everything() -> None:
    files = render(settings())
    granted = {line.split()[-1] for name in (DEVICE_ACL, SERVICE_ACL) for line in rules(files[name])}
    assert [topic for topic in granted if "#" in topic] == ["$SYS/broker/#"]
    assert "$SYS" not in files[DEVICE_ACL]


def test_q1_to_q5_the_lines_that_carry_the_rules() -> None:
    conf = rules(render(settings())[CONF])
    devices = conf[conf.index("listener 8883") : conf.index("listener 8884")]
    services = conf[conf.index("listener 8884") :]
    for listener in (devices, services):
        assert "allow_anonymous false" in listener
        assert "use_username_as_clientid true" in listener
        assert "use_identity_as_username true" in listener
        assert "require_certificate true" in listener
        assert "crlfile /crl.pem" in listener
        assert "tls_version tlsv1.2" in listener
    assert "per_listener_settings true" in conf
    assert f"max_packet_size {PACKET_MOST}" in conf


def test_services_may_use_passwords_and_devices_never() -> None:
    services = ServiceListener(tls=TLS, password_file=Path("/etc/mosquitto/passwords"))
    conf = rules(render(settings(services=services))[CONF])
    part = conf[conf.index("listener 8884") :]
    assert "password_file /etc/mosquitto/passwords" in part
    assert "use_identity_as_username true" not in part
    assert not [line for line in conf[: conf.index("listener 8884")] if line.startswith("password_file")]


@pytest.mark.parametrize("bad", ["conf", "/etc\nallow_anonymous true", "/etc/\x1b"])
def test_a_path_can_not_add_a_line(bad: str) -> None:
    for make in (
        lambda: settings(home=Path(bad)),
        lambda: settings(data_dir=Path(bad)),
        lambda: Tls(ca_file=Path(bad), cert_file=Path("/a"), key_file=Path("/b")),
        lambda: ServiceListener(tls=TLS, password_file=Path(bad)),
        lambda: render_loopback(port=1, data_dir=Path(bad)),
    ):
        with pytest.raises(PolicyError):
            make()


@pytest.mark.parametrize("name", ["grafana", "service.server", "service.a\nuser x", "service."])
def test_a_dashboard_is_a_service_and_not_the_server(name: str) -> None:
    with pytest.raises(PolicyError):
        ServiceListener(tls=TLS, dashboards=(name,))


@pytest.mark.parametrize(("port", "address"), [(0, None), (70_000, None), (1883, ""), (1883, "a b"), (1883, "a\nb")])
def test_a_listener_is_a_port_and_an_address(port: int, address: str | None) -> None:
    with pytest.raises(PolicyError):
        render(settings(devices=DeviceListener(tls=TLS, port=port, address=address)))


def test_the_tool_makes_all_that_a_broker_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (
        "ca init --kind device --fleet acme --dir dev",
        "ca init --kind service --fleet acme --dir svc",
        "ca device node-1 --dir dev --out certs",
        "ca server broker.example 192.0.2.1 --dir svc --out certs",
        "ca service server --dir svc --out certs",
        "ca service grafana --dir svc --out certs",
        "ca revoke node-1 --dir dev",
        "render mosquitto --out conf --device-ca dev --service-ca svc --cert certs/broker.pem --key certs/broker.key "
        "--dashboard grafana --prefix acme/v1 --data data",
    ):
        assert tool.main(words.split()) == 0, words
    out = capsys.readouterr().out
    assert f"{tmp_path}/conf/mosquitto.conf" in out
    assert f"cafile {tmp_path}/dev/ca.pem" in (tmp_path / "conf/mosquitto.conf").read_text()
    assert "user service.grafana" in (tmp_path / "conf/services.acl").read_text()
    assert "acme/v1/devices/%u/state" in (tmp_path / "conf/devices.acl").read_text()
    assert sorted(path.name for path in (tmp_path / "certs").iterdir()) == [
        "broker.key", "broker.pem", "node-1.key", "node-1.pem", "service.grafana.key", "service.grafana.pem",
        "service.server.key", "service.server.pem",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("render mosquitto --out conf", "--device-ca, --service-ca, --cert, --key is missing"),
        ("render mosquitto --out conf --loopback 0", "not a port"),
        ("render mosquitto --out /proc/none --loopback 1883", "cannot write"),
        ("render mosquitto --out conf --device-ca a --service-ca b --cert c --key d --prefix a/#", "topic prefix"),
        ("ca device Node --dir none", "no authority in none"),
        ("ca init --kind device --fleet A/B --dir x", "fleet 'A/B'"),
        ("ca init --kind device --fleet a --dir x --passphrase-file none", "cannot read none"),
    ],
)
def test_the_tools_mistakes_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status = tool.main(words.split())
    err = capsys.readouterr().err
    assert (status, err.count("\n")) == (1, 1)
    assert said in err


def test_a_trials_broker_has_a_place_for_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert tool.main(["render", "mosquitto", "--loopback", "1883", "--out", "conf", "--data", "memory/of/it"]) == 0
    assert (tmp_path / "memory/of/it").is_dir()
    assert f"persistence_location {tmp_path}/memory/of/it/" in (tmp_path / "conf/mosquitto.conf").read_text()


@pytest.mark.parametrize(
    "words", ["", "frobnicate", "--frob", "render", "render nginx --out x", "ca", "ca init", "embedded --port x"]
)
def test_the_tools_wrong_usage_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str], words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        tool.main(words.split())
    err = capsys.readouterr().err
    assert (ended.value.code, err.count("\n")) == (2, 1)
    assert "--help" in err


@pytest.mark.parametrize("words", ["embedded", "render", "ca init"])
def test_help_says_how_it_was_called(capsys: pytest.CaptureFixture[str], words: str) -> None:
    with pytest.raises(SystemExit):
        tool.main([*words.split(), "--help"], program="fairlead broker")
    assert capsys.readouterr().out.startswith(f"usage: fairlead broker {words} ")


@pytest.mark.parametrize(
    ("name", "said"),
    [("ca.pem", "ca.pem is no certificate"), ("ca.key", "ca.key is no key"), ("issued.json", "issued.json")],
)
def test_a_damaged_authority_says_which_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tool.main(["ca", "init", "--kind", "device", "--fleet", "acme", "--dir", "dev"]) == 0
    (tmp_path / "dev" / name).write_bytes(b"\xff")
    assert tool.main(["ca", "device", "node-1", "--dir", "dev"]) == 1
    assert said in capsys.readouterr().err


def test_an_empty_passphrase_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An authority whose owner thinks that its key is encrypted would be worse than none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "passphrase").write_bytes(b"\nsecond line\n")
    assert (
        tool.main(
            ["ca", "init", "--kind", "device", "--fleet", "acme", "--dir", "dev", "--passphrase-file", "passphrase"]
        )
        == 1
    )
    assert "is empty" in capsys.readouterr().err
    assert not (tmp_path / "dev").exists()
