"""The first ceremony: keys on disk, the first root, an empty catalogue."""

import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from firmware_tools import ceremony, draft, keys, signing
from firmware_tools.ceremony import Expiry
from firmware_tools.fleet import Fleet
from firmware_tools.root_chain import ROLES
from fleet_protocol.errors import PolicyError

OFFLINE = {f"{role}-{number}.pem" for role in ("root", "targets") for number in (1, 2, 3)}


def test_keys_are_private_files_in_private_directories(fleet: Fleet) -> None:
    assert {path.name for path in fleet.offline.iterdir()} == OFFLINE
    assert {path.name for path in fleet.online.iterdir()} == {"snapshot.pem", "timestamp.pem", "deployment.pem"}
    for directory in (fleet.offline, fleet.online):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_root_and_catalogue_are_signed_and_strict(fleet: Fleet) -> None:
    (root,) = fleet.roots()
    assert (root.version, root.fleet) == (1, "acme")
    assert {name: (role.threshold, len(role.keys)) for name, role in root.roles.items()} == {
        "root": (2, 3),
        "targets": (2, 3),
        "snapshot": (1, 1),
        "timestamp": (1, 1),
        "deployment": (1, 1),
    }
    assert root.metadata.signed.consistent_snapshot is True
    catalogue = fleet.targets()
    assert catalogue is not None
    assert root.accepts_targets(catalogue)
    assert (catalogue.signed.version, catalogue.signed.targets) == (1, {})
    assert not list(fleet.draft.iterdir())


def test_no_two_roles_share_a_key(fleet: Fleet) -> None:
    values = [value for role in ROLES for value in fleet.root().roles[role].values]
    assert len(values) == len(set(values)) == 9


def test_key_files_match_root(fleet: Fleet) -> None:
    root = fleet.root()
    for path in (*fleet.offline.iterdir(), *fleet.online.iterdir()):
        key = keys.load(path).public_key
        (role,) = (name for name, role in root.roles.items() if key.keyid in role.keys)
        assert path.stem.startswith(role)
        assert keys.name_of(root.roles[role].keys[key.keyid]) == path.stem


def test_a_passphrase_encrypts_the_offline_keys_alone(tmp_path: Path, now_s: float) -> None:
    fleet = ceremony.init(tmp_path / "f", fleet="acme", now_s=now_s, passphrase="correct horse", threshold=1, keys=1)
    pem = (fleet.offline / "root-1.pem").read_bytes()
    assert b"ENCRYPTED" in pem
    assert b"ENCRYPTED" not in (fleet.online / "snapshot.pem").read_bytes()
    load_pem_private_key(pem, b"correct horse")
    for wrong in (None, "wrong"):
        with pytest.raises(PolicyError) as caught:
            keys.load(fleet.offline / "root-1.pem", wrong)
        assert caught.value.code == "keys"


def test_a_plain_key_ignores_a_passphrase(fleet: Fleet) -> None:
    assert keys.load(fleet.offline / "root-1.pem", "not needed").public_key


@pytest.mark.parametrize(
    "wrong",
    [
        {"fleet": "Acme"},
        {"fleet": "../acme"},
        {"fleet": ""},
        {"passphrase": ""},
        {"classes": ("x86/64",)},
    ],
)
def test_a_wrong_request_is_refused(tmp_path: Path, now_s: float, wrong: dict[str, object]) -> None:
    request: dict[str, object] = {"fleet": "acme"} | wrong
    with pytest.raises(PolicyError):
        ceremony.init(tmp_path / "f", now_s=now_s, **request)  # type: ignore[arg-type]


@pytest.mark.parametrize("days", [0, -1, 3_661, float("nan")])
def test_an_impossible_expiry_is_refused(days: float) -> None:
    with pytest.raises(PolicyError):
        Expiry(root_days=days)


