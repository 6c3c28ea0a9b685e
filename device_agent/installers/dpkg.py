"""dpkg and its tools on one system: what is installed, what is in a .deb, and the commands that change something.

1. Nothing is ever asked: scripts read nothing, debconf is told so, and the owner's configuration files stay.
2. Each command ends in bounded time. How it ended is judged from the database, not from its status.
3. Whoever changes something holds the lock (`dpkg_lock`).
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.installers.crash import crash_point
from device_agent.installers.debian_control import Control
from device_agent.installers.dpkg_lock import HELD
from device_agent.installers.programs import Programs, Ran
from fleet_protocol.errors import InstallError, ProtocolError

ASK_S: Final = 120.0
CHANGE_S: Final = 900.0
"""What one command may take that runs maintainer scripts: a slow device, a big package."""
_MOST: Final = 32 * 1024 * 1024
_FIELD, _END = "\x1f", "\x1e"
_CONTROL: Final = (
    "Package",
    "Version",
    "Architecture",
    "Multi-Arch",
    "Depends",
    "Pre-Depends",
    "Conflicts",
    "Breaks",
    "Provides",
    "Installed-Size",
)
_STATE: Final = ("db:Status-Want", "db:Status-Status", "db:Status-Eflag")
_NOBODY_ASKS: Final[Mapping[str, str]] = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "DEBCONF_NOWARNINGS": "yes",
    "UCF_FORCE_CONFFOLD": "1",
}
_KEEP_FILES: Final = ("--force-confdef", "--force-confold")
_LINES_BEFORE, _LINES_AFTER = 3, 2
_BEGUN: Final = frozenset({"unpacked", "half-configured", "triggers-awaited", "triggers-pending"})
INSTALLED: Final = "installed"
CONFIG_FILES: Final = "config-files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One package as the database has it; `status` and `want` as in dpkg(1)."""

    control: Control
    want: str
    status: str
    broken: bool
    """It must be installed again before anything else can be done with it."""

    @property
    def whole(self) -> bool:
        """Installed, and nothing is left to do."""
        return self.status == INSTALLED and not self.broken

    @property
    def present(self) -> bool:
        """Its files are there, configured or not."""
        return self.status == INSTALLED or self.status in _BEGUN


