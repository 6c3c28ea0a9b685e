"""Packing: the same tree gives the same bytes, and what a device would refuse is refused here."""

import io
import os
import random
import socket
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firmware_tools import artifact, description, pack_options, packing
from firmware_tools.packing import ReleaseSpec
from firmware_tools.statement import release_lines
from firmware_tools.unit_options import unit_of
from fleet_protocol.archive import WINDOW_SIZE
from fleet_protocol.catalogue import Requirement
from fleet_protocol.errors import PolicyError
from fleet_protocol.install import HealthCheck as Check
from fleet_protocol.install import Unit

SPEC = ReleaseSpec(package="p", version="1.0", counter=1, kind="files", classes=("x86_64",))
NAMES = st.text(st.characters(codec="utf-8", categories=("Ll", "Nd")), min_size=1, max_size=12)
TREES = st.dictionaries(NAMES, st.tuples(st.binary(max_size=2_000), st.booleans()), max_size=6)


def unpacked(path: Path) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(path.read_bytes()) as reader:
        return reader.read()


def lay(root: Path, files: dict[str, tuple[bytes, bool]], *, order: int, umask: int) -> None:
    """Write the tree in some order, under some umask, with times of some other day."""
    luck = random.Random(order)
    names = sorted(files)
    luck.shuffle(names)
    old = os.umask(umask)
    try:
        root.mkdir(parents=True)
        for name in names:
            content, executable = files[name]
            for directory in (root, root / f"d-{name}"):
                directory.mkdir(exist_ok=True)
                path = directory / f"f-{name}"
                path.write_bytes(content)
                path.chmod(0o700 if executable else 0o640 & ~umask | 0o400)
                os.utime(path, (luck.randrange(10**9), luck.randrange(10**9)))
    finally:
        os.umask(old)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(files=TREES, orders=st.tuples(st.integers(0, 99), st.integers(0, 99)), umask=st.sampled_from([0o000, 0o077]))
def test_the_same_tree_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, tuple[bytes, bool]], orders: tuple[int, int], umask: int
) -> None:
    folded = {name.casefold(): content for name, content in files.items()}
    base = tmp_path_factory.mktemp("twice")
    packed = []
    for place, (order, mask) in enumerate(zip(orders, (0o022, umask), strict=True)):
        lay(base / str(place), folded, order=order, umask=mask)
        try:
            packed.append(packing.pack(base / str(place), base / f"{place}.tar.zst", SPEC, level=3))
        except PolicyError as error:
            packed.append(error.detail.replace(f"/{place}/", "/"))
    assert packed[0] == packed[1]
    if isinstance(packed[0], description.Description):
        assert (base / "0.tar.zst").read_bytes() == (base / "1.tar.zst").read_bytes()


def test_known_bytes(tmp_path: Path, tree: Path) -> None:
    """The archive is the same on every machine; the compressor's release is pinned with the requirements."""
    packing.pack(tree, tmp_path / "out.tar.zst", SPEC)
    plain = unpacked(tmp_path / "out.tar.zst")
    assert len(plain) == 7 * 512
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        found = [(m.name, m.mode, m.mtime, m.uid, m.gid, m.uname, m.gname, m.size) for m in archive]
    assert found == [
        ("bin", 0o755, 0, 0, 0, "", "", 0),
        ("bin/serve", 0o755, 0, 0, 0, "", "", 23),
        ("data.txt", 0o644, 0, 0, 0, "", "", 6),
    ]


def test_the_numbers_are_measured(tree: Path, tmp_path: Path) -> None:
    found = packing.pack(tree, tmp_path / "out.tar.zst", SPEC)
    measured = artifact.measure(tmp_path / "out.tar.zst", "tar.zst")
    assert (found.length, found.sha256) == (measured.length, measured.sha256)
    assert (found.custom.unpacked_size, found.custom.unpacked_files) == (29, 3)
    assert (measured.unpacked_size, measured.unpacked_files) == (29, 3)
    assert description.read(tmp_path / "out.tar.zst") == found


