"""kill -9 inside dpkg itself, before one of its system calls: exactly the old or the new release comes out of it.

A small library that dpkg is started with counts the calls by which it changes the disk, and ends the process group
at a given one.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from device_agent.core.plan import PlannedRelease
from device_agent.operations import Operation
from fleet_protocol.errors import FleetError
from fleet_protocol.install import HealthCheck
from tests.fakes.artifacts import put_in_cache
from tests.fakes.debian import NEEDS_DPKG, Deb, DebianRoot, artifact, make_deb, release_of
from tests.fakes.install_driver import DeviceUnderTest, device_under_test
from tests.fakes.install_shell import InstallShell, KilledError, deployment, in_this_process
from tests.fakes.package_scene import app

pytestmark = [NEEDS_DPKG, pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")]
Way = Literal["on", "back", "first"]
SICK = HealthCheck(kind="exec", target="sick", interval_s=1, timeout_s=5, failures=1)
LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long calls, last = -1;

static void count(void)
{
    const char *text = getenv("KILL_DPKG_AT");
    if (last < 0)
        last = text && !strcmp(program_invocation_short_name, "dpkg") ? atol(text) : 0;
    if (last > 0 && ++calls == last) {
        kill(0, SIGKILL);
        pause();
    }
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
int rename(const char *from, const char *to) { REAL(rename); count(); return real(from, to); }
int link(const char *from, const char *to) { REAL(link); count(); return real(from, to); }
int symlink(const char *from, const char *to) { REAL(symlink); count(); return real(from, to); }
int unlink(const char *path) { REAL(unlink); count(); return real(path); }
int rmdir(const char *path) { REAL(rmdir); count(); return real(path); }
int mkdir(const char *path, mode_t mode);
int mkdir(const char *path, mode_t mode) { REAL(mkdir); count(); return real(path, mode); }
int fsync(int file) { REAL(fsync); count(); return real(file); }
int close(int file) { REAL(close); count(); return real(file); }
pid_t fork(void) { REAL(fork); count(); return real(); }
"""
BEGIN = """
import sys
from device_agent.installers.programs import PATH, Programs
Programs.__init__.__defaults__ = ({first!r} + ":" + PATH,)
from device_agent.worker.__main__ import main
sys.exit(main())
"""
ARM = 'if test -e {at} && case "$*" in *--install*|*--purge*) true;; *) false;; esac; then\n'
ARM += 'export KILL_DPKG_AT="$(cat {at})" LD_PRELOAD={library}; rm {at}; fi'


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("library")
    (place / "kill.c").write_text(LIBRARY)
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(place / "kill.so"), str(place / "kill.c"), "-ldl"]
    subprocess.run(command, check=True)
    return place / "kill.so"


@pytest.fixture(scope="module")
def debs() -> dict[int, tuple[Deb, ...]]:
    return {1: (app(1),), 2: (app(2), make_deb("extra", "1.0", files={"usr/share/extra": "x"})), 3: (app(3),)}


@dataclass
class Scene:
    """A device with the machine. `at` is the call of the next dpkg, in the operation `op`, at which everything ends."""

    device: DeviceUnderTest
    root: DebianRoot
    debs: dict[int, tuple[Deb, ...]]
    armed: Path
    shell: InstallShell = field(init=False)
    op: str | None = None
    at: int = 0
    killed: Operation | None = None

    def release(self, number: int, *, sick: bool = False) -> PlannedRelease:
        return release_of(*self.debs[number], version=number, tree={"sick": b""}, check=SICK if sick else None)

    def run_op(self, asked: Operation) -> dict[str, object]:
        put_in_cache(self.device.state_dir, *(artifact(*debs, tree={"sick": b""}) for debs in self.debs.values()))
        if asked.op != self.op or self.killed is not None:
            return in_this_process(self.device)(asked)
        self.armed.write_text(str(self.at))
        try:
            result = self.device.work(asked.op, **asked.args)
        except FleetError as error:
            return {"ok": False, "code": error.code, "detail": error.detail}
        finally:
            self.armed.unlink(missing_ok=True)
        if result is None:
            self.killed = asked
            raise KilledError
        return {"ok": True, "result": result}

    def install(self, number: int, *, worker_lost: bool = False, sick: bool = False) -> None:
        self.shell.publish(deployment(f"d-{number}", self.release(number, sick=sick)))
        while True:
            try:
                self.shell.settle()
            except KilledError:
                assert self.killed is not None
                self.shell.worker_lost(self.killed) if worker_lost else self.shell.start()
            else:
                return

    def expect(self, packages: dict[str, str], tree: dict[str, str | None] | None = None) -> None:
        assert self.root.packages() == packages
        found = self.root.tree()
        assert [name for name in found if ".dpkg-" in name] == []
        if tree is not None:
            assert found == tree
        assert list((self.device.state_dir / "backup").rglob("*.json")) == []


@pytest.fixture
def scene(tmp_path: Path, debs: dict[int, tuple[Deb, ...]], library: Path) -> Iterator[Scene]:
    root, armed = DebianRoot(tmp_path / "root"), tmp_path / "at"
    root.program("dpkg", ARM.format(at=armed, library=library))
    with device_under_test(tmp_path, system_root=root.path) as device:
        device.command = (sys.executable, "-c", BEGIN.format(first=f"{root.path}/usr/sbin"))
        found = Scene(device, root, debs, armed)
        found.shell = InstallShell(device, found.run_op)
        yield found


CALLS = [1, 2, 5, 12, 25, 40, 55, 70, 78, 90, 105, 120, 135, 150, 180]
"""dpkg makes some 250 calls here; each was tried once."""


@pytest.mark.parametrize("at", CALLS)
def test_an_update_goes_on(scene: Scene, at: int) -> None:
    scene.install(1)
    scene.op, scene.at = "activate", at
    scene.install(2)
    assert scene.killed is not None
    scene.expect({"app": "2.0", "extra": "1.0"})
    scene.install(3)
    scene.expect({"app": "3.0"})


@pytest.mark.parametrize("at", CALLS)
def test_an_update_is_undone(scene: Scene, at: int) -> None:
    scene.install(1)
    first = scene.root.tree()
    scene.op, scene.at = "activate", at
    scene.install(2, worker_lost=True)
    assert scene.killed is not None
    scene.expect({"app": "1.0"}, first)


@pytest.mark.parametrize("at", [at for at in CALLS if at < 130])
def test_a_way_back_goes_on(scene: Scene, at: int) -> None:
    scene.install(1)
    first = scene.root.tree()
    scene.op, scene.at = "revert", at
    scene.install(2, sick=True)
    assert scene.killed is not None
    scene.expect({"app": "1.0"}, first)


@pytest.mark.parametrize("at", CALLS)
def test_a_first_installation_is_undone(scene: Scene, at: int) -> None:
    nothing = scene.root.tree()
    scene.op, scene.at = "activate", at
    scene.install(2, worker_lost=True)
    assert scene.killed is not None
    scene.expect({}, nothing)
