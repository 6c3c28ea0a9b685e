"""A device as a virtual machine: an arm64 Debian under QEMU, emulated, with a disk of its own.

    with VM(disk, image) as device:
        device.start()
        status, out, err = device.run("uname -m")
        device.power_cut()      # what was not synced is gone
        device.start()          # the same disk

Commands go through QEMU's guest agent on a serial port of its own: no network, no password, no prompt. It works ten
times slower than a real device, and its clock can be set to any time.
"""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.fakes.waiting import until

PATIENCE_S = 1_800.0
"""Only bounds a hang; nothing is asserted about time."""
GOLDEN = "golden"
MACHINE = (
    *("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53", "-smp", "2", "-m", "1024"),
    *("-accel", "tcg,thread=multi", "-nodefaults", "-display", "none", "-no-reboot"),
    *("-device", "virtio-blk-device,drive=disk", "-netdev", "user,id=net", "-device", "virtio-net-device,netdev=net"),
    *("-device", "virtio-serial-device", "-device", "virtserialport,chardev=guest,name=org.qemu.guest_agent.0"),
)
"""A snapshot can only be gone on with on the machine that it was taken on."""
_TOOLS = {
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "qemu-aarch64-static": "qemu-user-static",
    "aarch64-linux-gnu-gcc": "crossbuild-essential-arm64",
    "mke2fs": "e2fsprogs",
    "depmod": "kmod",
    "cpio": "cpio",
}


def missing() -> str | None:
    """Why this machine can not have such a device; None where it can."""
    if os.geteuid() != 0:
        return "building a device's disk needs root"
    for program, package in _TOOLS.items():
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            return f"{program} is not installed: apt-get install {package}"
    return None


class NoAnswerError(Exception):
    """The guest, or QEMU itself, does not answer as it should."""


