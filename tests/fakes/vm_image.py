"""The disk of an arm64 device, built once and kept; and one that has the agent's program, running, as a snapshot."""

import shutil
import subprocess
from pathlib import Path

from tests.fakes import debian_tree, lab_cache
from tests.fakes.agent_wheels import agent_wheels
from tests.fakes.qemu import GOLDEN, MACHINE, VM

HERE = Path(__file__).parents[1] / "device" / "vm"
WHEELS = "/usr/local/share/fairlead"
"""Where the device has the folder of wheels, and install-agent.sh in it."""
_PYTHON = "3.11"


def base_image() -> Path:
    """root.ext4, vmlinuz, initrd.gz, kernel and headers of a Debian without the agent. Some minutes, once."""
    key = lab_cache.digest([HERE / "build_image.sh", HERE / "initrd-init"])

    def build(place: Path) -> None:
        argv = [str(HERE / "build_image.sh"), str(place), *debian_tree.sources()]
        lab_cache.build_with(argv, place.parent / "vm-build.log")

    return lab_cache.cached("vm", key, build)


def agent_image() -> Path:
    """golden.qcow2, with the agent's program on the disk, and the running device as a snapshot in it.

    The program was installed by install-agent.sh on the device itself, out of a folder of wheels for its architecture.
    Takes minutes, once for each state of the agent.
    """
    base, wheels = base_image(), agent_wheels("aarch64", _PYTHON)

    def build(place: Path) -> None:
        disk = place / "golden.qcow2"
        _overlay(base / "root.ext4", disk, "raw")
        archive = place / "wheels.tar"
        subprocess.run(["tar", "-C", str(wheels), "-cf", str(archive), "."], check=True)
        with VM(disk, base, place) as device:
            device.start()
            device.put(archive, "/root/wheels.tar")
            device.do(f"mkdir -p {WHEELS}; tar -C {WHEELS} -xf /root/wheels.tar; rm /root/wheels.tar")
            device.do(f"{WHEELS}/install-agent.sh")
            device.do("sync; echo 3 >/proc/sys/vm/drop_caches")
            device.save(GOLDEN)
        archive.unlink()

    return lab_cache.cached("golden", lab_cache.digest([base.name, wheels.name, *MACHINE]), build)


def golden_disk(place: Path) -> Path:
    """A disk of its own with the snapshot in it."""
    disk = place / "disk.qcow2"
    shutil.copyfile(agent_image() / "golden.qcow2", disk)
    return disk


def _overlay(base: Path, disk: Path, form: str) -> None:
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", form, str(disk)]
    subprocess.run(argv, check=True, capture_output=True)
