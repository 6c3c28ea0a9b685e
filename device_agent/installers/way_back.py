"""The .deb of a package that is installed, so that a release can be undone.

Looked for in this order: both slots, the way back that was put by before, apt's own downloads, the device's
repositories, and at last the installed files themselves.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from device_agent.adapters.files import fsync_dir, make_dir
from device_agent.installers.apt import Apt, Wanted
from device_agent.installers.crash import crash_point
from device_agent.installers.debian_control import Control
from device_agent.installers.dpkg import Dpkg
from device_agent.installers.slot_debs import SCRATCH, copy_durably
from fleet_protocol.errors import FleetError

_ARCHIVES: Final = "var/cache/apt/archives"


class WayBack:
    """For one part of a package. `own` is where what is found outside the slots is put by."""

    def __init__(self, root: Path, slots: Path, own: Path, dpkg: Dpkg, apt: Apt) -> None:
        self._root, self._slots, self._own, self._dpkg, self._apt = root, slots, own, dpkg, apt
        self._read: dict[Path, Control | None] = {}

    def find(self, control: Control) -> Path | None:
        """The .deb where it can be had without a network. Errors of the disk come as OSError."""
        for place in self._in_slots():
            if self._is_it(place, control):
                return place
        for place in self._archived(control):
            if self._is_it(place, control):
                return self._put_by(place, control)
        from device_agent.installers.rebuilt_deb import rebuild  # noqa: PLC0415 - seldom needed

        place = self._place(control)
        self._read.pop(place, None)
        return place if rebuild(control, self._root, self._dpkg, place) and self._is_it(place, control) else None

    def obtain(self, control: Control) -> Path | None:
        """The same, but rather a .deb of a repository than one that is rebuilt."""
        near = (*self._in_slots(), *self._archived(control))
        if self._apt.available and not any(self._is_it(place, control) for place in near):
            wanted = Wanted(name=control.name, version=control.version, architecture=control.architecture)
            try:
                found = self._apt.download(wanted)
            except FleetError:
                return self.find(control)
            if self._is_it(found, control):
                return self._put_by(found, control)
        return self.find(control)

    def _in_slots(self) -> Iterator[Path]:
        """A raw artifact is a file of the package's name; what apt is loading down is nobody's yet."""
        for place in (*self._slots.rglob("*.deb"), *self._slots.glob(f"[ab]/**/{self._slots.name}")):
            if place.is_file() and place.parent.parent.name != SCRATCH:
                yield place

    def _archived(self, control: Control) -> Iterator[Path]:
        return (self._root / _ARCHIVES).glob(f"{control.name}_*.deb")

    def _is_it(self, place: Path, control: Control) -> bool:
        found = self._control(place)
        if found is None or found.spec != control.spec or found.version != control.version:
            return False
        return self._dpkg.is_whole(place)

    def _control(self, place: Path) -> Control | None:
        """What a file says that it is; read once, for it is looked at for each package that changes."""
        if place not in self._read:
            try:
                self._read[place] = self._dpkg.read(place)
            except FleetError:
                self._read[place] = None
        return self._read[place]

    def _place(self, control: Control) -> Path:
        make_dir(self._own)
        return self._own / f"{control.name}.{control.architecture}.deb"

    def _put_by(self, source: Path, control: Control) -> Path:
        place = self._place(control)
        copy_durably(source, place.with_suffix(".new"))
        place.with_suffix(".new").replace(place)
        fsync_dir(self._own)
        crash_point("package.after_put_by")
        return place
