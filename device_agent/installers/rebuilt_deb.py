"""A .deb made of a package's installed files, for where its own is nowhere to be had.

1. It brings back what is installed now: content, modes, owners, scripts. It is for this device alone.
2. A configuration file that the owner changed or removed is not in it as it is: dpkg would take the change for the
   package's own, and overwrite it with the next version. What is in it instead is never seen: the file itself is in
   the backup.
3. Nothing is made where that would not be the package: files are diverted, or it is not all unpacked.
"""

import hashlib
import io
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

from device_agent.adapters.files import fsync_dir, make_dir
from device_agent.installers.crash import crash_point
from device_agent.installers.debian_control import Control
from device_agent.installers.dpkg import Dpkg

_NOT_CONTROL: Final = re.compile(r"^(Status|Conffiles|Config-Version|Triggers-\w+):.*\n(?:[ \t].*\n)*", re.MULTILINE)
_CONFFILE: Final = re.compile(r"^ (/.*) ([0-9a-f]{32})$", re.MULTILINE)
_OBSOLETE: Final = re.compile(r"^ (/.*) [0-9a-f]{32} obsolete$", re.MULTILINE)
_STANDING: Final = re.compile(r"^Status: \w+ ok (installed|half-configured|triggers-\w+)$", re.MULTILINE)
_CHANGED: Final = b"# changed by the owner of the device before the update\n"


def rebuild(control: Control, root: Path, dpkg: Dpkg, out: Path) -> bool:
    """Whether `out` is now a .deb of the installed package, durably. Errors of the disk come as OSError."""
    paragraph, listing = dpkg.control_text(control.spec), dpkg.files(control.spec)
    if _STANDING.search(paragraph) is None:
        return False
    if listing.status != 0 or re.search(r"^(?:locally )?diverted|^package diverts", listing.output, re.MULTILINE):
        return False
    make_dir(out.parent)
    temporary = out.with_suffix(".new")
    conffiles = dict(_CONFFILE.findall(paragraph))
    files = {name: path.read_bytes() for name, path in dpkg.control_files(control.spec).items()}
    files["conffiles"] = "".join(f"{path}\n" for path in conffiles).encode()
    with temporary.open("w+b") as deb:
        deb.write(b"!<arch>\n")
        with _Member(deb, "debian-binary"):
            deb.write(b"2.0\n")
        with _Member(deb, "control.tar"):
            _write_control(deb, _NOT_CONTROL.sub("", paragraph), files)
        with _Member(deb, "data.tar"):
            obsolete = _OBSOLETE.findall(paragraph)
            paths = [path for path in listing.output.splitlines() if path not in obsolete]
            _write_data(deb, root, paths, conffiles)
        deb.flush()
        os.fsync(deb.fileno())
    temporary.replace(out)
    fsync_dir(out.parent)
    crash_point("package.after_rebuild")
    return True


class _Member:
    """One member of an ar archive (deb(5)), whose size is known at its end."""

    def __init__(self, deb: IO[bytes], name: str) -> None:
        self._deb, self._name = deb, name

    def __enter__(self) -> None:
        self._deb.write(bytes(60))
        self._start = self._deb.tell()

    def __exit__(self, *_: object) -> None:
        end = self._deb.tell()
        size = end - self._start
        self._deb.seek(self._start - 60)
        self._deb.write(f"{self._name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{size:<10}`\n".encode("ascii"))
        self._deb.seek(end)
        self._deb.write(b"\n" * (size % 2))


def _write_control(deb: IO[bytes], paragraph: str, files: Mapping[str, bytes]) -> None:
    with tarfile.open(fileobj=deb, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in {"control": paragraph.encode(), **files}.items():
            info = tarfile.TarInfo(f"./{name}")
            script = name in ("preinst", "postinst", "prerm", "postrm", "config")
            info.size, info.mode = len(data), 0o755 if script else 0o644
            tar.addfile(info, io.BytesIO(data))


def _write_data(deb: IO[bytes], root: Path, paths: list[str], conffiles: Mapping[str, str]) -> None:
    with tarfile.open(fileobj=deb, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, place in _standing(root, paths):
            info = tar.gettarinfo(place, arcname=f"./{path}")
            if not info.isreg():
                tar.addfile(info)
                continue
            with place.open("rb") as file:
                changed = f"/{path}" in conffiles and _md5(file) != conffiles[f"/{path}"]
                info.size = len(_CHANGED) if changed else info.size
                tar.addfile(info, io.BytesIO(_CHANGED) if changed else file)
        for path in conffiles:
            if not os.path.lexists(root / path[1:]):
                info = tarfile.TarInfo(f".{path}")
                info.size = len(_CHANGED)
                tar.addfile(info, io.BytesIO(_CHANGED))


def _standing(root: Path, paths: list[str]) -> Iterator[tuple[str, Path]]:
    """The package's files that are there, of a kind that a package brings, below the root."""
    for path in ("" if path == "/." else path[1:] for path in paths if path.startswith("/")):
        place = root / path
        try:
            mode = place.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISSOCK(mode):
            yield path, place


def _md5(file: io.BufferedReader) -> str:
    found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    file.seek(0)
    return found
