"""Packages that a device gets from its own repositories, by a real apt from a directory that it takes for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.debian import NEEDS_APT, NEEDS_DPKG, Repository, artifact, make_deb
from tests.fakes.package_scene import PackageScene, app, package_scene

pytestmark = [NEEDS_DPKG, NEEDS_APT]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[PackageScene]:
    with package_scene(tmp_path) as found:
        yield found


@pytest.fixture
def repository(scene: PackageScene, tmp_path: Path) -> Repository:
    found = Repository(tmp_path / "repository")
    found.offer()
    found.serve(scene.root)
    return found


def test_a_named_package_comes_from_the_repository(scene: PackageScene, repository: Repository) -> None:
    """In the exact version that is signed, whatever else there is; the way back and the recall need no network."""
    scene.root.put(app(1))
    tool = make_deb("tool", "1:2.0-1")
    repository.offer(app(2), tool, make_deb("tool", "1:3.0-1"))
    scene.activate(*scene.stage(app(2), remote=[tool]))
    scene.commit()
    assert scene.root.packages() == {"app": "2.0", "tool": "1:2.0-1"}
    repository.offer()
    scene.activate(*scene.stage(app(3), make_deb("tool", "1:3.0-1")))
    assert scene.root.packages() == {"app": "3.0", "tool": "1:3.0-1"}
    scene.revert()
    assert scene.root.packages() == {"app": "2.0", "tool": "1:2.0-1"}
    assert scene.left_over() == []


def test_what_was_fetched_before_needs_no_repository(scene: PackageScene, repository: Repository) -> None:
    tool = make_deb("tool", "2.0")
    repository.offer(tool)
    scene.stage(app(1), remote=[tool])
    repository.offer()
    scene.activate(*scene.stage(app(1), remote=[tool]))
    assert scene.root.packages() == {"app": "1.0", "tool": "2.0"}


def test_other_bytes_under_the_same_version_are_refused(scene: PackageScene, repository: Repository) -> None:
    """Attack B3, by the repository or whoever built the package again."""
    repository.offer(make_deb("tool", "2.0", files={"usr/lib/tool/more": "x"}))
    assert scene.refused(app(1), remote=[make_deb("tool", "2.0")]).code == "digest"
    left = [path.name for path in (scene.device.state_dir / "cache").iterdir()]
    assert left == [artifact(app(1)).sha256]


def test_a_version_that_is_not_there_is_the_releases_fault(scene: PackageScene, repository: Repository) -> None:
    repository.offer(make_deb("tool", "1.9"))
    error = scene.refused(app(1), remote=[make_deb("tool", "2.0")])
    assert (error.code, error.detail) == ("dependencies", "the device's repositories do not have tool 2.0 for all")


def test_a_repository_that_can_not_be_reached_spends_no_attempt(scene: PackageScene) -> None:
    """Rule R11: a failure of the transport, while downloading."""
    (scene.root.path / "etc/apt/sources.list").write_text("deb [trusted=yes] copy:/no/such/place ./\n")
    error = scene.refused(app(1), remote=[make_deb("tool", "2.0")])
    assert error.fault == "transport"
    assert error.code == "unreachable"


def test_dependencies_come_from_the_repository_where_the_release_allows_it(
    scene: PackageScene, repository: Repository
) -> None:
    libs = make_deb("lib", "1.0", depends="libx"), make_deb("libx", "1.0")
    repository.offer(*libs)
    wanted = app(2, depends="lib (>= 1)")
    assert scene.refused(wanted).code == "dependencies"
    scene.root.put(app(1))
    scene.activate(*scene.stage(wanted, dependencies="repository"))
    assert scene.root.packages() == {"app": "2.0", "lib": "1.0", "libx": "1.0"}
    states = (scene.root.path / "var/lib/apt/extended_states").read_text()
    assert states.count("Auto-Installed: 1") == 2
    scene.revert()
    assert scene.root.packages() == {"app": "1.0"}
    assert "Auto-Installed: 1" not in (scene.root.path / "var/lib/apt/extended_states").read_text()
    assert scene.left_over() == []


def test_a_recall_brings_the_dependencies_back_without_a_repository(
    scene: PackageScene, repository: Repository
) -> None:
    repository.offer(make_deb("lib", "1.0"))
    scene.activate(*scene.stage(app(1, depends="lib"), dependencies="repository"))
    scene.commit()
    scene.activate(*scene.stage(app(2)))
    scene.commit()
    assert scene.root.packages() == {"app": "2.0"}
    repository.offer()
    (release, tree), (left, _) = scene.installed
    scene.device.run("activate", release=release, slot="a", previous="b", before=left, tree=tree)
    assert scene.root.packages() == {"app": "1.0", "lib": "1.0"}


def test_what_is_installed_is_not_upgraded_to_meet_a_dependency(scene: PackageScene, repository: Repository) -> None:
    scene.root.put(make_deb("lib", "0.9"))
    repository.offer(make_deb("lib", "1.0"))
    error = scene.refused(app(1, depends="lib (>= 1)"), dependencies="repository")
    assert error.code == "dependencies"
    assert "lib" in error.detail


def test_nothing_is_removed_to_meet_a_dependency(scene: PackageScene, repository: Repository) -> None:
    scene.root.put(make_deb("other", "1"))
    repository.offer(make_deb("lib", "1.0", conflicts="other"))
    assert scene.refused(app(1, depends="lib"), dependencies="repository").code == "dependencies"


def test_what_no_repository_has_is_said_by_name(scene: PackageScene, repository: Repository) -> None:
    error = scene.refused(app(1, depends="lib (>= 2)"), dependencies="repository")
    assert error.code == "dependencies"
    assert "lib" in error.detail


def test_an_unreachable_repository_while_staging_is_tried_again(scene: PackageScene) -> None:
    (scene.root.path / "etc/apt/sources.list").write_text("deb [trusted=yes] copy:/no/such/place ./\n")
    error = scene.refused(app(1, depends="lib"), dependencies="repository")
    assert error.code == "unreachable"


def test_the_way_back_out_of_the_repository(scene: PackageScene, repository: Repository) -> None:
    """Got while it is staged; nothing of it is needed from the repository later."""
    old = app(1, scripts={"postinst": 'echo "$@" >> "$DPKG_ROOT/calls"'})
    scene.root.put(old)
    repository.offer(old)
    scene.activate(*scene.stage(app(2)))
    repository.offer()
    scene.revert()
    assert scene.root.packages() == {"app": "1.0"}
    assert scene.left_over() == []
