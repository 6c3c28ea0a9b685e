"""What goes from the release engineer's directory to the server: never an offline key."""

import shutil
from pathlib import Path

from firmware_tools import catalogue, keys
from firmware_tools.ceremony import ONLINE_ROLES
from firmware_tools.description import Description
from firmware_tools.files import make_private_directory, write_atomically, write_new_private
from firmware_tools.fleet import Fleet
from firmware_tools.metadata import entry
from fleet_protocol.errors import PolicyError


def export_server(fleet: Fleet, out: Path) -> list[Path]:
    """Copy keys, metadata and artifacts into the server's data directory, and return the files written.

    Layout: `keys/`, `catalogue/metadata/`, `artifacts/`. Files that are there already and the same stay. Raises
    PolicyError `wrong-state` where the newest root does not accept the catalogue, `unknown-artifact`, `keys`.
    """
    root, metadata = fleet.root(), fleet.targets()
    if metadata is None or not root.accepts_targets(metadata):
        raise PolicyError("wrong-state", "the catalogue is not signed under the newest root: sign its draft first")
    written = []
    for path in _online_keys(fleet):
        written += _copy_key(path, out / "keys" / path.name)
    for path in sorted(fleet.metadata.glob("[0-9]*.json")):
        place = out / "catalogue" / "metadata" / path.name
        if not place.is_file() or place.read_bytes() != path.read_bytes():
            write_atomically(place, path.read_bytes())
            written.append(place)
    for path_name in sorted(metadata.signed.targets):
        info, length, sha256 = entry(metadata.signed, path_name)
        found = Description(path=path_name, length=length, sha256=sha256, custom=info)
        written += _copy_artifact(fleet, found, out / "artifacts" / sha256)
    return written


def _online_keys(fleet: Fleet) -> list[Path]:
    """The online key files that the newest root lists; every online role must have one."""
    root = fleet.root()
    ids = {path: keys.load(path).public_key.keyid for path in sorted(fleet.online.glob("*.pem"))}
    found: list[Path] = []
    for role in ONLINE_ROLES:
        paths = [path for path, keyid in ids.items() if keyid in root.roles[role].keys]
        if len(paths) < root.roles[role].threshold:
            raise PolicyError("keys", f"{fleet.online} holds no {role} key of root {root.version}")
        found += paths
    return found


def _copy_key(path: Path, place: Path) -> list[Path]:
    if place.is_file() and place.read_bytes() == path.read_bytes():
        return []
    make_private_directory(place.parent)
    write_new_private(place, path.read_bytes())
    return [place]


def _copy_artifact(fleet: Fleet, found: Description, place: Path) -> list[Path]:
    source = fleet.artifact(found.sha256)
    if place.is_file() and place.stat().st_size == found.length:
        return []
    if not source.is_file():
        raise PolicyError("unknown-artifact", f"{found.path}: {source} is not on this machine; bring it")
    catalogue.check_measured(found, source)
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(place.name + ".part")
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
    return [place]
