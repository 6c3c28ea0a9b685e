"""Containers at a site: devices that start in half a second, one or twenty of them."""

import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes import lab_cache
from tests.fakes.agent_wheels import agent_wheels
from tests.fakes.debian_tree import debian_tree
from tests.fakes.device_site import DeviceSite, device_site
from tests.fakes.nspawn import Container


def wheels() -> Path:
    """The folder of wheels for the containers' Python, which each of them sees at the same place."""
    python = sorted((debian_tree() / "usr/bin").glob("python3.[0-9]*"))[0].name.removeprefix("python")
    return agent_wheels(platform.machine(), python)


def agent_layer() -> Path:
    """What the installation of the agent adds to a bare Debian: its program and its unit, and nothing of one device."""
    folder = wheels()

    def build(place: Path) -> None:
        with Container(debian_tree(), name="image", binds=[folder]) as device:
            device.start()
            device.do(f"{folder}/install-agent.sh")
            device.shut_down()
            device.upper.rename(place / "up")

    return lab_cache.cached("agent", lab_cache.digest([folder.name, debian_tree().parent.name]), build) / "up"


@dataclass
class ContainerSite:
    """A site and its containers, by name."""

    site: DeviceSite
    devices: dict[str, Container] = field(default_factory=dict)

    def device(self, name: str, *, settings: str = "") -> Container:
        """A device that has just been set up: installed, enrolled, seen by the server."""
        device = self.devices.get(name) or self.bare(name)
        device.start()
        self.install(name, settings=settings)
        self.site.online(name)
        return device

    def bare(self, name: str, *, memory_mb: int | None = None, program: bool = True) -> Container:
        """A device with nothing of its own, switched off; with the agent's `program` in its image, or without."""
        netns = self.site.hub.join(name, len(self.devices) + 1)
        layers = [agent_layer(), debian_tree()] if program else [debian_tree()]
        device = Container(layers, name=name, binds=[wheels()], netns=netns, memory_mb=memory_mb)
        self.devices[name] = device
        return device

    def install(self, name: str, *, settings: str = "") -> str:
        """Set it up, as a user does; returns what was said."""
        return self.site.install(self.devices[name], name, f"{wheels()}/install-agent.sh", settings=settings)

    def each(self, do: Callable[[Container], object]) -> None:
        """Do it with every device, some at a time."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(do, self.devices.values()))


@contextmanager
def container_site(home: Path) -> Iterator[ContainerSite]:
    """A site for containers; none of them is left afterwards."""
    agent_layer()
    with device_site(home, platform.machine()) as site:
        containers = ContainerSite(site)
        try:
            yield containers
        finally:
            containers.each(Container.close)
