"""A9, A27 and invariant K3: the device's memory is lost, torn, or taken from another time."""

import random
from pathlib import Path

import pytest

from device_agent.enrolment import check_first_root
from device_agent.trust.store import initialise
from fleet_protocol.errors import PolicyError, ProtocolError
from tests.fakes.trust_device import TrustDevice, enrolled, still_obeys
from tests.fakes.trust_fleet import Fleet


def everything(fleet: Fleet, device: TrustDevice) -> set[str | None]:
    """The codes of all that a device may be asked, for valid documents and old ones alike."""
    old = fleet.manifest(fleet.deployment(), sequence=1)
    new = fleet.manifest(fleet.deployment())
    assignment, command = fleet.assignment(), fleet.command(id="c-9")
    offers = [
        lambda: device.offer_manifest(old),
        lambda: device.offer_manifest(new),
        lambda: device.offer_assignment(assignment),
        lambda: device.offer_command(command),
        device.refresh,
    ]
    return {device.attempt(offer) for offer in offers}


def files(device: TrustDevice) -> list[Path]:
    """What the device's trust is made of."""
    base = device.settings.state_dir / "trust"
    return [base / name for name in device.trusted()]


def test_a_store_without_any_one_of_its_files_is_untrusted(tmp_path: Path) -> None:
    """Deleting the floors brings no replay through: there are no updates at all until a person acts."""
    for index in range(5):
        fleet, device = enrolled(tmp_path / str(index))
        files(device)[index].unlink()
        assert everything(fleet, device) == {"untrusted"}


def test_a_store_that_is_gone_is_untrusted(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    for path in files(device):
        path.unlink()
    assert everything(fleet, device) == {"untrusted"}
    (tmp_path / "trust").rename(tmp_path / "elsewhere")
    assert everything(fleet, device) == {"untrusted"}


def test_a_file_torn_or_altered_at_any_byte_is_untrusted(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    luck = random.Random(3)
    for path in files(device):
        good = path.read_bytes()
        for _ in range(40):
            altered = bytearray(good)
            altered[luck.randrange(len(good) - 1)] ^= luck.randrange(1, 256)
            path.write_bytes(altered)
            assert device.attempt(device.refresh) == "untrusted", path
        for length in (0, 1, len(good) // 2, len(good) - 2):
            path.write_bytes(good[:length])
            assert device.attempt(device.refresh) == "untrusted", path
        path.write_bytes(good + good)
        assert device.attempt(device.refresh) == "untrusted", path
        path.write_bytes(good)
    still_obeys(fleet, device)


def test_metadata_of_another_time_is_untrusted(tmp_path: Path) -> None:
    """A9: each file by itself is validly signed, but it is not the one that the floors name."""
    fleet, device = enrolled(tmp_path)
    base = tmp_path / "trust"
    old = {name: data for name, data in device.trusted().items() if name != "floors.json"}
    fleet.rotate()
    fleet.publish()
    device.refresh()
    for name, data in old.items():
        now = next(base.glob("metadata-*")) / Path(name).name
        kept = now.read_bytes()
        now.write_bytes(data)
        assert everything(fleet, device) == {"untrusted"}, name
        now.write_bytes(kept)
    still_obeys(fleet, device)


def test_floors_of_another_device_do_not_fit(tmp_path: Path) -> None:
    """A checksum alone does not make floors fit to metadata."""
    fleet, device = enrolled(tmp_path / "one")
    other = TrustDevice(fleet, tmp_path / "two")
    stolen = (tmp_path / "two" / "trust" / "floors.json").read_bytes()
    (tmp_path / "one" / "trust" / "floors.json").write_bytes(stolen)
    assert everything(fleet, device) == {"untrusted"}
    other.refresh()


def test_only_a_person_begins_again(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    newer = fleet.rotate()
    with pytest.raises(PolicyError, match="conflict"):
        initialise(tmp_path, newer)
    assert not initialise(tmp_path, fleet.first_root)
    (tmp_path / "trust" / "floors.json").unlink()
    with pytest.raises(ProtocolError, match="untrusted"):
        initialise(tmp_path, fleet.first_root)
    assert initialise(tmp_path, newer, replace_store=True)
    assert device.offer_manifest(fleet.manifest(fleet.deployment()))["root"] == 2
    still_obeys(fleet, device)


@pytest.mark.parametrize("name", ["signature", "fleet", "type", "parse", "threshold"])
def test_a_first_root_is_judged_too(name: str) -> None:
    fleet = Fleet()
    bad = {
        "signature": fleet.sign_metadata(fleet.make_root(1), fleet.keys.root[:1]),
        "fleet": Fleet(fleet="other").first_root,
        "type": fleet.sign_metadata(fleet.make_targets(1), fleet.keys.root),
        "parse": fleet.first_root[:-1],
        "threshold": Fleet(thresholds={"root": 4}).first_root,
    }[name]
    with pytest.raises(ProtocolError):
        check_first_root(bad, fleet.fleet)
    check_first_root(fleet.first_root, fleet.fleet)
