"""Two slots per package and the link that says which one is active.

1. The active slot is never written, whatever the caller believes to be active: the link is read.
2. Which slot is active changes in one atomic step.
3. A slot is emptied before other content comes into it; content of the same artifacts is continued.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, cast

from device_agent.adapters.files import (
    fsync_dir,
    make_dir,
    read_link,
    read_optional,
    remove,
    remove_tree,
    swap_symlink,
    write_atomic,
)
from device_agent.installers.crash import crash_point
from device_agent.installers.tree import tree_digest
from fleet_protocol.errors import InstallError
from fleet_protocol.ids import check_id

SlotName = Literal["a", "b"]
"""As in device_agent.core.record, whose import would cost each worker more than its work on a small release."""
_MARKER_MOST: Final = 16 * 1024


class Slots:
    """`slots/<package>/` below the state directory. Errors of the disk come as OSError."""

    def __init__(self, state_dir: Path, package: str) -> None:
        self._root = state_dir / "slots" / check_id(package, "package")
        self._link = self._root / "current"

    def path(self, slot: SlotName) -> Path:
        """The slot's directory. Raises InstallError `io` for a name that is no slot's."""
        if slot not in ("a", "b"):
            raise InstallError("io", f"there is no slot {slot!a}")
        return self._root / slot

    @property
    def active_path(self) -> Path:
        """The active slot's directory, by the link."""
        return self._link

    def debs(self, slot: SlotName) -> Path:
        """Where Debian packages are that belong to the slot and did not come in an artifact; gone with its content."""
        return self.path(slot).with_suffix(".debs")

    def active(self) -> SlotName | None:
        """What the link says; InstallError `altered` where it says something that no agent wrote."""
        target = read_link(self._link)
        if target not in ("a", "b", None):
            raise InstallError("altered", f"current points to {target!a}")
        return cast(SlotName | None, target)

    def begin(self, slot: SlotName, content: str) -> bool:
        """Make the slot ready for `content` (one line that names it); True where that was begun before.

        Raises InstallError `occupied` for the active slot.
        """
        self._check_spare(slot)
        make_dir(self._root)
        marker = self._marker(slot)
        if read_optional(marker, _MARKER_MOST) == content.encode() and self.path(slot).is_dir():
            return True
        crash_point("stage.before_clear")
        self.clear(slot)
        crash_point("stage.after_clear")
        write_atomic(marker, content.encode())
        crash_point("stage.after_marker")
        self.path(slot).mkdir(0o755)
        fsync_dir(self._root)
        return False

    @contextmanager
    def opened(self, slot: SlotName) -> Iterator[int]:
        """A descriptor of the slot's own directory, mode 0755."""
        descriptor = os.open(self.path(slot), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o755)
            yield descriptor
        finally:
            os.close(descriptor)

    def verify(self, slot: SlotName, tree: str) -> None:
        """InstallError `altered` unless the disk holds in this slot exactly what was written there."""
        found = tree_digest(self.path(slot))
        if found != tree:
            raise InstallError("altered", f"slot {slot} has tree {found[:16]}, {tree[:16]} was written")

    def settle(self, slot: SlotName) -> None:
        """The slot's content is no longer under construction: it is never continued from here on."""
        remove(self._marker(slot))

    def switch(self, slot: SlotName) -> None:
        """Make the slot active, atomically and durably; again is nothing."""
        if not self.path(slot).is_dir():
            raise InstallError("altered", f"slot {slot} is not there")
        swap_symlink(self._link, slot)

    def leave(self) -> None:
        """No slot is active any more: the package is gone."""
        remove(self._link)

    def clear(self, slot: SlotName) -> None:
        """The slot is empty and gives its space back. Raises InstallError `occupied` for the active one."""
        self._check_spare(slot)
        if self._root.is_dir():
            self.settle(slot)
            remove_tree(self.debs(slot))
            remove_tree(self.path(slot))

    def _check_spare(self, slot: SlotName) -> None:
        path = self.path(slot)
        if self.active() == slot:
            raise InstallError("occupied", f"slot {path.name} is the active one")

    def _marker(self, slot: SlotName) -> Path:
        return self.path(slot).with_suffix(".staging")