class VM:
    """One device. `image` holds its kernel and initrd, `disk` is a qcow2 file that is written to."""

    def __init__(self, disk: Path, image: Path, place: Path) -> None:
        self._disk, self._image, self._place = disk, image, place
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: JsonSocket | None = None
        self._guest: JsonSocket | None = None

    # Power

    def start(self, *, snapshot: str | None = None, clock: str = "utc") -> None:
        """Switch it on, and return once it takes commands. `clock` is a start like `1970-01-01T00:00:00`.

        With `snapshot` it does not boot, but goes on where the snapshot was taken; its clock is then set.
        """
        self.switch_on(snapshot=snapshot, clock=clock)
        self._wait_for_guest()
        if snapshot:
            self._ask("guest-set-time", time=time.time_ns())
        else:
            self.run("systemctl is-system-running --wait", timeout_s=PATIENCE_S)

    def switch_on(self, *, snapshot: str | None = None, clock: str = "utc") -> None:
        """The same, for a device of which it is not known that it comes up."""
        for path in (self._place / "monitor", self._place / "guest"):
            path.unlink(missing_ok=True)
        with (self._place / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command(clock), *(("-loadvm", snapshot) if snapshot else ())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._monitor = JsonSocket(self._place / "monitor")
        self._monitor.receive()
        self._monitor.ask("qmp_capabilities")

    def _command(self, clock: str) -> list[str]:
        return [
            *MACHINE,
            *("-rtc", f"base={clock}", "-serial", f"file:{self._place / 'serial.log'}"),
            *("-drive", f"file={self._disk},if=none,id=disk,format=qcow2,cache=writeback"),
            *("-chardev", f"socket,path={self._place / 'guest'},server=on,wait=off,id=guest"),
            *("-qmp", f"unix:{self._place / 'monitor'},server=on,wait=off"),
            *("-kernel", str(self._image / "vmlinuz"), "-initrd", str(self._image / "initrd.gz")),
            *("-append", "console=ttyAMA0 quiet loglevel=3 systemd.show_status=0 root=/dev/vda panic=1"),
        ]

    @property
    def running(self) -> bool:
        """Whether it is switched on."""
        return self._process is not None and self._process.poll() is None

    def power_cut(self) -> None:
        """The plug is out: nothing is written any more, and nobody is told."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._hang_up()

    def gone(self) -> None:
        """Wait until it has gone down by itself: a panic makes it reboot, and a reboot ends it."""
        assert self._process is not None
        self._process.wait(PATIENCE_S)
        self._hang_up()

    def close(self) -> None:
        """It is off, and QEMU is gone."""
        if self.running:
            self.power_cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Snapshots and cables

    def save(self, snapshot: str) -> None:
        """Keep the running device, memory and all, in its disk."""
        self._told(f"savevm {snapshot}")

    def cut(self) -> None:
        """Its network cable is out."""
        self._told("set_link net off")

    def mend(self) -> None:
        """The cable is in again."""
        self._told("set_link net on")

    def _told(self, line: str) -> None:
        assert self._monitor is not None
        said = self._monitor.ask("human-monitor-command", **{"command-line": line})
        if said.strip():
            raise NoAnswerError(f"{line}: {said}")

    # Commands

    def run(self, script: str, *, timeout_s: float = PATIENCE_S) -> tuple[int, str, str]:
        """Exit status, output and errors of a shell script on the device."""
        arguments = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True}
        process = self._ask("guest-exec", **arguments)["pid"]
        ended: dict[str, Any] = {}

        def asked() -> bool:
            ended.update(self._ask("guest-exec-status", pid=process))
            return bool(ended["exited"])

        until(asked, deadline_s=timeout_s, pause_s=0.1)
        out, err = (base64.b64decode(ended.get(name, "")).decode(errors="replace") for name in ("out-data", "err-data"))
        return ended.get("exitcode", -ended.get("signal", 0)), out, err

    def do(self, script: str) -> str:
        """The output of a shell script that must succeed."""
        status, out, err = self.run(script)
        assert status == 0, f"{script!r} ended with status {status}:\n{out}{err}"
        return out

    def put(self, local: Path, remote: str) -> None:
        """Copy a file onto the device."""
        handle = self._ask("guest-file-open", path=remote, mode="w")
        with local.open("rb") as file:
            while data := file.read(1 << 20):
                self._ask("guest-file-write", handle=handle, **{"buf-b64": base64.b64encode(data).decode()})
        self._ask("guest-file-close", handle=handle)

    def _ask(self, command: str, **arguments: Any) -> Any:
        assert self._guest is not None
        return self._guest.ask(command, **arguments)

    def _wait_for_guest(self) -> None:
        """QEMU answers on the guest's behalf only once its agent runs; what was said before is lost."""
        assert self._process is not None
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            assert self._process.poll() is None, (self._place / "qemu.log").read_text(errors="replace")[-2_000:]
            guest = JsonSocket(self._place / "guest", timeout_s=2.0)
            token = time.monotonic_ns() & 0xFFFFFFFF
            with suppress(OSError, ValueError, NoAnswerError):
                if guest.ask("guest-sync", id=token) == token:
                    self._guest = guest
                    guest.patience(PATIENCE_S)
                    return
            guest.close()
        raise NoAnswerError((self._place / "serial.log").read_text(errors="replace")[-2_000:])

    def _hang_up(self) -> None:
        for connection in (self._monitor, self._guest):
            if connection is not None:
                connection.close()
        self._monitor = self._guest = None


class JsonSocket:
    """QEMU's way to talk: a JSON object a line, on a Unix socket."""

    def __init__(self, path: Path, *, timeout_s: float = PATIENCE_S) -> None:
        until(path.exists, deadline_s=60)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        self._socket.connect(str(path))
        self._held = b""

    def patience(self, timeout_s: float) -> None:
        """How long an answer may take."""
        self._socket.settimeout(timeout_s)

    def send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """The next object."""
        while b"\n" not in self._held:
            data = self._socket.recv(65_536)
            if not data:
                raise NoAnswerError("hung up")
            self._held += data
        line, self._held = self._held.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line.lstrip(b"\xff"))
        return message

    def ask(self, command: str, **arguments: Any) -> Any:
        """The answer to a command; events are passed over."""
        self.send({"execute": command, "arguments": arguments} if arguments else {"execute": command})
        while True:
            message = self.receive()
            if "error" in message:
                raise NoAnswerError(f"{command}: {message['error']}")
            if "return" in message:
                return message["return"]

    def close(self) -> None:
        self._socket.close()
