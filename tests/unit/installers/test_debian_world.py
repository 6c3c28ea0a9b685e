"""Whether packages go together, in which order they come, and what their fields say (Debian Policy, chapter 7)."""

import pytest

from device_agent.installers.debian_control import Control, Relation, relations
from device_agent.installers.debian_world import DebianWorld, batches, problems, replaced


def package(name: str, version: str = "1", architecture: str = "arm64", **fields: str) -> Control:
    return Control(name=name, version=version, architecture=architecture, **fields)


def trouble(there: list[Control], coming: list[Control]) -> list[str]:
    before = DebianWorld(there, "arm64")
    return list(problems(before, DebianWorld(replaced(there, coming), "arm64")))


def test_a_field_is_read_as_it_is_written() -> None:
    assert relations("") == ()
    assert relations("one, two (>= 1.0) | three:any (<< 2),\n four:arm64(=1:2-3)") == (
        (Relation("one"),),
        (Relation("two", "", ">=", "1.0"), Relation("three", "any", "<<", "2")),
        (Relation("four", "arm64", "=", "1:2-3"),),
    )
    assert relations("old (< 1), new (> 2)") == ((Relation("old", "", "<=", "1"),), (Relation("new", "", ">=", "2"),))


def test_what_is_no_relation_is_met_by_nobody() -> None:
    assert trouble([package("and")], [package("app", depends="and then")]) == ["app 1 needs and then"]


MET = [
    ("lib", [package("lib")]),
    ("lib (>= 2)", [package("lib", "2")]),
    ("lib (= 1:1.0-1)", [package("lib", "1:1.0-1")]),
    ("none | lib", [package("lib")]),
    ("lib", [package("real", provides="lib")]),
    ("lib (>= 1)", [package("real", provides="lib (= 1.5)")]),
    ("lib", [package("lib", architecture="all")]),
    ("lib", [package("lib", architecture="armhf", multi_arch="foreign")]),
    ("lib:any", [package("lib", architecture="armhf", multi_arch="allowed")]),
    ("lib:armhf", [package("lib", architecture="armhf")]),
]
NOT_MET = [
    ("lib", []),
    ("lib (>= 2)", [package("lib", "1.9")]),
    ("lib (<< 2)", [package("lib", "2")]),
    ("lib (>= 1)", [package("real", "2", provides="lib")]),
    ("lib", [package("lib", architecture="armhf")]),
    ("lib:any", [package("lib")]),
    ("lib:armhf", [package("lib", architecture="all")]),
]


@pytest.mark.parametrize(("wanted", "there"), MET)
@pytest.mark.parametrize("field", ["depends", "pre_depends"])
def test_dependencies_that_are_met(wanted: str, there: list[Control], field: str) -> None:
    app = package("app", **{field: wanted})
    assert trouble(there, [app]) == trouble([], [*there, app]) == []


@pytest.mark.parametrize(("wanted", "there"), NOT_MET)
def test_dependencies_that_are_not(wanted: str, there: list[Control]) -> None:
    assert trouble(there, [package("app", depends=wanted)]) == [f"app 1 needs {wanted}"]


def test_what_stays_needs_what_it_had() -> None:
    there = [package("lib"), package("user", depends="lib (= 1)"), package("broken", depends="gone, lib (<< 1)")]
    assert trouble(there, [package("lib", "2")]) == ["user 1, which stays, needs lib (= 1)"]
    assert trouble(there, [package("other")]) == []


ENEMIES = [
    ([package("other")], package("app", conflicts="other")),
    ([package("other")], package("app", breaks="other (<= 1)")),
    ([package("other", conflicts="app")], package("app")),
    ([package("other", breaks="app (>= 2)")], package("app", "2")),
    ([package("other", provides="mail")], package("app", conflicts="mail")),
    ([package("other", architecture="armhf")], package("app", conflicts="other")),
]
FRIENDS = [
    ([package("other", "2")], package("app", breaks="other (<= 1)")),
    ([], package("app", provides="mail", conflicts="mail")),
    ([package("app")], package("app", "2", breaks="app (<< 2)")),
    ([package("other", architecture="armhf")], package("app", conflicts="other:arm64")),
    ([package("one", conflicts="two"), package("two")], package("app")),
]


@pytest.mark.parametrize(("there", "coming"), ENEMIES)
def test_conflicts_are_found_from_both_sides(there: list[Control], coming: Control) -> None:
    assert any("does not go with" in line for line in trouble(there, [coming]))


@pytest.mark.parametrize(("there", "coming"), FRIENDS)
def test_what_is_no_conflict(there: list[Control], coming: Control) -> None:
    assert trouble(there, [coming]) == []


def test_one_package_for_two_architectures_has_one_version() -> None:
    here, there = (package("lib", architecture=name, multi_arch="same") for name in ("arm64", "armhf"))
    newer = [package("lib", "2", architecture=name, multi_arch="same") for name in ("arm64", "armhf")]
    assert trouble([here, there], newer) == []
    assert trouble([here, there], newer[:1]) == ["lib 2 does not go with lib 1 for armhf"]
    assert trouble([package("lib", architecture="armhf")], [package("lib", "2")]) == []


def test_pre_dependencies_come_in_an_earlier_batch() -> None:
    app = package("app", pre_depends="lib", depends="data")
    lib, data, base = package("lib", depends="base"), package("data", depends="app"), package("base")
    assert [sorted(map(str, batch)) for batch in batches([app, lib, data, base])] == [
        ["base 1", "lib 1"],
        ["app 1", "data 1"],
    ]
    assert [
        len(batch) for batch in batches([package("one", pre_depends="two"), package("two", pre_depends="one")])
    ] == [2]
    assert batches([]) == []
