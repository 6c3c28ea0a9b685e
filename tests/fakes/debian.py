"""A private Debian root with a real dpkg, .debs made by dpkg-deb, and releases of them."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.core.plan import PlannedRelease, PlannedTarget
from device_agent.installers.programs import PATH
from fleet_protocol.install import DebianPackage, HealthCheck, Install
from tests.fakes.artifacts import Artifact, packed, planned_release, planned_target

NEEDS_DPKG = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not on this machine")
NEEDS_APT = pytest.mark.skipif(
    None in (shutil.which("apt-get"), shutil.which("dpkg-scanpackages")),
    reason="apt and dpkg-dev are not on this machine",
)
_INTERNALS = ("var/lib/dpkg", "var/log", "usr/sbin")
_TOOLS = ("dpkg", "dpkg-deb", "dpkg-query", "apt-get", "apt-mark")
_DIRECTORIES = (
    *(f"var/lib/dpkg/{name}" for name in ("info", "updates", "triggers")),
    *(f"etc/apt/{name}" for name in ("sources.list.d", "preferences.d", "trusted.gpg.d", "apt.conf.d")),
    "var/lib/apt/lists/partial",
    "var/cache/apt/archives/partial",
)


@dataclass(frozen=True)
class Deb:
    """A .deb's bytes, and what it says of itself."""

    name: str
    version: str
    architecture: str
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def file(self) -> str:
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"

    def signed(self, *, file: bool = True) -> DebianPackage:
        """As a release names it; without `file` the device has to get it from its repositories."""
        return DebianPackage(
            name=self.name,
            version=self.version,
            architecture=self.architecture,
            sha256=self.sha256,
            file=self.file if file else None,
        )


def make_deb(
    name: str,
    version: str,
    *,
    architecture: str = "all",
    files: Mapping[str, str] | None = None,
    conffiles: Mapping[str, str] | None = None,
    scripts: Mapping[str, str] | None = None,
    executables: Sequence[str] = (),
    **fields: str,
) -> Deb:
    """A package with these files and scripts; a file `usr/lib/<name>/version` says which it is."""
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "tree"
        control = {
            "Package": name,
            "Version": version,
            "Architecture": architecture,
            "Maintainer": "t <t@example.invalid>",
        }
        control |= {key.replace("_", "-").title(): value for key, value in fields.items()} | {
            "Description": "for a test"
        }
        content = {f"usr/lib/{name}/version": version, **(files or {}), **(conffiles or {})}
        content["DEBIAN/control"] = "".join(f"{key}: {value}\n" for key, value in control.items())
        if conffiles:
            content["DEBIAN/conffiles"] = "".join(f"/{path}\n" for path in conffiles)
        content |= {f"DEBIAN/{script}": f"#!/bin/sh\n{text}\n" for script, text in (scripts or {}).items()}
        for path, text in content.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
            runs = path in executables or path.removeprefix("DEBIAN/") in (scripts or {})
            (tree / path).chmod(0o755 if runs else 0o644)
        for directory in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
            directory.chmod(0o755)
        out = Path(place) / "out.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"SOURCE_DATE_EPOCH": "1"})
        return Deb(name, version, architecture, out.read_bytes())


