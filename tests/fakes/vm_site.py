"""One virtual device at a site: it reaches the servers through QEMU's own network, as if from behind a router."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.device_site import DeviceSite, device_site
from tests.fakes.qemu import GOLDEN, VM
from tests.fakes.vm_image import WHEELS, base_image, golden_disk

NODE = "node-1"
_SETTINGS = "[intervals]\nreconnect_most_s = 5\nretry_most_s = 5\n"


@dataclass
class VmSite:
    """A site and its device."""

    site: DeviceSite
    device: VM

    def enrol(self) -> None:
        """Set the device up, as a user does, and wait until the server sees it."""
        self.site.install(self.device, NODE, f"{WHEELS}/install-agent.sh", settings=_SETTINGS)
        self.site.online(NODE)

    def power_cut_and_back(self, clock: str = "utc") -> None:
        """The plug is pulled, and put in again."""
        self.device.power_cut()
        self.device.start(clock=clock)


@contextmanager
def vm_site(home: Path) -> Iterator[VmSite]:
    """A site with a device that has just been set up."""
    disk = golden_disk(home)
    with device_site(home, "aarch64") as site, VM(disk, base_image(), home) as device:
        device.start(snapshot=GOLDEN)
        running = VmSite(site, device)
        running.enrol()
        yield running
