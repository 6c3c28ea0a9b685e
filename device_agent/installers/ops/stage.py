"""Unpack the release's artifacts into its slot."""

import os
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

from device_agent.adapters.files import storing
from device_agent.adapters.foreign_folder import remove_entry
from device_agent.core.codec import from_json
from device_agent.core.plan import PlannedRelease, PlannedTarget
from device_agent.installers.cache import artifact_path
from device_agent.installers.crash import crash_point
from device_agent.installers.durability import sync_tree
from device_agent.installers.hashing import hash_lane
from device_agent.installers.port import Device
from device_agent.installers.registry import device_of, installer_of, parts_of
from device_agent.installers.slots import SlotName, Slots
from device_agent.installers.tree_writer import TreeWriter
from device_agent.installers.unpacking import unpack
from device_agent.worker.context import WorkerContext
from fleet_protocol.errors import FleetError, InstallError, ProtocolError

_SPARE_BYTES: Final = 1024 * 1024
_ENTRY_BYTES: Final = 4_096
"""What a file or directory takes on the disk besides its content, at most."""


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"release", "slot", "active", "irreversible"}` -> `{"tree"}`: the slot holds the release, synced.

    `tree` is the digest of what was written. `irreversible` says that the operator accepts a release that this device
    could not go back from. Raises InstallError `occupied` for the active slot, whoever says so. What fails gives the
    slot's space back.
    """
    release = from_json(PlannedRelease, args["release"])
    slot: SlotName = args["slot"]
    device = device_of(context.settings)
    slots = device.slots(release.package)
    installers = [(installer_of(part, device), part) for part in parts_of(release, slot)]
    if slot == args["active"]:
        raise InstallError("occupied", f"slot {slot} is the active one")
    with storing(f"staging {release.package}"):
        continued = slots.begin(slot, _content(release))
        try:
            tree = _fill(device, release, slot)
            if continued and not _holds(slots, slot, tree):
                slots.clear(slot)
                slots.begin(slot, _content(release))
                tree = _fill(device, release, slot)
            for installer, part in installers:
                installer.stage(part, irreversible=args["irreversible"])
        except (FleetError, OSError):
            slots.clear(slot)
            raise
    return {"tree": tree}


def _content(release: PlannedRelease) -> str:
    """Names what comes into the slot: unfinished content of the same name is continued."""
    return " ".join([release.package, release.version, *(target.sha256 for target in release.targets)])


def _fill(device: Device, release: PlannedRelease, slot: SlotName) -> str:
    """Write all targets; what is there already and equal is not written again."""
    slots = device.slots(release.package)
    with (
        slots.opened(slot) as root,
        hash_lane() as whole,
        hash_lane() as content,
        closing(TreeWriter(root, content)) as writer,
    ):
        _check_space(root, release)
        for target in release.targets:
            artifact = artifact_path(device.cache, target.sha256)
            try:
                unpack(artifact, target, release.package, writer, whole)
            except ProtocolError as error:
                if error.code == "digest":
                    remove_entry(artifact)
                raise
        entries, tree = len(writer), writer.records.digest()
    crash_point("stage.before_sync")
    sync_tree(slots.path(slot), entries)
    crash_point("stage.after_sync")
    return tree


def _check_space(root: int, release: PlannedRelease) -> None:
    """What is in the slot from an interrupted attempt counts as free: it is part of what is needed."""
    disk = os.fstatvfs(root)
    needed = sum(_needed(target) for target in release.targets)
    free = disk.f_bavail * disk.f_frsize + _used(root)
    if free < needed + _SPARE_BYTES:
        raise InstallError("no-space", f"{needed} bytes to install, {free} free")


def _needed(target: PlannedTarget) -> int:
    return target.unpacked_size + target.unpacked_files * _ENTRY_BYTES


def _used(root: int) -> int:
    """By the same measure as `_needed`, so that the rest of what was begun fits where the whole did."""
    total = 0
    for _, directories, files, directory in os.fwalk(dir_fd=root, topdown=True, follow_symlinks=False):
        total += _ENTRY_BYTES * (len(directories) + len(files))
        total += sum(os.stat(name, dir_fd=directory, follow_symlinks=False).st_size for name in files)
    return total


def _holds(slots: Slots, slot: SlotName, tree: str) -> bool:
    """Whether the disk has it so: a continued slot may hold more than the release."""
    try:
        slots.verify(slot, tree)
    except InstallError:
        return False
    return True
