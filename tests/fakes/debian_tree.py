"""A small Debian as a folder, as a device's image would hold it, made by mmdebstrap once and kept.

The packages come from where this machine's own apt gets its, and the folder is of this machine's own distribution.
"""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from tests.fakes import lab_cache

_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "kmod", "iproute2", "procps", "python3", "python3-venv", "ca-certificates"),
    *("libpam-systemd", "dbus-user-session"),
)
_MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("e2scrub_reap.service", "getty.target", "console-getty.service", "systemd-networkd.service"),
)
"""What would only cost time at every start."""
_RECIPE = "1"
"""To be raised by whoever changes how the tree is made from these."""


def debian_tree() -> Path:
    """The folder; the first call of all takes about a minute. Never write into it: mount something over it."""
    key = lab_cache.digest([_RECIPE, *_PACKAGES, *_MASKED, platform.machine(), _codename()])
    return lab_cache.cached("tree", key, _build) / "root"


def _build(place: Path) -> None:
    root = place / "root"
    argv = [
        # What it mounts is gone with it, however it ends.
        *("unshare", "--mount", "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory"),
        *("--aptopt=Acquire::Languages none", "--aptopt=APT::Install-Recommends false"),
        # A mirror may be a picture of an earlier day.
        *("--aptopt=Acquire::Check-Valid-Until false", "--aptopt=Acquire::Check-Date false"),
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale", "info")),
        *("--include", ",".join(_PACKAGES)),
        *(_codename(), str(root), *sources()),
    ]
    lab_cache.build_with(argv, place / "build.log", env={**os.environ, "TMPDIR": str(place)})
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    for name in ("etc/apt/sources.list.d", "var/lib/apt/lists", "var/cache/apt"):
        shutil.rmtree(root / name)
        (root / name).mkdir()
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (root / "etc/hostname").write_text("device\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost device\n")
    for name in _MASKED:
        (root / "etc/systemd/system" / name).symlink_to("/dev/null")


def sources() -> list[str]:
    """apt's own lists of this distribution, not of whoever else this machine gets packages from."""
    argv = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(SOURCESENTRY)"]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    if not listed:
        subprocess.run(["apt-get", "-qq", "update"], check=True, capture_output=True)
        listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    entries = (line.partition("|") for line in listed)
    found = {entry.rpartition(":")[0] for origin, _, entry in entries if origin.lower() == _release()["ID"]}
    assert found, "apt knows no mirror of this distribution: run apt-get update"
    return sorted(found)


def _codename() -> str:
    return _release()["VERSION_CODENAME"]


def _release() -> dict[str, str]:
    return dict(platform.freedesktop_os_release())
