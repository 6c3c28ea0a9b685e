"""Settings, the log, the data directory: what a server process begins with."""

import errno
import logging
import os
from pathlib import Path

import pytest
from loguru import logger

from firmware_tools import ceremony
from firmware_tools.export import export_server
from fleet_protocol.errors import PolicyError
from server.data_dir import DataDir
from server.log import masked, start_logging
from server.settings import Settings, load


def test_settings_are_frozen_and_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAIRLEAD_PORT", "1234")
    monkeypatch.setenv("FAIRLEAD_DATA_DIR", str(tmp_path))
    settings = load(fleet="acme")
    assert (settings.port, settings.fleet, settings.data_dir, settings.signing) == (1234, "acme", tmp_path, "online")
    assert settings.database == f"sqlite:///{tmp_path.resolve()}/fairlead.db"
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 70_000),
        ("fleet", "A b"),
        ("signing", "none"),
        ("topic_prefix", "a/+/b"),
        ("public_url", "ftp://x"),
        ("tick_s", 0),
        ("manifest_days", -1),
        ("log_level", "LOUD"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(name: str, value: object) -> None:
    with pytest.raises(PolicyError) as caught:
        load(**{name: value})
    assert caught.value.code == "setup"
    assert caught.value.detail.startswith(f"FAIRLEAD_{name.upper()}: ")
    assert "\n" not in caught.value.detail


def test_a_public_address_has_no_slash_at_its_end() -> None:
    assert Settings(public_url="https://updates.example/").public_url == "https://updates.example"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("mqtt://user:secret@broker:1883", "mqtt://user:***@broker:1883"),
        ("-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----", "***"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMC4CAQ", "***"),
        ("two\nlines", "two\\nlines"),
        ("as it is", "as it is"),
    ],
)
def test_secrets_and_line_breaks_do_not_reach_the_log(text: str, left: str) -> None:
    assert masked(text) == left


def test_the_log_is_bounded_and_shows_no_variables(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging("INFO")
    try:
        logger.info("x" * 100_000)
        secret = "hunter2"
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("with a traceback")
        shown = capsys.readouterr().err
        assert len(shown) < 20_000
        assert "broken" in shown and secret not in shown.replace('secret = "hunter2"', "")
    finally:
        logger.remove()


def test_signatures_that_are_not_there_yet_are_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    """python-tuf has a line for each key of a 2-of-3 role that has not signed, at every look at the catalogue."""
    start_logging("INFO")
    try:
        logging.getLogger("tuf.api._payload").info("No signature for keyid abc")
        logging.getLogger("tuf.api._payload").warning("something else")
        shown = capsys.readouterr().err
        assert "No signature" not in shown
        assert "something else" in shown
    finally:
        logger.remove()


def test_one_server_at_a_time(tmp_path: Path) -> None:
    first, second = DataDir(tmp_path / "data"), DataDir(tmp_path / "data")
    first.open()
    with pytest.raises(PolicyError, match="another server works in"):
        second.open()
    first.close()
    second.open()
    second.close()
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


def test_a_data_directory_is_of_the_fleet_of_its_newest_root(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "data")
    data.open()
    assert (data.fleet(None), data.fleet("acme")) == ("fleet", "acme"), "before there is a root"
    desk = ceremony.init(tmp_path / "desk", fleet="acme", now_s=0.0, threshold=1, keys=1)
    export_server(desk, data.path)
    assert (data.fleet(None), data.fleet("acme")) == ("acme", "acme")
    with pytest.raises(PolicyError, match="is of fleet acme, not of beta") as caught:
        data.fleet("beta")
    assert caught.value.code == "setup"
    metadata = data.path / "catalogue" / "metadata"
    metadata.rename(metadata.with_name("metadata.new"))
    assert data.fleet(None) == "acme", "as a crash in the middle of a replacement leaves it"
    (metadata / "1.root.json").write_bytes(b"{}")
    assert data.fleet("beta") == "beta", "that it is no root is the catalogue's to say"
    data.close()


def test_the_token_is_made_once_and_kept_private(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    token = data.token()
    assert len(token) >= 32 and data.token() == token
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    (tmp_path / "token").chmod(0o640)
    with pytest.raises(PolicyError, match="chmod 600"):
        data.token()


def test_the_enrolment_token_is_another_one(tmp_path: Path) -> None:
    tokens = DataDir(tmp_path).tokens()
    assert tokens.api != tokens.enrol and DataDir(tmp_path).tokens() == tokens
    assert (tmp_path / "enrol-token").stat().st_mode & 0o777 == 0o600
    (tmp_path / "enrol-token").write_text(tokens.api)
    with pytest.raises(PolicyError, match="holds the API token"):
        DataDir(tmp_path).tokens()
    (tmp_path / "enrol-token").unlink()
    again = DataDir(tmp_path).tokens()
    assert again.api == tokens.api and again.enrol != tokens.enrol, "who removes one gets another"


def test_a_disk_that_is_full_leaves_no_part_of_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        with pytest.raises(OSError, match="No space left"):
            DataDir(tmp_path).token()
    assert list(tmp_path.iterdir()) == []
    assert DataDir(tmp_path).token()


def _full(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("content", ["", "short", "ünïcödé-ünïcödé-ünïcödé", "a\nb" * 20])
def test_a_token_that_is_none(tmp_path: Path, content: str) -> None:
    descriptor = os.open(tmp_path / "token", os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    with pytest.raises(PolicyError, match="remove the file"):
        DataDir(tmp_path).token()


def test_a_directory_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PolicyError, match="can not be used"):
        DataDir(tmp_path / "file" / "data").open()
