"""Which server and which token a command uses, and where a token never goes."""

from pathlib import Path

import pytest

from fleet_protocol.errors import PolicyError
from server.cli.session import DEFAULT_SERVER, Account, configuration_file, find_account
from server.client import ClientError, is_local

REMOTE = "https://fleet.example"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("FAIRLEAD_SERVER", "FAIRLEAD_TOKEN", "FAIRLEAD_DATA_DIR", "FAIRLEAD_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(text: str) -> None:
    configuration_file().parent.mkdir(parents=True)
    configuration_file().write_text(text)


def local_token(home: Path, folder: str = "fairlead-data") -> Path:
    (home / folder).mkdir()
    (home / folder / "token").write_text("local\n")
    return home / folder


def test_nothing_said_means_this_machine_and_no_token() -> None:
    assert find_account(None, None) == Account(DEFAULT_SERVER, None, None)


def test_a_local_servers_token_is_found(home: Path) -> None:
    local_token(home)
    assert find_account(None, None).token == "local"


def test_the_data_directory_may_be_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_DATA_DIR", str(local_token(home, "elsewhere")))
    assert find_account("http://localhost:9", None).token == "local"


@pytest.mark.parametrize("server", [REMOTE, "http://192.0.2.1:8080", "http://127.0.0.1.fleet.example"])
def test_a_local_servers_token_never_leaves_this_machine(home: Path, server: str) -> None:
    local_token(home)
    assert find_account(server, None).token is None


def test_the_configuration_files_token_goes_to_its_own_server_only(home: Path) -> None:
    configure(f'server = "{REMOTE}"\ntoken = "theirs"\nca_file = "/etc/ca.pem"\n')
    assert find_account(None, None) == Account(REMOTE, "theirs", Path("/etc/ca.pem"))
    assert find_account("https://other.example", None).token is None
    assert find_account(DEFAULT_SERVER, None).token is None


def test_a_token_file_of_the_configuration_is_read(home: Path) -> None:
    (home / "secret").write_text("theirs\n")
    configure(f'server = "{REMOTE}"\ntoken_file = "{home}/secret"\n')
    assert find_account(None, None).token == "theirs"


def test_variables_go_before_the_file_and_options_before_both(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(f'server = "{REMOTE}"\ntoken = "theirs"\n')
    monkeypatch.setenv("FAIRLEAD_SERVER", "http://variable")
    monkeypatch.setenv("FAIRLEAD_TOKEN", "variable")
    assert find_account(None, None) == Account("http://variable", "variable", None)
    assert find_account("http://option", "option") == Account("http://option", "option", None)


def test_a_token_may_stand_in_a_file(home: Path) -> None:
    (home / "secret").write_text("mine\n")
    assert find_account(None, f"@{home}/secret").token == "mine"
    (home / "secret").write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="not a token file"):
        find_account(None, f"@{home}/secret")


@pytest.mark.parametrize("text", ["server = ", "servr = 'x'", "token = 5", "\x00"])
def test_a_configuration_that_makes_no_sense_is_said(text: str) -> None:
    configure(text)
    with pytest.raises(PolicyError) as caught:
        find_account(None, None)
    assert caught.value.code == "setup"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://127.9.9.9", "http://[::1]:1", "https://localhost"])
def test_loopback_is_local(url: str) -> None:
    assert is_local(url)


@pytest.mark.parametrize("url", ["http://localhost.example", "http://127.0.0.1@evil.example", "http://10.0.0.1", ""])
def test_everything_else_is_not(url: str) -> None:
    assert not is_local(url)


def test_a_bad_certificate_file_is_said(home: Path) -> None:
    from server.client import Client

    (home / "ca.pem").write_text("no certificate")
    with pytest.raises(ClientError, match="not a file of certificates"):
        Client(REMOTE, None, ca_file=home / "ca.pem")
