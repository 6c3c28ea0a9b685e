"""Devices for tests, where this machine can have them."""

import shutil
from collections.abc import Iterator

import pytest

from tests.fakes import nspawn
from tests.fakes.container_site import ContainerSite, container_site
from tests.fakes.device_site import DeviceSite


@pytest.fixture(scope="session")
def broker_installed() -> None:
    """Skips where there is no production broker."""
    if not shutil.which("mosquitto", path="/usr/sbin:/usr/bin"):
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")


@pytest.fixture(scope="module")
def containers(broker_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerSite]:
    """A site of one module's tests, which set up their own devices."""
    reason = nspawn.missing()
    if reason is not None:
        pytest.skip(reason)
    with container_site(tmp_path_factory.mktemp("site")) as containers:
        yield containers


@pytest.fixture(scope="module")
def site(containers: ContainerSite) -> DeviceSite:
    """The servers of that site."""
    return containers.site
