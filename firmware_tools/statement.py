"""What a document says, in words, so that whoever signs knows what they sign."""

import hashlib
import shlex
from collections.abc import Iterator
from datetime import datetime

from tuf.api.metadata import Metadata, Root, Targets

from firmware_tools import debian
from firmware_tools.driver_files import driver_lines
from firmware_tools.keys import name_of
from firmware_tools.metadata import entry, floors
from firmware_tools.root_chain import RootDocument
from firmware_tools.unit_options import unit_lines
from fleet_protocol.catalogue import TargetInfo
from fleet_protocol.envelope import KeySet
from fleet_protocol.install import HealthCheck


def fingerprint(metadata: Metadata[Root] | Metadata[Targets]) -> str:
    """The head of the SHA-256 of what is signed, in groups of four, for reading out to another holder.

    Signatures do not change it, so that every holder sees the same on their own machine.
    """
    digest = hashlib.sha256(metadata.signed_bytes).hexdigest()[:32]
    return " ".join(digest[at : at + 4] for at in range(0, len(digest), 4))


def targets_lines(targets: Targets, signed: Targets | None) -> list[str]:
    """What the catalogue allows, and what is different from the one signed before."""
    lines = [f"catalogue version {targets.version}, valid until {_time(targets.expires)}"]
    before = {} if signed is None else {path: entry(signed, path) for path in signed.targets}
    after = {path: entry(targets, path) for path in targets.targets}
    for path in sorted(set(before) | set(after)):
        lines += _change_lines(path, before.get(path), after.get(path))
    old, new = ({} if signed is None else floors(signed)), floors(targets)
    for package in sorted(set(old) | set(new)):
        change = "floor" if old.get(package) == new.get(package) else "NEW FLOOR"
        lines.append(f"  {change}: nothing of {package} below counter {new.get(package, 0)} may be installed")
    return lines


def root_lines(root: RootDocument, signed: RootDocument | None) -> list[str]:
    """Who may sign what, and which keys come and go."""
    lines = [f"root version {root.version} of fleet {root.fleet}, valid until {_time(root.metadata.signed.expires)}"]
    for name, role in root.roles.items():
        lines.append(f"  {name}: {role.threshold} of {len(role.keys)} must sign: {', '.join(_names(role))}")
        if signed is not None:
            lines += [f"    {line}" for line in _key_changes(signed.roles[name], role)]
    return lines


def release_lines(info: TargetInfo, length: int, sha256: str) -> list[str]:
    """One artifact: what it is, what it runs and how it is judged."""
    part = f", part {info.part}" if info.part else ""
    lines = [
        f"{info.package} {info.version}{part}, counter {info.counter}, {info.kind}, for {', '.join(info.classes)}",
        f"  sha256 {sha256}, {length} bytes, unpacks to {info.unpacked_size} bytes in {info.unpacked_files} members",
    ]
    if info.install.exec:
        lines.append(f"  runs: {plain(shlex.join(info.install.exec))} (stopped within {info.install.stop_s} s)")
    if info.install.unit is not None:
        lines += [plain(line) for line in unit_lines(info.install.unit)]
    if info.install.driver is not None:
        lines += driver_lines(info.install.driver)
    if info.install.check is not None:
        lines.append(f"  is well when: {_check(info.install.check)}")
    lines += debian.release_lines(info.install)
    lines += [f"  requires {wanted.package} {wanted.sha256}" for wanted in info.requires]
    return lines + ([f"  says: {plain(info.text)}"] if info.text else [])


def plain(text: str) -> str:
    """One line that a terminal shows as it is: nothing in it can move the cursor, colour, hide or turn text around."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


Entry = tuple[TargetInfo, int, str]


def _change_lines(path: str, before: Entry | None, after: Entry | None) -> Iterator[str]:
    if after is None:
        yield f"  REMOVED {path}"
        return
    mark = "  as before:" if before == after else ("  NEW:" if before is None else "  CHANGED:")
    head, *rest = release_lines(*after)
    yield f"{mark} {head}"
    yield f"      {path}"
    yield from (f"    {line}" for line in rest if before != after)


def _key_changes(old: KeySet, new: KeySet) -> Iterator[str]:
    for word, there, other in (("NEW KEY", new.keys, old.keys), ("REMOVED KEY", old.keys, new.keys)):
        yield from (f"{word} {name_of(there[keyid])} ({plain(keyid)})" for keyid in sorted(set(there) - set(other)))
    if old.threshold != new.threshold:
        yield f"THRESHOLD was {old.threshold}, becomes {new.threshold}"


def _names(role: KeySet) -> list[str]:
    return sorted(f"{name_of(key)} ({plain(keyid)[:8]})" for keyid, key in role.keys.items())


def _check(check: HealthCheck) -> str:
    how = f"GET {plain(check.target)}" if check.kind == "http" else f"{plain(check.target)} ends with status 0"
    limits = f"every {check.interval_s} s, within {check.timeout_s} s"
    return f"{how}, {limits}; {check.failures} failures in a row are too many"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