def test_keys_are_never_overwritten(fleet: Fleet, now_s: float) -> None:
    before = {path: path.read_bytes() for path in fleet.directory.rglob("*") if path.is_file()}
    with pytest.raises(PolicyError) as caught:
        ceremony.init(fleet.directory, fleet="acme", now_s=now_s)
    assert caught.value.code == "conflict"
    assert {path: path.read_bytes() for path in fleet.directory.rglob("*") if path.is_file()} == before


def test_holders_on_other_machines_bring_their_public_keys(tmp_path: Path, now_s: float) -> None:
    """Each holder makes a key at home; the ceremony's machine never sees it; signatures accumulate."""
    files: dict[str, list[Path]] = {"root": [], "targets": []}
    public: dict[str, list[keys.Key]] = {"root": [], "targets": []}
    for role, paths in files.items():
        for number in range(3):
            signer = keys.generate()
            path = tmp_path / "homes" / f"{role}{number}.pem"
            keys.write(signer, path, None)
            path.with_suffix(".pub").write_bytes(keys.public_document(signer.public_key))
            paths.append(path)
            public[role].append(keys.read_public(path.with_suffix(".pub")))
    fleet = ceremony.init(tmp_path / "f", fleet="acme", now_s=now_s, public=public)
    assert not fleet.offline.exists()
    assert fleet.roots() == ()
    (one,) = signing.sign(fleet, [files["root"][0]], now_s=now_s)
    assert one.published is None
    (two,) = signing.sign(fleet, [files["root"][2]], now_s=now_s)
    assert two.published == fleet.metadata / "1.root.json"
    (three,) = signing.sign(fleet, files["targets"][:2], now_s=now_s)
    assert three.published == fleet.metadata / "1.targets.json"
    assert draft.load(fleet, "root") is None


def test_a_public_key_file_cannot_claim_another_id(tmp_path: Path) -> None:
    path = tmp_path / "k.pub"
    document = keys.public_document(keys.generate().public_key)
    path.write_bytes(document.replace(b'"keyid":"', b'"keyid":"00'))
    assert not keys.read_public(path).keyid.startswith("00")


def test_one_holder_cannot_be_two(tmp_path: Path, now_s: float) -> None:
    key = keys.generate().public_key
    with pytest.raises(PolicyError):
        ceremony.init(tmp_path / "f", fleet="acme", now_s=now_s, public={"root": [key, key]})
    assert not (tmp_path / "f").exists()


RENAMES = 13


@pytest.mark.parametrize("at", range(RENAMES + 1))
def test_a_ceremony_that_was_cut_short_can_be_begun_again(
    tmp_path: Path, now_s: float, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before any of its renames: the second try ends in one whole fleet, and in nothing left over."""
    count = 0
    rename, replace = Path.rename, Path.replace

    class Killed(BaseException):
        pass

    def counted(original: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def move(path: Path, target: Path) -> Path:
            nonlocal count
            if count == at:
                raise Killed
            count += 1
            return original(path, target)

        return move

    place = tmp_path / "fleet"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted(rename))
        patch.setattr(Path, "replace", counted(replace))
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        if at < RENAMES:
            with pytest.raises(Killed):
                ceremony.init(place, fleet="acme", now_s=now_s, classes=["x86_64"])
        else:
            ceremony.init(place, fleet="acme", now_s=now_s, classes=["x86_64"])
            assert count == RENAMES
    if at == RENAMES or Fleet(place).roots():
        with pytest.raises(PolicyError):
            ceremony.init(place, fleet="acme", now_s=now_s, classes=["x86_64"])
    else:
        ceremony.init(place, fleet="acme", now_s=now_s, classes=["x86_64"])
    fleet = Fleet(place)
    assert {path.name for path in place.iterdir()} == {"offline", "online", "metadata", "draft", "classes"}
    assert fleet.targets() is not None
    assert {path.name for path in fleet.offline.iterdir()} == OFFLINE
    for path in (*fleet.offline.iterdir(), *fleet.online.iterdir()):
        assert any(keys.load(path).public_key.keyid in role.keys for role in fleet.root().roles.values())
