"""apt on one system, for what only it can do: get packages from the device's own repositories, and their marks.

1. The lists of the repositories are first used as they are. Where they do not have what is wanted, newer ones are
   fetched into a place of this object's own, and the system's stay as they are.
2. What comes from a repository was verified by apt, as the owner has set it up; the caller compares it with what is
   signed.
3. A repository that can not be reached is a TransportError; one that does not have the package an InstallError.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.adapters.files import make_dir, read_optional, remove_tree
from device_agent.installers.debian_control import ALL
from device_agent.installers.programs import Programs, Ran
from fleet_protocol.errors import InstallError, TransportError

_ASK_S: Final = 300.0
_FETCH_S: Final = 1_800.0
_STATES_MOST: Final = 16 * 1024 * 1024
_UNKNOWN: Final = re.compile(r"Unable to locate package|was not found|no installation candidate|Can't find a source")
_INST: Final = re.compile(r"Inst ([^\s:]+)(?::\S+)? (?:\[\S+\] )?\((\S+) .*\[([a-z0-9-]+)\]\)")
_PATIENCE: Final = ("-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=30", "-o", "Acquire::https::Timeout=30")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A package in a repository, by exact version."""

    name: str
    version: str
    architecture: str


class Apt:
    """The system below one root. `place` is where this object may put lists and downloads; it is made when needed."""

    def __init__(self, root: Path, programs: Programs, place: Path) -> None:
        self._root, self._programs, self._place = root, programs, place
        self._fresh = False

    @property
    def available(self) -> bool:
        """Whether the device has apt."""
        return self._programs.has("apt-get")

    def download(self, wanted: Wanted) -> Path:
        """The .deb, below `place`. Rule 3: InstallError `dependencies` where no repository has it."""
        into = self._place / "download"
        remove_tree(into)
        make_dir(into)
        name = f"{wanted.name}:{wanted.architecture}={wanted.version}"
        ran = self._with_lists("download", name, directory=into)
        found = sorted(into.glob("*.deb"))
        if ran.status == 0 and len(found) == 1:
            return found[0]
        if _UNKNOWN.search(ran.output):
            missing = f"{wanted.name} {wanted.version} for {wanted.architecture}"
            raise InstallError("dependencies", f"the device's repositories do not have {missing}")
        raise TransportError("unreachable", f"apt-get: {ran.last_words}")

    def resolve(self, debs: Sequence[Path]) -> tuple[Wanted, ...]:
        """All that apt would install for these to be installed, themselves included.

        Raises InstallError `dependencies` where it finds no way, or would remove something.
        """
        options = ("--simulate", "--yes", "--allow-downgrades", "--allow-change-held-packages", "--no-remove")
        ran = self._with_lists(*options, "--no-install-recommends", "install", *map(str, debs))
        if ran.status != 0:
            lines = (line.strip() for line in ran.output.splitlines())
            reasons = [line for line in lines if ": " in line and not line.startswith(("E:", "W:"))]
            raise InstallError("dependencies", " | ".join(reasons)[:400] or ran.last_words)
        found = (_INST.match(line) for line in ran.output.splitlines())
        return tuple(Wanted(name=m[1], version=m[2], architecture=m[3]) for m in found if m)

    def automatic(self) -> frozenset[tuple[str, str]]:
        """Name and architecture of what apt may remove once nothing needs it (apt-mark(8))."""
        text = read_optional(self._root / "var/lib/apt/extended_states", _STATES_MOST) or b""
        marked = set()
        for paragraph in text.decode("utf-8", "replace").split("\n\n"):
            fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line)
            if fields.get("Auto-Installed") == "1":
                marked.add((fields.get("Package", ""), fields.get("Architecture", "")))
        return frozenset(marked)

    def mark(self, specs: Iterable[str], *, automatic: bool) -> None:
        """Mark installed packages; nothing happens on a device without apt."""
        wanted = sorted(specs)
        if wanted and self._programs.has("apt-mark"):
            verb = "auto" if automatic else "manual"
            self._programs.run("apt-mark", *self._system(), verb, *wanted, timeout_s=_ASK_S)

    def close(self) -> None:
        """Give the space of lists and downloads back."""
        remove_tree(self._place)
        self._fresh = False

    def _with_lists(self, *arguments: str, directory: Path = Path("/")) -> Ran:
        """Rule 1."""
        ran = self._get(*arguments, directory=directory)
        if ran.status != 0 and not self._fresh:
            self._update()
            ran = self._get(*arguments, directory=directory)
        return ran

    def _update(self) -> None:
        make_dir(self._place / "lists/partial")
        self._fresh = True
        ran = self._get("-o", "APT::Update::Error-Mode=any", "update")
        if ran.status != 0:
            raise TransportError("unreachable", f"apt-get update: {ran.last_words}")

    def _get(self, *arguments: str, directory: Path = Path("/")) -> Ran:
        lists = ("-o", f"Dir::State::lists={self._place}/lists/") if self._fresh else ()
        caches = ("-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=")
        options = (*self._system(), *lists, *caches, *_PATIENCE)
        try:
            return self._programs.run("apt-get", *options, *arguments, timeout_s=_FETCH_S, directory=directory)
        except InstallError as error:
            if error.code == "start":
                raise TransportError("timeout", error.detail) from None
            raise

    def _system(self) -> tuple[str, ...]:
        if self._root == Path("/"):
            return ()
        return ("-o", f"Dir={self._root}", "-o", f"Dir::State::status={self._root}/var/lib/dpkg/status")


def is_automatic(marked: frozenset[tuple[str, str]], name: str, architecture: str, native: str) -> bool:
    """Whether apt's marks name the package; it knows no architecture `all`."""
    return (name, native if architecture == ALL else architecture) in marked
