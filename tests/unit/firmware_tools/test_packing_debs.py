"""Releases of Debian packages: what is in the description was measured, and mistakes are found while packing."""

import gzip
import lzma
import subprocess
from pathlib import Path

import pytest

from firmware_tools import debian, pack_options, packing
from firmware_tools.description import Description
from firmware_tools.statement import release_lines
from fleet_protocol.errors import PolicyError
from fleet_protocol.install import DebianPackage
from tests.fakes.debian import NEEDS_DPKG, Deb, make_deb

pytestmark = NEEDS_DPKG
OPTIONS = {"package": "tools", "version": "1.0", "counter": 1, "kind": "package", "classes": ["aarch64"]}
TOML = "".join(f"{name} = {value!r}\n".replace("'", '"') for name, value in OPTIONS.items())


def laid(tree: Path, *debs: Deb, more: str = "") -> Path:
    tree.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        (tree / deb.file).write_bytes(deb.data)
    (tree / "fairlead.toml").write_text(TOML + more)
    return tree


def pack(tree: Path) -> Description:
    options = pack_options.find(tree)
    assert options is not None
    return packing.pack(tree, tree.parent / "out.tar.zst", pack_options.spec_of(pack_options.read(options)), level=1)


def refusal(tree: Path) -> str:
    with pytest.raises(PolicyError) as found:
        pack(tree)
    assert found.value.code == "bad-request"
    return found.value.detail


def test_packages_of_a_tree_are_measured(tmp_path: Path) -> None:
    one, two = make_deb("one", "1:1.0", architecture="arm64"), make_deb("two", "2.0~rc1")
    tree = laid(tmp_path / "tree", one)
    laid(tree / "deps", two)
    (tree / "deps/fairlead.toml").unlink()
    (tree / "README").write_text("not a package")
    install = pack(tree).custom.install
    assert install.packages == (
        DebianPackage(name="two", version="2.0~rc1", architecture="all", sha256=two.sha256, file=f"deps/{two.file}"),
        DebianPackage(name="one", version="1:1.0", architecture="arm64", sha256=one.sha256, file=one.file),
    )
    assert install.dependencies == "release"


def test_one_package_is_taken_as_it_is(tmp_path: Path) -> None:
    """Its name in the slot is the release's."""
    one = make_deb("one", "1.0")
    tree = laid(tmp_path / "tree", one)
    spec = pack_options.spec_of(OPTIONS)
    found = packing.pack(tree / one.file, tmp_path / "out.raw", spec)
    assert found.custom.format == "raw"
    assert [package.file for package in found.custom.install.packages] == ["tools"]
    assert found.sha256 == one.sha256


def test_packages_of_a_repository_are_measured_or_looked_up(tmp_path: Path) -> None:
    """Beside the options file, wherever `pack` is run; also in a packed index."""
    one, two, three, other = (make_deb(name, "1.0", architecture="arm64") for name in ("one", "two", "three", "two"))
    mirror = tmp_path / "mirror"
    laid(mirror, two)
    (mirror / three.file).write_bytes(three.data)
    index = subprocess.run(["dpkg-scanpackages", "."], cwd=mirror, check=True, capture_output=True).stdout
    (mirror / "Packages.gz").write_bytes(gzip.compress(index))
    (mirror / "Packages.xz").write_bytes(lzma.compress(index))
    more = 'dependencies = "repository"\n[[repository]]\ndeb = "../mirror/two_1.0_arm64.deb"\n'
    more += '[[repository]]\nname = "three"\nversion = "1.0"\npackages = "../mirror/Packages.{}"\n'
    assert other.sha256 == two.sha256
    for end in ("gz", "xz"):
        install = pack(laid(tmp_path / "tree", one, more=more.format(end))).custom.install
        assert [(package.name, package.sha256, package.file) for package in install.packages] == [
            ("one", one.sha256, one.file),
            ("two", two.sha256, None),
            ("three", three.sha256, None),
        ]
        assert install.dependencies == "repository"


