"""A device as a container: Debian with systemd as PID 1, on an overlay of a tree that is built once.

What it can not show: kernel modules, another kernel, the loss of writes that were not synced. Needs root,
systemd-container and mmdebstrap; the tree takes some minutes and 200 MB, once.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

START_S = 120.0
PACKAGES = ("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "python3", "procps")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}
_TREE = "bookworm"


def lab() -> Path:
    """Where trees and running devices are kept."""
    named = os.environ.get("FAIRLEAD_LAB")
    return Path(named) if named else Path.home() / ".cache" / "fairlead-lab"


def missing() -> str | None:
    """Why this machine can not have such a device; None where it can."""
    if os.geteuid() != 0:
        return "needs root"
    if not Path("/etc/apt/sources.list.d/debian.sources").exists() and not tree().is_dir():
        return "needs Debian's package sources"
    for program in ("systemd-nspawn", "mmdebstrap", "nsenter"):
        if shutil.which(program) is None:
            return f"needs {program}"
    return None


def tree() -> Path:
    """The tree that devices stand on."""
    return lab() / _TREE


def build_tree() -> Path:
    """The tree, built where it is not there yet; whoever else builds it is waited for."""
    lab().mkdir(parents=True, exist_ok=True)
    with (lab() / f"{_TREE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree().is_dir():
            part = tree().with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            subprocess.run(
                [
                    *("nice", "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
                    *("--aptopt=APT::Install-Recommends false", "--aptopt=Acquire::Languages none"),
                    *(f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("man", "doc", "locale", "info")),
                    *("bookworm", str(part), "/etc/apt/sources.list.d/debian.sources"),
                ],
                check=True,
            )
            part.rename(tree())
    return tree()


class Container:
    """One device. `binds` are directories of this machine that it sees, read-only, at the same place."""

    def __init__(self, base: Path, *, name: str = "dev", binds: Sequence[Path] = ()) -> None:
        self._name, self._binds = name, tuple(binds)
        self._place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=lab()))
        self.root = self._place / "root"
        for part in ("up", "work", "root"):
            (self._place / part).mkdir()
        layers = f"lowerdir={base},upperdir={self._place}/up,workdir={self._place}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(self.root)], check=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    @property
    def console(self) -> str:
        """What the device has said on its console."""
        path = self._place / "console.log"
        return path.read_text("utf-8", errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Boot, and return once systemd has finished booting."""
        command = [
            *("systemd-nspawn", "--quiet", f"--directory={self.root}", "--boot", "--register=no", "--keep-unit"),
            *("--private-network", "--console=pipe", f"--machine={self._name}", "--link-journal=no"),
            *("--resolv-conf=off", "--timezone=off", *(f"--bind-ro={path}" for path in self._binds)),
        ]
        with (self._place / "console.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s and self._process.poll() is None:
            if self._booted():
                return
            time.sleep(0.05)
        raise AssertionError(f"the device does not boot: {self.console[-2000:]}")

    def _booted(self) -> bool:
        assert self._process is not None
        with suppress(OSError):
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            if children and Path(f"/proc/{children[-1]}/root/run/systemd/private").exists():
                self._leader = int(children[-1])
                _, out, _ = self.run("systemctl is-system-running --wait")
                return out.strip() in ("running", "degraded")
        return False

    def run(self, script: str, *, timeout_s: float = 300.0) -> tuple[int, str, str]:
        """Exit status, output and errors of a shell script on the device."""
        enter = ["nsenter", "-t", str(self._leader), *["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]]
        done = subprocess.run(
            [*enter, "/bin/sh", "-c", script],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def put(self, local: Path, remote: str) -> None:
        """Copy a file or a directory onto the device, running or not."""
        place = self.root.joinpath(*remote.split("/")[1:])
        place.parent.mkdir(parents=True, exist_ok=True)
        if local.is_dir():
            shutil.copytree(local, place, dirs_exist_ok=True)
        else:
            shutil.copy(local, place)

    def power_cut(self) -> None:
        """Every process of the device is gone at once."""
        assert self._process is not None
        os.kill(self._leader, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            if self._leader:
                os.kill(self._leader, signal.SIGKILL)
            else:
                self._process.kill()
            self._process.wait()
        subprocess.run(["umount", str(self.root)], check=False)
        shutil.rmtree(self._place, ignore_errors=True)


@contextmanager
def running_container(*, name: str = "dev", binds: Sequence[Path] = ()) -> Iterator[Container]:
    """A device that has booted."""
    with Container(build_tree(), name=name, binds=binds) as device:
        device.start()
        yield device
