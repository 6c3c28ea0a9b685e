"""What keeps a boot from loading modules that nobody knows: device_agent/installers/driver_config.py."""

from pathlib import Path

import pytest

from device_agent.installers.driver_config import Ban, is_blacklisted
from device_agent.installers.system_files import SystemFiles
from fleet_protocol.errors import InstallError

HEAD = "# An update is under way. The agent removes this file.\n"


@pytest.fixture
def ban(tmp_path: Path) -> Ban:
    return Ban(SystemFiles(tmp_path), "app")


def text(tmp_path: Path) -> str:
    return (tmp_path / "etc/modprobe.d/fairlead-app.conf").read_text()


def test_a_ban_is_a_blacklist_that_is_not_the_owner_s(ban: Ban, tmp_path: Path) -> None:
    ban.impose(["b_drv", "a_drv"])
    assert text(tmp_path) == f"{HEAD}blacklist a_drv\nblacklist b_drv\n"
    assert not is_blacklisted(SystemFiles(tmp_path), "a_drv")
    for _ in range(2):
        ban.lift()
    assert list((tmp_path / "etc/modprobe.d").iterdir()) == []


def test_imposed_again_it_forgets_nothing_unless_it_is_of_other_modules(ban: Ban) -> None:
    ban.impose(["a_drv"])
    ban.end_load(12.7)
    ban.impose(["a_drv"])
    assert ban.loaded_s == 12
    ban.impose(["a_drv", "b_drv"])
    assert ban.loaded_s is None


def test_a_ban_on_nothing_is_one(ban: Ban, tmp_path: Path) -> None:
    ban.impose([])
    assert text(tmp_path) == HEAD


def test_a_device_that_goes_down_twice_while_it_loads_gives_up(ban: Ban, tmp_path: Path) -> None:
    ban.impose(["a_drv"])
    for boot in ("0-a", "0-a", "0-b", "0-b"):
        ban.begin_load(boot)
    assert "blacklist a_drv\n" in text(tmp_path)
    for _ in range(2):
        with pytest.raises(InstallError) as caught:
            ban.begin_load("0-c")
        assert caught.value.code == "crashed"


def test_a_load_that_ended_is_forgiven(ban: Ban) -> None:
    ban.impose(["a_drv"])
    for boot in ("0-a", "0-b", "0-c", "0-d"):
        ban.begin_load(boot)
        assert ban.loaded_s is None
        ban.end_load(3.0)
        assert ban.loaded_s == 3
