"""The settings file: every value checked, every mistake one line."""

from pathlib import Path

import pytest

from device_agent.settings import AgentSettings, Intervals, load
from fleet_protocol.errors import PolicyError

LEAST = 'device = "node-1"\nfleet = "acme"\nclass = "x86_64"\nstate_dir = "state"\n'


def _load(tmp_path: Path, text: str) -> AgentSettings:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return load(path)


def test_least_file_gives_defaults(tmp_path: Path) -> None:
    settings = _load(tmp_path, LEAST)
    assert (settings.device, settings.fleet, settings.device_class) == ("node-1", "acme", "x86_64")
    assert settings.state_dir == tmp_path / "state"
    assert settings.broker.port == 1883
    assert settings.http_port is None
    assert settings.worker_user is None
    assert settings.intervals == Intervals()
    assert (settings.service_manager, settings.unit_user) == ("auto", None)
    assert settings.path == tmp_path / "agent.toml"


def test_full_file(tmp_path: Path) -> None:
    settings = _load(
        tmp_path,
        LEAST + 'topic_prefix = "a/b"\nstop_services_on_exit = true\nservice_manager = "systemd"\nunit_user = "kiosk"\n'
        'worker_user = "fairlead-agent"\n'
        '[broker]\nurl = "mqtts://broker.example"\nca_file = "ca.pem"\nkeepalive_s = 30\n'
        '[download]\nallowed_hosts = ["*", "127.0.0.1"]\n[http]\nport = 0\n[intervals]\nheartbeat_s = 1\n'
        '[thresholds]\ncpu_percent = 50\n[probes]\ninternet = "example.org:443"\n[variables]\nPORT = "9001"\n',
    )
    assert (settings.broker.host, settings.broker.port, settings.broker.tls) == ("broker.example", 8883, True)
    assert settings.broker.ca_file == tmp_path / "ca.pem"
    assert settings.download.allowed_hosts == ("*", "127.0.0.1")
    assert settings.http_port == 0
    assert settings.worker_user == "fairlead-agent"
    assert settings.intervals.heartbeat_s == 1.0
    assert settings.thresholds.cpu_percent == 50
    assert settings.variables == {"PORT": "9001"}
    assert (settings.service_manager, settings.unit_user) == ("systemd", "kiosk")
    assert settings.topics.prefix == "a/b"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("device = ", "agent.toml"),
        ('fleet = "acme"\nclass = "x"\nstate_dir = "s"\n', "device must be"),
        (LEAST.replace("node-1", "Node/1"), "device must be"),
        (LEAST + "heartbeat_s = 3\n", "unknown key heartbeat_s"),
        (LEAST + "[intervals]\nheartbeats_s = 3\n", "unknown key [intervals] heartbeats_s"),
        (LEAST + "[intervals]\nheartbeat_s = true\n", "[intervals] heartbeat_s must be a number"),
        (LEAST + '[broker]\nurl = "http://x"\n', "[broker] url must be"),
        (LEAST + '[broker]\nurl = "mqtt://u:p@x"\n', "[broker] url must be"),
        (LEAST + '[broker]\nurl = "mqtt://x:99999"\n', "[broker] url must be"),
        (LEAST + '[broker]\ncert_file = "c"\n', "together with key_file"),
        (LEAST + "[http]\nport = 70000\n", "[http] port must be"),
        (LEAST + "broker = 3\n", "broker must be a table"),
        (LEAST + "worker_user = 0\n", "worker_user must be a text"),
        (LEAST + 'topic_prefix = "a/#"\n', "topic_prefix must be"),
        (LEAST + "[variables]\nPORT = 9001\n", "[variables] PORT must be a text"),
        (LEAST + '[variables]\n"A-B" = "1"\n', "A-B must be named"),
        (LEAST + '[download]\nallowed_hosts = "x"\n', "allowed_hosts must be a list"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, names: str) -> None:
    with pytest.raises(PolicyError) as caught:
        _load(tmp_path, text)
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code == "setup"


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        load(tmp_path / "none.toml")
