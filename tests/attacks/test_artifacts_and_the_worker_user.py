"""Attack B9 by the account that downloads: whatever it leaves in its folders, root installs signed bytes or nothing.

The operations run in real workers, those without privileges as the account. The tricks are done with its rights, but
for what kernels with `fs.protected_hardlinks` refuse it. Needs root.
"""

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from device_agent.adapters.state_folders import lay_out
from device_agent.adapters.worker_process import WorkerProcess
from device_agent.core.plan import PlannedTarget
from device_agent.installers.tree import tree_digest
from device_agent.operations import Operation
from tests.fakes.artifacts import packed
from tests.fakes.attack_scene import RUN, AttackScene, attack_scene
from tests.fakes.install_driver import DeviceUnderTest
from tests.fakes.waiting import until
from tests.fakes.worker_account import (
    NAME,
    Python,
    account,
    as_account,
    environment,
    reachable_folder,
    reachable_python,
)

SECRET = b"only root may read this"


@pytest.fixture(scope="module")
def python() -> Iterator[Python]:
    with reachable_python() as found:
        yield found


class Workers:
    """Carries out a device's operations in real workers; `before` is done just before one of them, once."""

    def __init__(self, python: Python) -> None:
        self._python = python
        self.before: dict[str, Callable[[], object]] = {}

    @contextmanager
    def of(self, device: DeviceUnderTest) -> Iterator[Callable[[Operation], dict[str, object]]]:
        lay_out(device.state_dir, account())
        command = (*self._python.command, "-P", "-m", "device_agent.worker")
        worker = WorkerProcess(device.root / "agent.toml", _NoDocuments(), command=command, worker_user=True)

        def run(asked: Operation) -> dict[str, object]:
            self.before.pop(asked.op, lambda: None)()
            answers: list[Any] = []
            worker.submit(asked.op, asked.args, answers.append)
            until(lambda: answers, deadline_s=60)
            return dict(answers[0])

        try:
            yield run
        finally:
            worker.close()


class _NoDocuments:
    def read(self, topic: str, *, timeout_s: float) -> bytes | None:
        raise AssertionError("no operation on artifacts reads a document")


@dataclass
class Place:
    """A scene whose device has a worker user, and a file that is root's alone. Its releases rise from test to test."""

    scene: AttackScene
    workers: Workers
    secret: Path
    version: int = 1

    @property
    def cache(self) -> Path:
        return self.scene.device.state_dir / "cache"

    def next(self) -> PlannedTarget:
        """The artifact of a release that is newer than all before."""
        self.version += 1
        return self.scene.target(self.version, packed({"run": RUN, "version": b"%d" % self.version}, {"run": 0o755}))

    def path(self, target: PlannedTarget) -> Path:
        """Where the artifact is downloaded to."""
        return self.cache / target.sha256

    def install(self, target: PlannedTarget) -> tuple[str | None, str | None]:
        """Outcome and code of the attempt."""
        self.scene.install(self.scene.release(self.version, target))
        deployment, outcome, code = self.scene.shell.outcomes[-1]
        assert deployment == f"d-{self.version}"
        return outcome, code

    def runs(self) -> tuple[str | None, str, int | None]:
        """What runs, to the byte and to the process."""
        current = self.scene.device.current()
        slot = self.scene.device.slot(current)
        return current, tree_digest(slot), self.scene.device.supervisor.status("app").pid

    def refuses(self, target: PlannedTarget, code: str) -> None:
        """The attempt fails with this code, what runs goes on, and the next update works."""
        before = self.runs()
        assert self.install(target)[1] == code
        assert self.runs() == before
        self.goes_on()

    def goes_on(self) -> None:
        """Nothing leaked, nothing is left, and the next update works."""
        status = self.secret.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, 0, 0o600)
        assert self.secret.read_bytes() == SECRET
        told = repr(self.scene.shell.record) + repr(self.scene.shell.outcomes)
        assert SECRET.decode() not in told
        assert hashlib.sha256(SECRET).hexdigest() not in told
        self.scene.shell.settle()
        assert {path.name for path in self.cache.iterdir()} <= {"mirrors.json"}
        assert self.install(self.next()) == ("committed", None)
        assert self.scene.device.supervisor.status("app").version == f"{self.version}.0"


