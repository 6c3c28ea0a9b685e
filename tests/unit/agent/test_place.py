"""`fairlead-agent install --root`: an agent's place in an image, made twice, contradicted, and taken away."""

from pathlib import Path

import pytest

from broker_config.site import Site
from device_agent.cli import main
from device_agent.host.place import UNIT
from device_agent.settings import load

CONFIG = "etc/fairlead/agent.toml"
STATE = "var/lib/fairlead-agent"
WORDS = ("--device", "node-1", "--fleet", "acme", "--class", "aarch64", "--broker", "mqtts://broker.example")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.mkdir()
    return path


def _install(image: Path, *words: str) -> int:
    return main(["install", "--root", str(image), *words])


def _fails(image: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    before = _files(image)
    capsys.readouterr()
    assert _install(image, *words) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert _files(image) == before
    return said


def _files(image: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in image.rglob("*") if path.is_file() and not path.is_symlink()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `fairlead broker device` gives to a device."""
    site = Site(fleet="acme", hosts=("broker.example",))
    site.make(tmp_path / "broker")
    site.add_device(tmp_path / "broker", "node-1", "aarch64", tmp_path / "node-1", request=None)
    return tmp_path / "node-1"


def test_without_a_word_there_is_a_unit_that_waits_for_settings(image: Path) -> None:
    assert _install(image) == 0
    link = image / "etc/systemd/system/multi-user.target.wants" / UNIT
    assert link.readlink() == Path("/etc/systemd/system") / UNIT
    assert (image / STATE).stat().st_mode & 0o777 == 0o700
    assert not (image / CONFIG).exists()


def test_words_become_settings_and_twice_is_once(image: Path, tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text(name)
    words = (*WORDS, "--allow-host", "10.0.0.1", "--variable", 'NAME=a "b" \\ é', "--variable", "PORT=9000")
    certificates = [word for name in ("ca", "cert", "key") for word in (f"--broker-{name}", str(tmp_path / name))]
    assert _install(image, *words, *certificates) == 0
    settings = load(image / CONFIG)
    assert (settings.device, settings.fleet, settings.device_class) == ("node-1", "acme", "aarch64")
    assert (settings.broker.host, settings.broker.tls) == ("broker.example", True)
    assert settings.state_dir == Path("/") / STATE
    assert settings.worker_user == "fairlead-agent"
    assert settings.variables == {"NAME": 'a "b" \\ é', "PORT": "9000"}
    assert settings.download.allowed_hosts == ("10.0.0.1",)
    assert settings.broker.key_file == Path("/etc/fairlead/broker-key.pem")
    assert (image / "etc/fairlead/broker-key.pem").stat().st_mode & 0o777 == 0o600
    before = _files(image)
    assert _install(image, *words, *certificates) == 0
    assert _install(image) == 0
    assert _files(image) == before


def test_settings_of_its_owner_are_never_written_over(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _install(image, *WORDS) == 0
    with (image / CONFIG).open("a") as file:
        file.write("[intervals]\nheartbeat_s = 30\n")
    before = _files(image)
    assert _install(image, "--fleet", "acme") == 0
    assert _files(image) == before
    assert "says 'node-1' for --device" in _fails(image, capsys, "--device", "node-2")
    assert "names another ca_file" in _fails(image, capsys, "--broker-ca", __file__)


def test_the_folder_of_the_broker_becomes_settings(image: Path, folder: Path) -> None:
    assert _install(image, "--settings", str(folder)) == 0
    settings = load(image / CONFIG)
    assert (settings.device, settings.fleet, settings.state_dir) == ("node-1", "acme", Path("/") / STATE)
    assert settings.worker_user == "fairlead-agent"
    for path, mode in ((settings.broker.ca_file, 0o644), (settings.broker.key_file, 0o600)):
        assert path is not None
        assert path.stat().st_mode & 0o777 == mode
    before = _files(image)
    assert _install(image, "--settings", str(folder)) == 0
    assert _files(image) == before


def test_what_is_said_beside_the_folder_is_added_to_its_settings(image: Path, folder: Path) -> None:
    with (folder / "agent.toml").open("a") as file:
        file.write("[variables] # of this device\nNAME = 'kiosk'\n[log]\nlevel = 'error'\n")
    words = ("--settings", str(folder), "--device", "node-1", "--class", "aarch64")
    words += ("--variable", "PORT=9000", "--variable", "NAME=kiosk", "--allow-host", "10.0.0.1", "--allow-host", "*")
    assert _install(image, *words) == 0
    settings = load(image / CONFIG)
    assert settings.variables == {"NAME": "kiosk", "PORT": "9000"}
    assert settings.download.allowed_hosts == ("*", "broker.example", "10.0.0.1")
    assert settings.log.level == "error"
    before = _files(image)
    assert _install(image, *words) == 0
    assert _files(image) == before


def test_a_folder_without_tables_gets_them(image: Path, folder: Path) -> None:
    text = (folder / "agent.toml").read_text()
    (folder / "agent.toml").write_text(text[: text.index("\n[download]")])
    assert _install(image, "--settings", str(folder), "--variable", "A=1", "--allow-host", "10.0.0.1") == 0
    settings = load(image / CONFIG)
    assert (settings.variables, settings.http_port) == ({"A": "1"}, 0)
    assert settings.download.allowed_hosts == ("*", "10.0.0.1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--device", "other"), "says 'node-1' for --device"),
        (("--fleet", "other"), "says 'acme' for --fleet"),
        (("--class", "arm"), "says 'aarch64' for --class"),
        (("--broker", "mqtt://x"), "says 'mqtts://broker.example:8883' for --broker"),
        (("--broker-ca", __file__), "brings its own ca_file"),
        (("--variable", "NAME=b"), "says 'a' for --variable NAME"),
        (("--variable", "NAME"), "is not NAME=VALUE"),
        (("--variable", "A B=1"), "letters, digits and underscores"),
    ],
)
def test_what_contradicts_the_folder_is_refused_the_first_time_and_later(
    image: Path, folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    with (folder / "agent.toml").open("a") as file:
        file.write("[variables]\nNAME = 'a'\n")
    assert said in _fails(image, capsys, "--settings", str(folder), *words)
    assert _install(image, "--settings", str(folder)) == 0
    if words[1] != "A B=1":
        assert said in _fails(image, capsys, "--settings", str(folder), *words)


def test_what_the_settings_on_the_device_do_not_say_is_not_added_to_them(
    image: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are the owner's by then."""
    assert _install(image, "--settings", str(folder)) == 0
    said = _fails(image, capsys, "--settings", str(folder), "--variable", "PORT=9000")
    assert "agent.toml says nothing for --variable PORT: edit it" in said
    assert "does not allow the host '10.0.0.1'" in _fails(image, capsys, "--allow-host", "10.0.0.1")


def test_a_renewed_certificate_is_taken(image: Path, folder: Path) -> None:
    assert _install(image, "--settings", str(folder)) == 0
    (folder / "node-1.pem").write_text("renewed")
    assert _install(image, "--settings", str(folder)) == 0
    assert (image / "etc/fairlead/node-1.pem").read_text() == "renewed"


def test_a_folder_of_another_device_or_with_less_than_it_names_is_refused(
    image: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _install(image, *WORDS[:2], "--fleet", "other", *WORDS[4:]) == 0
    assert "is of node-1 of fleet other" in _fails(image, capsys, "--settings", str(folder))
    (folder / "node-1.key").unlink()
    assert "node-1.key, which is no file in" in _fails(image, capsys, "--settings", str(folder))
    assert "agent.toml" in _fails(image, capsys, "--settings", str(image / "nowhere"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (WORDS[:2], "so --fleet is needed"),
        ((*WORDS, "--broker-ca", "/nowhere"), "/nowhere: no such file"),
        ((*WORDS, "--variable", "PORT"), "is not NAME=VALUE"),
        ((*WORDS, "--variable", "A B=1"), "letters, digits and underscores"),
        ((*WORDS, "--broker-cert", __file__), "given together with key_file"),
        ((*WORDS[:2], "--fleet", "acme", "--broker", "http://x"), "mqtt://host:port"),
        (("--device", "Node 1", *WORDS[2:]), "a name of the form"),
        (("--config", "agent.toml"), "must be an absolute path"),
        (("--program", "/opt/my programs/agent"), "must be an absolute path"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_made(
    image: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert said in _fails(image, capsys, *words)


def test_the_unit_is_fitted_to_other_paths(image: Path) -> None:
    assert _install(image, "--config", "/srv/agent.toml", "--program", "/srv/bin/agent") == 0
    unit = (image / "etc/systemd/system" / UNIT).read_text()
    assert "ExecStart=/srv/bin/agent run --config /srv/agent.toml\n" in unit
    assert "/opt" not in unit


def test_uninstalled_it_keeps_what_is_the_owners_until_that_is_purged(image: Path, folder: Path) -> None:
    assert _install(image, "--settings", str(folder)) == 0
    (image / STATE / "device.pem").touch()
    (image / "etc/fairlead/notes").touch()
    assert main(["uninstall", "--root", str(image)]) == 0
    assert not list((image / "etc/systemd").rglob(UNIT))
    assert (image / CONFIG).exists()
    assert main(["uninstall", "--root", str(image), "--purge"]) == 0
    assert not (image / STATE).exists()
    assert [path.name for path in (image / "etc/fairlead").iterdir()] == ["notes"]


def test_an_image_with_a_relative_path_is_purged_of_keys_too(
    image: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(image.parent)
    assert main(["install", "--root", image.name, "--settings", folder.name]) == 0
    assert main(["uninstall", "--root", image.name, "--purge"]) == 0
    assert not (image / "etc/fairlead").exists()
