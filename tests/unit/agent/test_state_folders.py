"""Who owns what below the state directory, and how it comes to another owner. Only root can try it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.adapters.spool import DocumentSpool
from device_agent.adapters.state_folders import FOLDERS, lay_out
from device_agent.identity import WorkerUser
from fleet_protocol import topics
from fleet_protocol.errors import PolicyError
from tests.fakes.worker_account import account, as_account, reachable_folder

OTHER = WorkerUser("other", 54_321, 54_321)
"""An owner before or after; it needs no entry."""


@pytest.fixture
def state() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can give files to others")
    with reachable_folder() as found:
        yield found / "state"


def owner(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def fill(state: Path) -> None:
    """What an agent of one identity leaves: also what a power cut leaves in the middle of new metadata."""
    for name in FOLDERS:
        (state / name).mkdir(mode=0o700, parents=True)
    state.chmod(0o700)
    (state / "device.pem").write_bytes(b"key")
    (state / "journal" / "record.json").write_bytes(b"record")
    (state / "spool" / "manifest.accepted").write_bytes(b"manifest")
    (state / "cache" / ("0" * 64)).write_bytes(b"artifact")
    (state / "trust" / "floors.json").write_bytes(b"floors")
    for number in (9, 10):
        (state / "trust" / f"metadata-{number}").mkdir()
    (state / "trust" / "metadata-9" / "root.json").write_bytes(b"root")
    os.link(state / "trust" / "metadata-9" / "root.json", state / "trust" / "metadata-10" / "root.json")
    for path in (path for path in state.rglob("*") if path.is_file()):
        path.chmod(0o600)


def content(state: Path) -> dict[str, bytes]:
    return {str(path.relative_to(state)): path.read_bytes() for path in sorted(state.rglob("*")) if path.is_file()}


def belongs(state: Path, user: WorkerUser | None) -> None:
    """Everything is with whom it should be."""
    uid, gid = (0, 0) if user is None else (user.uid, user.gid)
    assert owner(state) in ([(0, 0, 0o700)] if user is None else []) + [(0, 0, 0o711)]  # who may pass stays so: rule 4
    for name in (name for name, side in FOLDERS.items() if side == "agent"):
        assert owner(state / name) == (0, 0, 0o700)
    assert owner(state / "spool") == ((0, 0, 0o700) if user is None else (0, gid, 0o2750))
    for name in ("cache", "trust", "trust/metadata-9", "trust/metadata-10"):
        assert owner(state / name) == (uid, gid, 0o700 if "/" not in name else owner(state / name)[2])
    for name in ("device.pem", "trust/floors.json", "trust/metadata-10/root.json", f"cache/{'0' * 64}"):
        assert owner(state / name) == (uid, gid, 0o600)
    assert owner(state / "journal" / "record.json") == (0, 0, 0o600)


def test_a_new_device(state: Path) -> None:
    """Also one whose state directory lies in a new folder."""
    state = state / "lib" / "agent"
    lay_out(state, account())
    assert as_account("ls", str(state / "cache")).returncode == 0
    lay_out(state, account())
    user = account()
    assert owner(state) == (0, 0, 0o711)
    assert owner(state / "trust") == owner(state / "cache") == (user.uid, user.gid, 0o700)
    assert owner(state / "spool") == (0, user.gid, 0o2750)
    assert sorted(path.name for path in state.iterdir()) == ["cache", "spool", "trust"]


def test_without_a_worker_user_nothing_is_made(state: Path) -> None:
    lay_out(state, None)
    assert owner(state) == (0, 0, 0o700)
    assert list(state.iterdir()) == []


def test_a_device_of_one_identity_gets_a_worker_user_another_one_and_none(state: Path) -> None:
    fill(state)
    before = content(state)
    for user in (account(), OTHER, account(), None, account()):
        lay_out(state, user)
        lay_out(state, user)
        belongs(state, user)
        assert content(state) == before


def test_what_a_power_cut_interrupts_is_done_again(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whichever change of an owner: a folder that is handed over is whole."""
    fill(state)
    before, change = content(state), os.fchown
    for cut in range(40):
        left = [cut]

        def until_cut(descriptor: int, uid: int, gid: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            change(descriptor, uid, gid)

        monkeypatch.setattr("device_agent.adapters.state_folders.os.fchown", until_cut)
        try:
            lay_out(state, OTHER)
        except KeyboardInterrupt:
            done = False
        else:
            done = True
        monkeypatch.undo()
        lay_out(state, OTHER)
        belongs(state, OTHER)
        assert content(state) == before
        if done:
            break
        lay_out(state, None)
        assert content(state) == before
    else:
        raise AssertionError("the cuts never came to an end")


def plant(state: Path, secret: Path) -> None:
    """What a worker user may leave for the next owner."""
    for folder in (state / "cache", state / "trust", state / "trust" / "metadata-9"):
        os.link(secret, folder / "second name")
        (folder / "link").symlink_to(secret)
        (folder / "folder").symlink_to(secret.parent)
        os.mkfifo(folder / "pipe")
    (state / "trust" / "a" / "b" / "c").mkdir(parents=True)


@pytest.mark.parametrize("after", [OTHER, None], ids=["another user", "nobody but root"])
def test_links_that_the_worker_user_planted_are_removed(state: Path, after: WorkerUser | None) -> None:
    fill(state)
    lay_out(state, account())
    before = content(state)
    secret = state.parent / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0o640)
    plant(state, secret)
    lay_out(state, after)
    assert owner(secret) == (0, 0, 0o640)
    assert secret.read_bytes() == b"secret"
    assert secret.stat().st_nlink == 1
    assert content(state) == before
    belongs(state, after)


