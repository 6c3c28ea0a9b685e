"""How an artifact is installed, started and judged: the `install` member of a target's description.

All of it is signed offline, so that nothing unsigned ever runs. Members with a default were added after the first
version of the protocol: they are left out of a document where they say nothing.
"""

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from fleet_protocol.checks import check_count, check_distinct, check_range, check_text
from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import check_sha256, shown

CheckKind = Literal["http", "exec"]
UnitScope = Literal["system", "user"]
Dependencies = Literal["release", "repository"]
_STRICT: Final[Any] = {"strict": True, "extra": "forbid"}
_UNIT: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z:_.-]{0,119}\.service")
_MODULE: Final = re.compile(r"[a-z0-9_]{1,55}")
_KERNEL: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}")
_DEB_NAME: Final = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_DEB_VERSION: Final = re.compile(r"(?:[0-9]{1,10}:)?[0-9][0-9A-Za-z.+~-]{0,127}")
_DEB_ARCHITECTURE: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How a device asks a fresh release whether it is well, during probation.

    `http`: `target` is `http://127.0.0.1:<port>/<path>`, where `${NAME}` stands for a variable of the
    device's own configuration; well means status 200 to 299. `exec`: `target` is a path inside the
    artifact, run without arguments; well means exit status 0.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT

    kind: CheckKind
    target: str
    interval_s: int
    timeout_s: int
    failures: int
    """How many failures in a row make the release unhealthy."""

    def __post_init__(self) -> None:
        check_text(self.target, 512, "check target")
        check_range(self.interval_s, 1, 3_600, "interval_s")
        check_range(self.timeout_s, 1, 300, "timeout_s")
        check_range(self.failures, 1, 100, "failures")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A systemd service unit that the artifact brings (systemd.service(5)).

    `file` is its path in the artifact; in it `@SLOT@` stands for the directory of the active release, and
    `@NAME@` for a variable of the device's own configuration.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT

    name: str
    file: str
    scope: UnitScope
    enable: bool
    """Whether the first installation enables it; later ones leave that as the device's owner has it."""

    def __post_init__(self) -> None:
        _check(_UNIT, self.name, "unit name")
        _check_file(self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A kernel module, built for one or more kernels: the artifact holds `<kernel>/<module>.ko` for each."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    module: str
    """As `/sys/module` spells it: with `_`, never `-`."""
    kernels: tuple[str, ...]
    """Kernel releases as `uname -r` prints them."""
    load: bool
    """Whether it is loaded at every boot; otherwise only where it was loaded before, or when a device asks for it."""

    def __post_init__(self) -> None:
        _check(_MODULE, self.module, "module")
        check_count(self.kernels, 64, "kernels", least=1)
        check_distinct(self.kernels, "kernels")
        for kernel in self.kernels:
            _check(_KERNEL, kernel, "kernel")


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianPackage:
    """One Debian package at one exact version (Debian Policy, chapter 5).

    `file` is the .deb's path in the artifact; null means that the device gets the .deb with this digest from its own
    repositories.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT

    name: str
    version: str
    architecture: str
    sha256: str
    file: str | None

    def __post_init__(self) -> None:
        _check(_DEB_NAME, self.name, "package name")
        _check(_DEB_VERSION, self.version, "package version")
        _check(_DEB_ARCHITECTURE, self.architecture, "architecture")
        check_sha256(self.sha256)
        if self.file is not None:
            _check_file(self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Install:
    """How an artifact is started and judged, and what of it goes where in the system.

    `exec` is an argument vector, run in the artifact's own directory without a shell; its first
    item is a path inside the artifact, or an absolute path of an interpreter on the device.
    `${NAME}` in an item stands for a variable of the device's own configuration.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT

    exec: tuple[str, ...]
    stop_s: int
    check: HealthCheck | None
    unit: Unit | None = None
    driver: Driver | None = None
    packages: tuple[DebianPackage, ...] = ()
    dependencies: Dependencies = "release"
    """Where packages that these depend on may come from: only from the release and what is installed, or also
    from the device's repositories."""

    def __post_init__(self) -> None:
        check_count(self.exec, 64, "exec")
        for item in self.exec:
            check_text(item, 1_024, "exec")
        check_range(self.stop_s, 1, 600, "stop_s")
        check_count(self.packages, 64, "packages")
        check_distinct([package.name for package in self.packages], "packages")


def _check(grammar: re.Pattern[str], text: str, what: str) -> None:
    if grammar.fullmatch(text) is None:
        raise ProtocolError("schema", f"{what} {shown(text)} is not of its form")


def _check_file(name: str) -> None:
    """The device checks it again by the rules of archives, when it opens it."""
    check_text(name, 1_024, "file")
    if not all(part not in ("", ".", "..") and "\\" not in part for part in name.split("/")):
        raise ProtocolError("schema", f"{shown(name)} is not a path inside the artifact")