def test_mistakes_are_found_while_packing(tmp_path: Path) -> None:
    one = make_deb("one", "1.0")
    assert "no .deb" in refusal(laid(tmp_path / "empty"))
    assert "more than once" in refusal(laid(tmp_path / "twice", one, make_deb("one", "1.0", architecture="arm64")))
    assert "exec is for services" in refusal(laid(tmp_path / "exec", one, more='exec = ["bin/x"]\n'))
    assert "dependencies must be" in refusal(laid(tmp_path / "word", one, more='dependencies = "any"\n'))
    assert "each of repository has" in refusal(laid(tmp_path / "form", one, more='[[repository]]\nurl = "x"\n'))
    assert "No such file" in refusal(laid(tmp_path / "none", one, more='[[repository]]\ndeb = "none.deb"\n'))
    (tmp_path / "Packages").write_text("Package: two\nVersion: 1.0\nArchitecture: all\n\n\nnonsense\n")
    listed = '[[repository]]\nname = "two"\nversion = "2.0"\npackages = "../Packages"\n'
    assert "is not a Packages file" in refusal(laid(tmp_path / "nonsense", one, more=listed))
    broken = laid(tmp_path / "broken", one)
    (broken / one.file).write_bytes(one.data[:-10])
    assert "is not a Debian package" in refusal(broken)


def test_an_index_with_several_architectures_asks_which(tmp_path: Path) -> None:
    rows = [("amd64", "a" * 64), ("arm64", "b" * 64)]
    index = "".join(f"Package: two\nVersion: 2.0\nArchitecture: {name}\nSHA256: {sha}\n\n" for name, sha in rows)
    (tmp_path / "Packages").write_text(index)
    wanted = {"name": "two", "version": "2.0", "packages": "Packages"}
    empty = laid(tmp_path / "empty")

    def found(**more: str) -> tuple[DebianPackage, ...]:
        options = list(debian.from_repository([wanted | more], tmp_path))
        return debian.packages(empty, "x", options)

    with pytest.raises(PolicyError, match="for which architecture"):
        found()
    assert [(one.architecture, one.sha256, one.file) for one in found(architecture="arm64")] == [
        ("arm64", "b" * 64, None)
    ]
    with pytest.raises(PolicyError, match="has no two"):
        found(version="3.0")


def test_repositories_are_for_packages(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    spec = pack_options.spec_of(OPTIONS | {"kind": "files", "dependencies": "repository"})
    with pytest.raises(PolicyError, match="for kind package"):
        packing.pack(tmp_path / "x", tmp_path / "out.raw", spec)


def test_whoever_signs_reads_what_will_be_installed(tmp_path: Path) -> None:
    one = make_deb("one", "1.0", depends="two, libc6 (>= 2.36)")
    two = make_deb("two", "2.0", provides="three")
    more = 'dependencies = "repository"\n[[repository]]\ndeb = "../two.deb"\n'
    tree = laid(tmp_path / "tree", one, more=more)
    (tmp_path / "two.deb").write_bytes(two.data)
    found = pack(tree)
    text = "\n".join(release_lines(found.custom, found.length, found.sha256))
    assert "installs one 1.0 (all) out of the artifact" in text
    assert "installs two 2.0 (all) from the device's own repositories" in text
    assert two.sha256 in text
    assert "MAY INSTALL more packages" in text


def test_what_no_package_of_the_release_brings_is_said(tmp_path: Path) -> None:
    """Neither one in the artifact, nor one that devices get by themselves; what those need is needed as well."""
    one = make_deb("one", "1.0", depends="two, three (>= 1) | four, libc6 (>= 2.36)")
    two = make_deb("two", "2.0", depends="five, six, seven")
    (tmp_path / "two.deb").write_bytes(two.data)
    three = f"Package: three\nVersion: 1.0\nArchitecture: all\nSHA256: {'a' * 64}\nDepends: eight\nProvides: five\n"
    (tmp_path / "Packages").write_text(three)
    more = '[[repository]]\ndeb = "../two.deb"\n'
    more += '[[repository]]\nname = "three"\nversion = "1.0"\npackages = "../Packages"\n'
    tree = laid(tmp_path / "tree", one, make_deb("six", "1.0", provides="seven (= 2)"), more=more)
    repository = pack_options.spec_of(pack_options.read(tree / "fairlead.toml")).repository
    assert debian.needs_lines(tree, repository) == ["  needs on the device: eight, libc6 (>= 2.36)"]
    assert debian.needs_lines(tree, ()) == ["  needs on the device: libc6 (>= 2.36), three (>= 1) | four, two"]
