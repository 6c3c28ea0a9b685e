"""A device as a container: Debian with systemd as PID 1, on an overlay of a tree that is built once.

    with running_container() as device:
        status, out, err = device.run("systemctl is-active fairlead-agent")
        device.power_cut()
        device.start()

What it can not show: kernel modules, another kernel, the loss of writes that were not synced (tests/device/vm can).
Needs root, systemd-container and mmdebstrap.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fakes import lab_cache
from tests.fakes.debian_tree import debian_tree
from tests.fakes.memory_cgroup import MemoryCgroup

START_S = 120.0
"""Only bounds a hang; nothing is asserted about time."""
_WATCHES = 1_024
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}
_TOOLS = {"systemd-nspawn": "systemd-container", "mmdebstrap": "mmdebstrap", "nsenter": "util-linux", "ip": "iproute2"}


def missing() -> str | None:
    """Why this machine can not have such a device; None where it can."""
    if os.geteuid() != 0:
        return "containers need root"
    for program, package in _TOOLS.items():
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install {package}"
    if not _can_lay_over():
        return f"no overlay can be mounted in {lab_cache.folder()}: set FAIRLEAD_LAB to a folder on another filesystem"
    return None


class Container:
    """One device. `base` is a tree, or several of which the first lies on top; none of them is ever written to.

    `binds` are folders of this machine that it sees, read-only, at the same place. `netns` is the name of a network
    namespace (`ip netns`) to live in, in place of one of its own with nothing in it. `memory_mb` is what all of the
    device together may use; beyond it the kernel ends a process inside.
    """

    def __init__(
        self,
        base: Path | Sequence[Path],
        *,
        name: str = "dev",
        binds: Sequence[Path] = (),
        netns: str | None = None,
        memory_mb: int | None = None,
    ) -> None:
        self.name, self._binds, self._netns = name, tuple(binds), netns
        _forget_dead_owners()
        _make_room_for_watches()
        self._place = Path(tempfile.mkdtemp(prefix=f"device-{os.getpid()}-{name}-", dir=lab_cache.folder()))
        self.root = self._place / "root"
        self.upper = self._place / "up"
        for path in (self.upper, self._place / "work", self.root):
            path.mkdir()
        trees = [base] if isinstance(base, Path) else base
        layers = f"lowerdir={':'.join(map(str, trees))},upperdir={self.upper},workdir={self._place / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(self.root)], check=True)
        self._cgroup = None if memory_mb is None else MemoryCgroup(self._place.name, memory_mb)
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    @property
    def _machine(self) -> str:
        """A name that no other device on this host has: systemd-nspawn keeps things under it outside the tree."""
        return self._place.name.replace("_", "x")

    @property
    def console(self) -> str:
        """What the device has said on its console."""
        path = self._place / "console.log"
        return path.read_text("utf-8", errors="replace") if path.exists() else ""

    @property
    def peak_mb(self) -> float:
        """The most memory that it ever used, caches of files among it; only where it has a limit."""
        assert self._cgroup is not None
        return self._cgroup.peak_mb

    @property
    def running(self) -> bool:
        """Whether it is switched on."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Switch it on, and return once systemd has finished booting."""
        address = self._place / "notify"
        address.unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices,
            (self._place / "console.log").open("ab") as log,
        ):
            notices.bind(str(address))
            notices.settimeout(0.5)
            self._process = subprocess.Popen(
                self._joined(self._command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "NOTIFY_SOCKET": str(address)},
            )
            self._leader = self._booted(notices)

    def _command(self) -> list[str]:
        network = "--private-network" if self._netns is None else f"--network-namespace-path=/run/netns/{self._netns}"
        return [
            *("systemd-nspawn", "--quiet", f"--directory={self.root}", "--boot", "--register=no", "--keep-unit"),
            *(network, "--notify-ready=yes", "--console=pipe", "--link-journal=no"),
            *(f"--machine={self._machine}", f"--hostname={self.name}"),
            *("--resolv-conf=off", "--timezone=off", *(f"--bind-ro={path}" for path in self._binds)),
        ]

    def _joined(self, command: list[str]) -> list[str]:
        """The command, run inside the device's memory limit."""
        if self._cgroup is None:
            return command
        return ["/bin/sh", "-c", f'echo $$ >"{self._cgroup.processes}"; exec "$@"', "sh", *command]

    def _booted(self, notices: socket.socket) -> int:
        """Wait for what systemd-nspawn tells of it: the first process, and that everything has been started."""
        assert self._process is not None
        leader, waited_s = 0, 0.0
        while self._process.poll() is None and waited_s < START_S:
            try:
                lines = notices.recv(4_096).decode().splitlines()
            except TimeoutError:
                waited_s += 0.5
                continue
            for line in lines:
                name, _, value = line.partition("=")
                if name == "X_NSPAWN_LEADER_PID":
                    leader = int(value)
                    (self._place / "leader").write_text(value)
                if (name, value) == ("READY", "1"):
                    return leader
        raise AssertionError(f"the device does not boot: {self.console[-2_000:]}")

    def run(self, script: str, *, timeout_s: float = 300.0) -> tuple[int, str, str]:
        """Exit status, output and errors of a shell script on the device."""
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        done = subprocess.run(
            self._joined([*enter, "/bin/sh", "-c", script]),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def do(self, script: str) -> str:
        """The output of a shell script that must succeed."""
        status, out, err = self.run(script)
        assert status == 0, f"{script!r} ended with status {status}:\n{out}{err}"
        return out

    def put(self, local: Path, remote: str) -> None:
        """Copy a file or a folder onto the device, switched on or not."""
        place = self.file(remote)
        place.parent.mkdir(parents=True, exist_ok=True)
        if local.is_dir():
            shutil.copytree(local, place, dirs_exist_ok=True)
        else:
            shutil.copy(local, place)

    def put_text(self, remote: str, text: str) -> None:
        """Write a file of the device, switched on or not."""
        self.file(remote).write_text(text)

    def get(self, remote: str) -> bytes:
        """The content of a file of the device, switched on or not."""
        return self.file(remote).read_bytes()

    def file(self, remote: str) -> Path:
        """Where this machine sees a path of the device."""
        return self.root.joinpath(*remote.split("/")[1:])

    def power_cut(self) -> None:
        """Every process of the device is gone at once."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.kill(self._leader or self._process.pid, signal.SIGKILL)
        self._process.wait()

    def shut_down(self) -> None:
        """Switch it off as `systemctl poweroff` does, and wait for it."""
        assert self._process is not None
        self.run("systemctl poweroff --no-block")
        self._process.wait()

    def close(self) -> None:
        """Nothing of it is left."""
        if self.running:
            self.power_cut()
        if self.root.is_mount():
            subprocess.run(["umount", str(self.root)], check=True)
        if self._cgroup is not None:
            self._cgroup.close()
        shutil.rmtree(self._place, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def build_tree() -> Path:
    """A bare Debian to stand on."""
    return debian_tree()


@contextmanager
def running_container(*, name: str = "dev", binds: Sequence[Path] = ()) -> Iterator[Container]:
    """A bare Debian that has booted."""
    with Container(build_tree(), name=name, binds=binds) as device:
        device.start()
        yield device


def _can_lay_over() -> bool:
    with tempfile.TemporaryDirectory(dir=lab_cache.folder()) as scratch:
        for name in ("low", "up", "work", "root"):
            (Path(scratch) / name).mkdir()
        layers = f"lowerdir={scratch}/low,upperdir={scratch}/up,workdir={scratch}/work"
        argv = ["mount", "-t", "overlay", "overlay", "-o", layers, f"{scratch}/root"]
        mounted = subprocess.run(argv, capture_output=True, check=False).returncode == 0
        if mounted:
            subprocess.run(["umount", f"{scratch}/root"], check=True)
        return mounted


def _make_room_for_watches() -> None:
    """Every systemd takes six or seven inotify instances, of which Linux gives a user 128 (inotify(7)).

    Twenty devices need more. The bound is raised until the next boot of this machine, and never lowered.
    """
    bound = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(bound.read_text()) < _WATCHES:
        bound.write_text(str(_WATCHES))


def _forget_dead_owners() -> None:
    """What test runs left that were killed: devices that still run, and their trees."""
    for place in lab_cache.folder().glob("device-*"):
        if not Path(f"/proc/{place.name.split('-')[1]}").exists():
            with suppress(OSError, ValueError):
                leader = int((place / "leader").read_text())
                if Path(f"/proc/{leader}/root").samefile(place / "root"):
                    os.kill(leader, signal.SIGKILL)
            subprocess.run(["umount", "-l", str(place / "root")], capture_output=True, check=False)
            shutil.rmtree(place, ignore_errors=True)
