"""`signing = server`: keys at the first start, releases, and renewal before anything expires."""

from pathlib import Path

import pytest

from firmware_tools import description
from fleet_protocol.errors import PolicyError
from server.services.release_desk import ReleaseDesk
from tests.fakes.server_stack import DAY_S, FLEET, ServerStack


class DeskStack(ServerStack):
    """A server that holds all keys; `desk` of the stack is only a place to pack."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for path in (self.data / "keys").glob("*.pem"):
            path.unlink()
        self.own = ReleaseDesk(self.data / "keys", self.catalogue, self.uploading, fleet=FLEET, clock=self.clock)
        self.own.start(self.data / "artifacts")

    def add(self, version: str, counter: int) -> int:
        """Pack elsewhere, store, add; how many releases there are."""
        sha256 = self.pack("web", version, counter)
        packed = self.folder / f"web-{version}-x86_64"
        info = description.read(packed.with_suffix(packed.suffix + ".tar.zst")).custom
        return self.own.add(self.artifacts.path(sha256), sha256, info).releases


@pytest.fixture
def desk(tmp_path: Path) -> DeskStack:
    return DeskStack(tmp_path)


def versions(desk: DeskStack) -> tuple[int, int]:
    contents = desk.catalogue.require()
    return contents.root.version, contents.targets_version


def test_a_release_is_listed_and_can_be_published(desk: DeskStack) -> None:
    assert desk.add("1.0.0", 1) == 1
    desk.enrol("node-1")
    job = desk.publish(target_nodes=["node-1"])
    desk.tick()
    assert desk.deployment(job).version == "1.0.0"


def test_a_second_start_signs_nothing(desk: DeskStack) -> None:
    desk.add("1.0.0", 1)
    sent = len(desk.link.sent)
    desk.own.start(desk.data / "artifacts")
    assert len(desk.link.sent) == sent


def test_a_refused_release_leaves_nothing_behind(desk: DeskStack) -> None:
    desk.add("1.0.0", 1)
    before = versions(desk)
    sha256 = desk.pack("web", "2.0.0", 2)
    packed = desk.folder / "web-1.0.0-x86_64"
    wrong = description.read(packed.with_suffix(packed.suffix + ".tar.zst")).custom
    with pytest.raises(PolicyError) as caught:
        desk.own.add(desk.artifacts.path(sha256), sha256, wrong)
    assert caught.value.code in ("bad-request", "conflict")
    assert versions(desk) == before
    assert desk.add("3.0.0", 3) == 2


def test_root_and_catalogue_are_renewed_before_they_expire(desk: DeskStack) -> None:
    desk.add("1.0.0", 1)
    root, targets = versions(desk)
    assert not desk.own.renew()
    desk.clock.ahead_s += 75 * DAY_S
    assert desk.own.renew()
    assert versions(desk) == (root, targets + 1)
    assert not desk.own.renew()
    desk.clock.ahead_s += 275 * DAY_S
    assert desk.own.renew()
    assert versions(desk) == (root + 1, targets + 2)