def test_the_worker_user_s_own_folders_are_left_alone(state: Path) -> None:
    """A start does not look into a folder that is with the right owner, whatever was put there."""
    lay_out(state, account())
    secret = state.parent / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0o640)
    for folder in (state / "cache", state / "trust"):
        os.link(secret, folder / "second name")
        (folder / "link").symlink_to(secret)
    lay_out(state, account())
    assert owner(secret) == (0, 0, 0o640)


def test_a_state_directory_of_somebody_else_s(state: Path) -> None:
    state.mkdir()
    os.chown(state, OTHER.uid, OTHER.gid)
    lay_out(state, None)
    assert owner(state)[0] == OTHER.uid
    with pytest.raises(PolicyError, match="belongs to user 54321") as caught:
        lay_out(state, account())
    assert caught.value.code == "setup"


def test_a_folder_may_lie_on_another_disk(state: Path) -> None:
    """A link that root made in a directory that only root writes."""
    elsewhere = state.parent / "disk"
    elsewhere.mkdir()
    state.mkdir()
    (state / "cache").symlink_to(elsewhere)
    lay_out(state, account())
    assert owner(elsewhere)[0] == account().uid


def test_a_device_key_that_lies_elsewhere(state: Path) -> None:
    """Root may keep it behind a link for itself; given away is only what lies in the state directory."""
    state.mkdir()
    key = state.parent / "key"
    key.write_bytes(b"key")
    key.chmod(0o640)
    (state / "device.pem").symlink_to(key)
    lay_out(state, None)
    with pytest.raises(OSError, match="symbolic"):
        lay_out(state, account())
    assert owner(key) == (0, 0, 0o640)


def test_the_worker_user_reads_what_the_resident_hands_to_it(state: Path) -> None:
    lay_out(state, account())
    spool = DocumentSpool(state / "spool")
    path = spool.put(topics.MANIFEST, b"manifest")
    assert as_account("cat", str(path)).stdout == b"manifest"
    spool.accept(topics.MANIFEST)
    accepted = spool.accepted_path(topics.MANIFEST)
    assert accepted is not None
    assert as_account("cat", str(accepted)).stdout == b"manifest"
    for command in (["tee", str(accepted)], ["rm", str(accepted)], ["touch", str(path)], ["ls", str(state)]):
        assert as_account(*command).returncode != 0
    assert spool.accepted(topics.MANIFEST) == b"manifest"
    assert owner(accepted) == (0, account().gid, 0o640)


@pytest.mark.parametrize("named", [True, False])
def test_services_of_other_users_go_on_passing(state: Path, named: bool) -> None:
    """Rule 4: nothing else is opened, and nobody may look."""
    fill(state)
    for path in (state, state / "slots", state / "services", state / "journal", state / "trust"):
        path.chmod(0o777)
    lay_out(state, account() if named else None)
    for path in (state, state / "slots", state / "services"):
        assert owner(path) == (0, 0, 0o711)
    assert owner(state / "journal")[2] == owner(state / "trust")[2] == 0o700