def test_a_large_tree_stays_in_the_window(tmp_path: Path) -> None:
    root = tmp_path / "t"
    root.mkdir()
    (root / "big").write_bytes(b"fairlead" * (3 * WINDOW_SIZE // 8))
    packing.pack(root, tmp_path / "out.tar.zst", SPEC, level=19)
    frame = zstandard.get_frame_parameters((tmp_path / "out.tar.zst").read_bytes()[:18])
    assert frame.window_size <= WINDOW_SIZE
    assert artifact.measure(tmp_path / "out.tar.zst", "tar.zst").unpacked_size == 3 * WINDOW_SIZE


def test_long_and_foreign_names_survive(tmp_path: Path) -> None:
    root = tmp_path / "t"
    name = "/".join(["é" * 60] * 3) + "/" + "x" * 200
    (root / name).parent.mkdir(parents=True)
    (root / name).write_text("deep")
    packing.pack(root, tmp_path / "out.tar.zst", SPEC)
    assert [member.name for member in artifact.members(tmp_path / "out.tar.zst")][-1] == name


def test_one_file_alone_brings_no_other_program(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x")
    check = Check(kind="exec", target="check.sh", interval_s=5, timeout_s=3, failures=3)
    with pytest.raises(PolicyError, match=r"check\.sh is not with it; pack a directory"):
        packing.pack(tmp_path / "blob", tmp_path / "out.raw", replace(SPEC, kind="files", exec=(), check=check))
    with pytest.raises(PolicyError, match="as the program p: bin/serve is not with it"):
        packing.pack(tmp_path / "blob", tmp_path / "out.raw", replace(SPEC, kind="service", exec=("bin/serve",)))
    packing.pack(tmp_path / "blob", tmp_path / "out.raw", replace(SPEC, kind="service", exec=("p",)))


def test_raw_is_the_file_itself(tmp_path: Path) -> None:
    source = tmp_path / "module.ko"
    source.write_bytes(b"\x7fELF" * 99)
    found = packing.pack(source, tmp_path / "out.raw", SPEC)
    assert (tmp_path / "out.raw").read_bytes() == source.read_bytes()
    assert (found.custom.format, found.custom.unpacked_size, found.custom.unpacked_files) == ("raw", 396, 1)
    assert found.path == "p/1.0/x86_64.raw"


def _symlink(root: Path) -> None:
    (root / "link").symlink_to("/etc/passwd")


def _directory_link(root: Path) -> None:
    (root / "link").symlink_to(root)


def _pipe(root: Path) -> None:
    os.mkfifo(root / "pipe")


def _socket(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        descriptor = os.open(root, os.O_PATH)
        try:
            unix.bind(f"/proc/self/fd/{descriptor}/s")
        finally:
            os.close(descriptor)


def _twins(root: Path) -> None:
    (root / "Read").touch()
    (root / "reaD").touch()


def _unicode_twins(root: Path) -> None:
    (root / "ſ").touch()
    (root / "s").touch()


def _not_normal(root: Path) -> None:
    (root / "e\u0301").touch()


def _control(root: Path) -> None:
    (root / "a\nb").touch()


def _backslash(root: Path) -> None:
    (root / "a\\b").touch()


def _not_utf8(root: Path) -> None:
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff"))).touch()


@pytest.mark.parametrize(
    "spoil",
    [
        _symlink,
        _directory_link,
        _pipe,
        _socket,
        _twins,
        _unicode_twins,
        _not_normal,
        _control,
        _backslash,
        _not_utf8,
    ],
)
def test_what_a_device_would_refuse_is_refused(tree: Path, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(tree)
    with pytest.raises(PolicyError) as caught:
        packing.pack(tree, tmp_path / "out.tar.zst", SPEC)
    assert caught.value.code == "bad-request"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"package": "My Service"},
        {"version": "../1"},
        {"counter": 0},
        {"counter": 2**53},
        {"classes": ()},
        {"classes": ("x86_64", "x86_64")},
        {"classes": tuple(f"class-{number}" for number in range(40))},
        {"kind": "service"},
        {"kind": "service", "exec": ("bin/absent",)},
        {"kind": "service", "exec": ("data.txt",)},
        {"stop_s": 0},
    ],
)
def test_a_wrong_description_is_refused(tree: Path, tmp_path: Path, wrong: dict[str, object]) -> None:
    fields: dict[str, object] = {"package": "p", "version": "1", "counter": 1, "kind": "files", "classes": ("x86_64",)}
    with pytest.raises(PolicyError):
        packing.pack(tree, tmp_path / "out.tar.zst", ReleaseSpec(**(fields | wrong)))  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree"]


def test_a_missing_tree_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PolicyError):
        packing.pack(tmp_path / "absent", tmp_path / "out", SPEC)


def test_several_classes_share_one_artifact(make_artifact: Callable[..., Path]) -> None:
    found = description.read(make_artifact(classes=("x86_64", "aarch64")))
    assert found.path == "my-service/1.2.0/aarch64+x86_64.tar.zst"
    assert found.custom.classes == ("aarch64", "x86_64")


def test_requirements_are_kept(make_artifact: Callable[..., Path]) -> None:
    wanted = Requirement(package="runtime", sha256="0" * 64)
    assert description.read(make_artifact(requires=(wanted,))).custom.requires == (wanted,)


def test_the_options_file_is_not_packed(tree: Path, tmp_path: Path) -> None:
    before = packing.pack(tree, tmp_path / "a.tar.zst", SPEC)
    (tree / packing.OPTIONS_NAME).write_text("counter = 1\n")
    assert packing.pack(tree, tmp_path / "b.tar.zst", SPEC) == before


def test_an_artifact_is_not_written_into_its_own_tree(tree: Path) -> None:
    with pytest.raises(PolicyError):
        packing.pack(tree, tree / "out.tar.zst", SPEC)
    assert not (tree / "out.tar.zst").exists()


UNIT = "[Service]\nExecStart=@SLOT@/bin/serve\n[Install]\nWantedBy=multi-user.target\n"


def test_a_unit_is_packed_and_said_in_words(tree: Path, tmp_path: Path) -> None:
    (tree / "web.service").write_text(UNIT)
    unit = unit_of({"file": "web.service", "name": "my-web.service"})
    spec = replace(SPEC, kind="service", unit=unit)
    found = packing.pack(tree, tmp_path / "out.tar.zst", spec, level=3)
    assert found.custom.install.unit == Unit(name="my-web.service", file="web.service", scope="system", enable=True)
    said = "\n".join(release_lines(found.custom, 1, "0" * 64))
    assert "web.service becomes my-web.service in /etc/systemd/system, enabled when it is first installed" in said
    assert description.read(tmp_path / "out.tar.zst").custom == found.custom


@pytest.mark.parametrize(
    ("text", "options", "names"),
    [
        (UNIT, {"file": "none.service"}, "none.service"),
        (UNIT, {"file": "../web.service"}, "path inside"),
        (UNIT, {"file": "web.service", "scope": "root"}, "unit.scope"),
        (UNIT, {"file": "web.service", "name": "web.socket"}, "unit name"),
        (UNIT, {"file": "web.service", "enabled": True}, "a unit has file"),
        (UNIT, {"name": "web.service"}, "a unit has file"),
        (UNIT.replace("bin/serve", "bin/none"), {"file": "web.service"}, "bin/none"),
        (UNIT.replace("bin/serve", "data.txt"), {"file": "web.service"}, "data.txt"),
        (UNIT.partition("[Install]")[0], {"file": "web.service"}, "nothing to enable"),
        (UNIT + "Also=x.socket\n", {"file": "web.service"}, "Also="),
        ("[Service]\n", {"file": "web.service", "enable": False}, "ExecStart="),
    ],
)
def test_a_unit_that_every_device_would_refuse_is_refused(
    tree: Path, tmp_path: Path, text: str, options: dict[str, object], names: str
) -> None:
    (tree / "web.service").write_text(text)
    fields = {"package": "p", "version": "1", "counter": 1, "kind": "service", "classes": ["x86_64"], "unit": options}
    with pytest.raises(PolicyError, match=names):
        packing.pack(tree, tmp_path / "out.tar.zst", pack_options.spec_of(fields), level=3)


def test_a_unit_is_for_services(tree: Path, tmp_path: Path) -> None:
    (tree / "web.service").write_text(UNIT)
    spec = replace(SPEC, unit=unit_of({"file": "web.service"}))
    with pytest.raises(PolicyError, match="kind service"):
        packing.pack(tree, tmp_path / "out.tar.zst", spec, level=3)
