"""A broker in one directory: what `setup` and `device` make, and make again. On a real mosquitto: tests/acceptance."""

import os
import pwd
import ssl
import tomllib
from pathlib import Path

import pytest
from cryptography import x509

from broker_config import tool
from device_agent.settings import load as agent_settings
from fleet_protocol.errors import PolicyError
from server.settings import load as server_settings

NEW = "setup --dir broker --fleet acme --host broker.example --host 192.0.2.1"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("FAIRLEAD_")]:
        monkeypatch.delenv(name)
    return tmp_path


def does(words: str) -> None:
    assert tool.main(words.split()) == 0, words


def conf(home: Path) -> str:
    return (home / "broker/mosquitto/mosquitto.conf").read_text()


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_setup_makes_a_broker_that_stands_by_itself(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    does(NEW)
    assert f"mosquitto -c {home}/broker/mosquitto/mosquitto.conf" in capsys.readouterr().out
    lines = conf(home).splitlines()
    assert {"listener 8883", "listener 8884", f"persistence_location {home}/broker/data/"} <= set(lines)
    assert f"user {pwd.getpwuid(os.getuid()).pw_name}" in lines
    for line in lines:
        if line.split(" ")[0] in ("cafile", "certfile", "keyfile", "crlfile", "acl_file"):
            assert Path(line.split(" ", 1)[1]).is_file(), line
    names = certificate(home / "broker/certs/broker.pem").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert [path for path in home.rglob("*.key") if path.stat().st_mode & 0o077] == []
    assert (home / "broker/data").stat().st_mode & 0o077 == 0


def test_setup_again_renews_certificates_and_keeps_the_authorities(home: Path) -> None:
    does(NEW + " --dashboard grafana --prefix acme/v1 --device-port 1 --address 127.0.0.1")
    authorities = {path: path.read_bytes() for path in (home / "broker/ca").rglob("ca.*")}
    before = {path.name: path.read_bytes() for path in (home / "broker/certs").iterdir()}
    text = conf(home)
    does("setup --dir broker")
    assert {path: path.read_bytes() for path in authorities} == authorities
    after = {path.name: path.read_bytes() for path in (home / "broker/certs").iterdir()}
    assert set(after) == set(before) and "service.grafana.pem" in after
    assert not {name for name in after if after[name] == before[name]}
    assert conf(home) == text
    does("setup --dir broker --service-port 2 --host other.example")
    assert conf(home) == text.replace("listener 8884 ", "listener 2 ")


def test_the_server_finds_its_broker_by_the_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    does(NEW + " --prefix acme/v1")
    settings = server_settings(broker_dir=Path("broker"))
    assert (settings.broker_url, settings.fleet) == ("mqtts://broker.example:8884", "acme")
    assert settings.topic_prefix == "acme/v1"
    context = ssl.create_default_context(cafile=str(settings.broker_ca_file))
    context.load_cert_chain(str(settings.broker_cert_file), str(settings.broker_key_file))
    assert settings.broker_cert_file is not None and settings.broker_cert_file.is_absolute()
    monkeypatch.setenv("FAIRLEAD_BROKER_URL", "mqtts://inside.example:8884")
    chosen = server_settings(broker_dir=Path("broker"), fleet="other")
    assert (chosen.broker_url, chosen.fleet) == ("mqtts://inside.example:8884", "other"), "what was said goes first"


def test_a_device_gets_a_folder_with_which_it_connects(home: Path) -> None:
    does(NEW)
    does("device node-1 --dir broker --class aarch64")
    settings = agent_settings(home / "node-1/agent.toml")
    assert (settings.device, settings.fleet, settings.device_class) == ("node-1", "acme", "aarch64")
    assert (settings.broker.host, settings.broker.port, settings.broker.tls) == ("broker.example", 8883, True)
    assert settings.state_dir == home / "node-1/state"
    assert settings.http_port == 0, "so that `fairlead-agent status` has somebody to ask"
    assert settings.download.allowed_hosts == ("*", "broker.example", "192.0.2.1")
    context = ssl.create_default_context(cafile=str(settings.broker.ca_file))
    context.load_cert_chain(str(settings.broker.cert_file), str(settings.broker.key_file))
    subject = certificate(home / "node-1/node-1.pem").subject.rfc4514_string()
    assert subject == "CN=node-1"


def test_a_devices_own_settings_outlive_a_new_certificate(home: Path) -> None:
    does(NEW + " --prefix acme/v1 --device-port 1")
    does("device node-1 --dir broker --class aarch64 --out here")
    own = home / "here/agent.toml"
    assert tomllib.loads(own.read_text())["topic_prefix"] == "acme/v1"
    own.write_text(own.read_text() + "[log]\nlevel = 'error'\n")
    before = (home / "here/node-1.pem").read_bytes()
    does("device node-1 --dir broker --class aarch64 --out here")
    assert "[log]" in own.read_text()
    assert (home / "here/node-1.pem").read_bytes() != before


def test_a_device_that_made_its_own_key_gets_no_other(home: Path) -> None:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node-1")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    (home / "node-1.csr").write_bytes(request.public_bytes(serialization.Encoding.PEM))
    does(NEW)
    does("device node-1 --dir broker --class aarch64 --csr node-1.csr")
    assert certificate(home / "node-1/node-1.pem").public_key() == key.public_key()
    assert not (home / "node-1/node-1.key").exists()


def test_an_address_with_colons_stands_in_brackets(home: Path) -> None:
    does("setup --dir broker --fleet acme --host 2001:db8::1")
    does("device node-1 --dir broker --class aarch64")
    assert server_settings(broker_dir=Path("broker")).broker_url == "mqtts://[2001:db8::1]:8884"
    assert agent_settings(home / "node-1/agent.toml").broker.host == "2001:db8::1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("setup --dir broker", "broker is new: say --fleet and --host"),
        ("setup --dir broker --fleet acme", "say --host"),
        ("setup --dir broker --fleet A/B --host x", "fleet 'A/B'"),
        ("setup --dir broker --fleet acme --host a_b/c", "is not a host name"),
        ("setup --dir /proc/none --fleet acme --host x", "cannot write"),
        ("device node-1 --dir none --class x", "none holds no broker"),
        ("setup --dir known --fleet other", "is the broker of fleet acme"),
        ("device Node --dir known --class x", "device 'Node'"),
        ("device node-1 --dir known --class 'X'", "class"),
        ("setup --dir torn", "torn/site.json cannot be read"),
        ("setup --dir odd", "is not what `setup` wrote"),
        ("setup --dir odder", "is not what `setup` wrote"),
    ],
)
def test_a_mistake_is_one_line(home: Path, capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    does("setup --dir known --fleet acme --host x")
    for name, text in (("torn", "{"), ("odd", "[]"), ("odder", '{"fleet": "a", "hosts": ["x"], "device_port": "1"}')):
        (home / name).mkdir()
        (home / name / "site.json").write_text(text)
    capsys.readouterr()
    status = tool.main(words.split())
    err = capsys.readouterr().err
    assert (status, err.count("\n")) == (1, 1), err
    assert said in err


def test_a_server_with_a_directory_that_holds_no_broker_says_so(home: Path) -> None:
    with pytest.raises(PolicyError, match="holds no broker"):
        server_settings(broker_dir=home / "nothing")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_hands_over_what_mosquitto_must_read(home: Path) -> None:
    does(NEW + " --user nobody")
    owner = pwd.getpwnam("nobody").pw_uid
    assert {(home / "broker" / name).stat().st_uid for name in ("data", "certs/broker.key")} == {owner}
    assert (home / "broker/certs/service.server.key").stat().st_uid == 0
    assert "user nobody" in conf(home)
    assert tool.main(["setup", "--dir", "broker", "--user", "no-such-account"]) == 1