class Dpkg:
    """The packages below one root."""

    def __init__(self, root: Path, programs: Programs) -> None:
        self._root, self._programs = root, programs

    def check(self) -> None:
        """InstallError `unsupported` where there is no dpkg, or nothing that it keeps."""
        if not self._programs.has("dpkg") or not (self._root / "var/lib/dpkg").is_dir():
            raise InstallError("unsupported", "this device keeps no Debian packages")

    def entries(self) -> tuple[Entry, ...]:
        """Every package that the database knows."""
        form = "".join(f"${{{name}}}{_FIELD}" for name in (*_CONTROL, *_STATE)) + _END
        ran = self._ask("dpkg-query", f"--admindir={self._root / 'var/lib/dpkg'}", "--show", f"--showformat={form}")
        return tuple(_entry(record) for record in ran.output.split(_END) if record.count(_FIELD) == len(_CONTROL) + 3)

    def read(self, deb: Path) -> Control:
        """What a .deb says of itself; ProtocolError `format` where it is none."""
        form = "".join(f"${{{name}}}{_FIELD}" for name in _CONTROL) + _END
        ran = self._programs.run("dpkg-deb", "--show", f"--showformat={form}", str(deb), timeout_s=ASK_S, apart=True)
        record, end, _ = ran.output.partition(_END)
        if ran.status != 0 or not end or record.count(_FIELD) != len(_CONTROL):
            raise ProtocolError("format", f"{deb.name} is no Debian package: {ran.last_words}")
        return _control(record.split(_FIELD))

    def is_whole(self, deb: Path) -> bool:
        """Whether all of a .deb can be read."""
        tried = self._programs.run("dpkg-deb", "--contents", str(deb), timeout_s=CHANGE_S, most_bytes=1)
        return tried.status == 0

    def architectures(self) -> tuple[str, ...]:
        """What packages may be built for, the device's own first."""
        own = self._ask("dpkg", "--print-architecture").output.split()
        return (*own, *self._ask("dpkg", *self._place(), "--print-foreign-architectures").output.split())

    def conffiles(self, spec: str) -> tuple[str, ...]:
        """The configuration files that dpkg watches of a package in the database."""
        ran = self._query("--show", "--showformat=${Conffiles}", spec)
        return _conffiles(line.strip().partition("/") for line in ran.output.splitlines())

    def conffiles_of(self, deb: Path) -> tuple[str, ...]:
        """The same of a .deb."""
        ran = self._programs.run("dpkg-deb", "--info", str(deb), "conffiles", timeout_s=ASK_S, apart=True)
        lines = ran.output.splitlines() if ran.status == 0 else []
        return tuple(line.strip() for line in lines if line.strip().startswith("/"))

    def files(self, spec: str) -> Ran:
        """The listing of an installed package's files, with what is diverted."""
        return self._query("--listfiles", spec)

    def control_text(self, spec: str) -> str:
        """The paragraph of the database about a package."""
        return self._query("--status", spec).output

    def control_files(self, spec: str) -> Mapping[str, Path]:
        """The package's scripts and lists, by name."""
        found = self._query("--control-list", spec).output.split()
        return {name: Path(self._query("--control-path", spec, name).output.strip()) for name in found}

    def install(self, debs: Sequence[Path], *force: str) -> Ran:
        """Unpack and configure."""
        return self._change(*_KEEP_FILES, *force, "--auto-deconfigure", "--install", *map(str, debs))

    def finish_pending(self) -> None:
        """A dpkg that was interrupted, whoever's, goes on; what can not be finished stays for others to judge."""
        if any(not entry.whole and (entry.present or entry.broken) for entry in self.entries()):
            crash_point("package.before_repair")
            self._change(*_KEEP_FILES, "--configure", "--pending")
            crash_point("package.after_repair")

    def unpack(self, debs: Sequence[Path], *force: str) -> Ran:
        """Put the files into place and configure nothing."""
        return self._change(*_KEEP_FILES, *force, "--auto-deconfigure", "--unpack", *map(str, debs))

    def remove(self, specs: Iterable[str]) -> Ran:
        """Take out the packages; configuration and data stay."""
        return self._change("--force-remove-reinstreq", "--remove", *specs)

    def purge(self, specs: Iterable[str]) -> Ran:
        """Take out the packages with all that they know to be theirs."""
        return self._change("--force-remove-reinstreq", "--purge", *specs)

    def select(self, wants: Mapping[str, str]) -> None:
        """What shall become of packages, by spec: `install`, `hold`, `deinstall`."""
        if wants:
            lines = "".join(f"{spec} {want}\n" for spec, want in sorted(wants.items()))
            self._run("dpkg", *self._place(), "--set-selections", timeout_s=ASK_S, told=lines.encode())

    def _change(self, *arguments: str) -> Ran:
        """A command that does not end in time is one that ended badly."""
        try:
            return self._run("dpkg", *self._place(), *arguments, timeout_s=CHANGE_S)
        except InstallError as error:
            if error.code != "start":
                raise
            return Ran(-1, f"dpkg: error: {error.detail}\n")

    def _ask(self, program: str, *arguments: str) -> Ran:
        ran = self._programs.run(program, *arguments, timeout_s=ASK_S, most_bytes=_MOST, apart=True)
        if ran.status != 0:
            raise InstallError("io", f"{program}: {ran.last_words}")
        return ran

    def _query(self, *arguments: str) -> Ran:
        admin = f"--admindir={self._root / 'var/lib/dpkg'}"
        return self._programs.run("dpkg-query", admin, *arguments, timeout_s=ASK_S, most_bytes=_MOST, apart=True)

    def _run(self, program: str, *arguments: str, timeout_s: float, told: bytes = b"") -> Ran:
        environment = {**_NOBODY_ASKS, **HELD}
        return self._programs.run(program, *arguments, timeout_s=timeout_s, environment=environment, told=told)

    def _place(self) -> tuple[str, ...]:
        """Nothing on a device. A trial's root may have no shell, and its owner need not be root."""
        if self._root == Path("/"):
            return ()
        shell = () if (self._root / "bin/sh").exists() else ("--force-script-chrootless",)
        owner = () if os.geteuid() == 0 else ("--force-not-root",)
        return (f"--root={self._root}", "--log=/dev/null", *shell, *owner)


def blame(ran: Ran, what: str) -> InstallError:
    """The error that dpkg's own words mean: those around the first complaint, a script's last ones among them."""
    lines = [line.strip() for line in ran.output.splitlines() if line.strip()]
    complaint = next((number for number, line in enumerate(lines) if line.startswith("dpkg: error")), len(lines))
    said = " | ".join(lines[max(0, complaint - _LINES_BEFORE) : complaint + _LINES_AFTER])[-400:]
    if "No space left on device" in ran.output:
        return InstallError("no-space", f"{what}: {said}")
    if "Read-only file system" in ran.output:
        return InstallError("read-only", f"{what}: {said}")
    if "locked by another process" in ran.output:
        return InstallError("locked", f"{what}: {said}")
    return InstallError("start", f"{what}: {said or f'status {ran.status}'}")


def _entry(record: str) -> Entry:
    fields = record.split(_FIELD)
    want, status, flag = fields[len(_CONTROL) : len(_CONTROL) + 3]
    return Entry(control=_control(fields), want=want, status=status, broken=flag not in ("", "ok"))


def _control(fields: Sequence[str]) -> Control:
    name, version, architecture, multi_arch, *relations, size = fields[: len(_CONTROL)]
    depends, pre_depends, conflicts, breaks, provides = relations
    return Control(
        name=name,
        version=version,
        architecture=architecture,
        multi_arch=multi_arch,
        depends=depends,
        pre_depends=pre_depends,
        conflicts=conflicts,
        breaks=breaks,
        provides=provides,
        size_kib=int(size) if size.isdecimal() else 0,
    )


def _conffiles(parts: Iterable[tuple[str, str, str]]) -> tuple[str, ...]:
    """Each line is a path, its digest and perhaps `obsolete`; a path may hold spaces."""
    found = (f"/{rest.removesuffix(' obsolete').rpartition(' ')[0]}" for _, slash, rest in parts if slash)
    return tuple(dict.fromkeys(found))