@dataclass
class DebianRoot:
    """A root in which nothing is installed but what a test puts there."""

    path: Path

    def __post_init__(self) -> None:
        for name in _DIRECTORIES:
            (self.path / name).mkdir(parents=True)
        (self.path / "var/lib/dpkg/status").write_text("")
        for tool in _TOOLS:
            self.program(tool)

    def program(self, name: str, before: str = "") -> None:
        """This machine's own program is the system's, too; `before` is done first, in its shell."""
        place = self.path / "usr/sbin" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f'#!/bin/sh\nPATH={PATH}\n{before}\nexec {name} "$@"\n')
        place.chmod(0o755)

    def dpkg(self, *arguments: str, told: str = "", check: bool = True) -> str:
        """Run dpkg as the owner of the device would."""
        owner = [] if os.geteuid() == 0 else ["--force-not-root"]
        place = [f"--root={self.path}", "--force-script-chrootless", "--log=/dev/null", *owner]
        command = ["dpkg", *place, "--force-confold", *arguments]
        done = subprocess.run(
            command, check=False, input=told, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert done.returncode == 0 or not check, done.stdout
        return done.stdout

    def put(self, *debs: Deb) -> None:
        """Installed before the agent ever came."""
        if not debs:
            return
        with tempfile.TemporaryDirectory() as place:
            paths = [Path(place) / deb.file for deb in debs]
            for deb, path in zip(debs, paths, strict=True):
                path.write_bytes(deb.data)
            self.dpkg("--install", *map(str, paths))

    def packages(self) -> dict[str, str]:
        """Version by name of what is installed."""
        return packages_in(self.path)

    def tree(self) -> dict[str, str | None]:
        """Content by path of all that is no book-keeping of dpkg's; None is a directory."""
        found: dict[str, str | None] = {}
        for path in sorted(self.path.rglob("*")):
            name = str(path.relative_to(self.path))
            if not name.startswith(_INTERNALS):
                found[name] = None if path.is_dir() else f"{path.lstat().st_mode & 0o7777:o} {_content(path)}"
        return found


def packages_in(root: Path) -> dict[str, str]:
    """Version by name of what is installed; what is not wholly so has its state beside the version."""
    form = "${Package} ${Version} ${db:Status-Status} ${db:Status-Eflag} ${db:Status-Want}\n"
    command = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "--show", f"--showformat={form}"]
    lines = subprocess.run(command, check=True, text=True, capture_output=True).stdout.splitlines()
    found = {}
    for name, version, status, flag, want in (line.split(" ") for line in lines):
        words = [word for word, usual in ((status, "installed"), (flag, "ok"), (want, "install")) if word != usual]
        found[name] = " ".join([version, *words])
    return found


def _content(path: Path) -> str:
    return f"-> {path.readlink()}" if path.is_symlink() else path.read_text("latin-1")


def artifact(*debs: Deb, tree: Mapping[str, bytes] | None = None) -> Artifact:
    """A `tar.zst` with the packages at its top, and the tree, all of it executable."""
    return packed({**{deb.file: deb.data for deb in debs}, **(tree or {})}, dict.fromkeys(tree or {}, 0o755))


def target_of(
    *debs: Deb,
    urls: Sequence[str] = (),
    check: HealthCheck | None = None,
    dependencies: Any = "release",
    remote: Sequence[Deb] = (),
    path: str = "app/1/any.tar.zst",
    part: str = "",
    tree: Mapping[str, bytes] | None = None,
) -> PlannedTarget:
    """What the catalogue says of such an artifact; `remote` are the packages that it names and does not bring."""
    plain = planned_target(artifact(*debs, tree=tree), kind="package", urls=urls, path=path, part=part)
    packages = (*(deb.signed() for deb in debs), *(deb.signed(file=False) for deb in remote))
    install = Install(exec=(), stop_s=5, check=check, packages=packages, dependencies=dependencies)
    return replace(plain, install=install)


def release_of(*debs: Deb, version: int = 1, **options: Any) -> PlannedRelease:
    """A release of one part."""
    found: PlannedRelease = planned_release(target_of(*debs, **options), version=f"{version}.0", counter=version)
    return found


@dataclass
class Repository:
    """A directory that apt takes for a repository."""

    path: Path
    debs: list[Deb] = field(default_factory=list)

    def offer(self, *debs: Deb) -> None:
        """The repository has exactly these from now on."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        for deb in debs:
            (self.path / deb.file).write_bytes(deb.data)
        scan = ["dpkg-scanpackages", "--multiversion", "."]
        index = subprocess.run(scan, cwd=self.path, check=True, capture_output=True).stdout
        (self.path / "Packages").write_bytes(index)

    def serve(self, root: DebianRoot) -> None:
        """The device knows of it."""
        (root.path / "etc/apt/sources.list").write_text(f"deb [trusted=yes] copy:{self.path} ./\n")