@pytest.fixture(scope="module")
def place(python: Python) -> Iterator[Place]:
    workers = Workers(python)
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in environment(python).items():
            patch.setenv(name, value)
        root = stack.enter_context(reachable_folder())
        secret = root / "secret"
        secret.write_bytes(SECRET)
        secret.chmod(0o600)

        def carry_out(device: DeviceUnderTest) -> Callable[[Operation], dict[str, object]]:
            return stack.enter_context(workers.of(device))

        yield Place(stack.enter_context(attack_scene(root, carry_out=carry_out, worker_user=NAME)), workers, secret)


def tricks(*commands: str) -> Callable[[Place, Path], None]:
    """Shell commands with the account's rights; `$1` is the artifact's place, `$2` the secret."""

    def do(place: Place, path: Path) -> None:
        done = as_account("sh", "-ec", "\n".join(commands), "sh", str(path), str(place.secret))
        assert done.returncode == 0, done.stderr

    return do


def second_name(place: Place, path: Path) -> None:
    """On a kernel that lets everybody name everything."""
    path.unlink(missing_ok=True)
    os.link(place.secret, path)


def last_name(place: Place, path: Path) -> None:
    """As above, and then root replaced its file by another one of the same name."""
    second_name(place, path)
    place.secret.unlink()
    place.secret.write_bytes(SECRET)
    place.secret.chmod(0o600)


REFUSED = {
    "a link to root's file": (tricks('rm "$1"', 'ln -s "$2" "$1"'), "io"),
    "a link to a device": (tricks('rm "$1"', 'ln -s /dev/zero "$1"'), "io"),
    "a link to nothing": (tricks('rm "$1"', 'ln -s nothing "$1"'), "io"),
    "a second name of root's file": (second_name, "io"),
    "the last name of root's file": (last_name, "io"),
    "a second name of its own file": (tricks('ln "$1" "$1.more"'), "io"),
    "a pipe that nobody writes": (tricks('rm "$1"', 'mkfifo "$1"'), "io"),
    "a directory": (tricks('rm "$1"', 'mkdir "$1"'), "io"),
    "a directory with something in it": (tricks('rm "$1"', 'mkdir -p "$1/a/b"', 'ln -s "$2" "$1/a/link"'), "io"),
    "nothing": (tricks('rm "$1"'), "io"),
    "other bytes": (tricks('echo other > "$1"'), "digest"),
    "more bytes than there is disk": (tricks('truncate -s 1T "$1"'), "digest"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_between_the_download_and_the_installation(place: Place, name: str) -> None:
    """The installer, which is root, refuses with a code; what runs goes on."""
    trick, code = REFUSED[name]
    target = place.next()
    place.workers.before["stage"] = lambda: trick(place, place.path(target))
    place.refuses(target, code)


BEFOREHAND = {
    "links": 'for name in "$1" "$1.part" "$1.etag" mirrors.json; do ln -s "$2" "$name"; done',
    "pipes": 'for name in "$1" "$1.part" "$1.etag" mirrors.json; do mkfifo "$name"; done',
    "an odd record of mirrors": "head -c 60000 /dev/zero | tr '\\0' '[' > mirrors.json",
    "a large record of mirrors": "truncate -s 1G mirrors.json",
    "directories": 'mkdir -p "$1/a" "$1.part/a"',
    "rubbish": 'mkdir -p a/b/c; touch a/b/c/d "$1.more" .hidden; chmod 000 a',
}


@pytest.mark.parametrize("name", BEFOREHAND)
def test_what_lay_there_before_the_download(place: Place, name: str) -> None:
    """An honest worker makes room for its own files, and all else goes with the next tidying."""
    target = place.next()
    tricks(f'cd "$(dirname "$1")"; rm -rf *; {BEFOREHAND[name]}')(place, place.path(target))
    assert place.install(target) == ("committed", None)
    place.goes_on()


def test_what_makes_a_download_fail_is_gone_afterwards(place: Place) -> None:
    """Directories where the worker writes: it fails, root tidies up, and the next update works."""
    target = place.next()
    tricks('cd "$(dirname "$1")"; mkdir -p mirrors.json.new/a "$1.etag/b"')(place, place.path(target))
    place.refuses(target, "io")


def test_a_disk_that_the_worker_user_filled(place: Place) -> None:
    """Root's tidying gives the space back, though it was no download that took it."""
    small, target = place.cache, place.next()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=1m,uid={account().uid},mode=700", "tmpfs", small], check=True)
    try:
        tricks('dd if=/dev/zero of="$(dirname "$1")/hog" bs=64k 2>/dev/null || true')(place, place.path(target))
        assert place.install(target)[1] == "no-space"
        place.scene.shell.settle()
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)
    place.goes_on()
