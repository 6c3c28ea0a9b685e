"""A virtual device for each module, where this machine can have one."""

from collections.abc import Iterator

import pytest

from tests.fakes import qemu
from tests.fakes.vm_site import VmSite, vm_site


@pytest.fixture(scope="module")
def vm(broker_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VmSite]:
    """A device that a user has set up, and its site."""
    reason = qemu.missing()
    if reason is not None:
        pytest.skip(reason)
    with vm_site(tmp_path_factory.mktemp("vm")) as site:
        yield site
