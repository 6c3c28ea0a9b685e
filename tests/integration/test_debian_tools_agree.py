"""The device's own judgement on Debian versions and dependencies is that of dpkg and apt."""

import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from device_agent.installers.debian_control import Control
from device_agent.installers.debian_version import compare
from device_agent.installers.debian_world import DebianWorld, problems, replaced
from tests.fakes.debian import NEEDS_APT, NEEDS_DPKG, DebianRoot, make_deb

pytestmark = [NEEDS_DPKG, NEEDS_APT]
NAMES, VERSIONS = ["aa", "bb", "cc", "dd"], ["1.0", "1.0~rc1", "1.1-1", "1:0.5", "2"]
SEEDS = 24
FIELDS = {"pre_depends": "Pre-Depends", "multi_arch": "Multi-Arch"}


@pytest.mark.parametrize("seed", range(4))
def test_versions(seed: int) -> None:
    luck = random.Random(seed)
    for _ in range(25):
        one, other = (luck.choice("0123") + "".join(luck.choices("01a~.+-", k=luck.randrange(6))) for _ in range(2))
        order = compare(one, other)
        for operator, holds in (("lt", order < 0), ("eq", order == 0)):
            done = subprocess.run(
                ["dpkg", "--compare-versions", one, operator, other], capture_output=True, check=False
            )
            if b"invalid" not in done.stderr and b"bad syntax" not in done.stderr:
                assert (done.returncode == 0) == holds, (one, operator, other)


def relation(luck: random.Random) -> str:
    name = luck.choice([*NAMES, "virt", "gone"])
    operator = luck.choice(["", "", "<<", "<=", "=", ">=", ">>"])
    return f"{name} ({operator} {luck.choice(VERSIONS)})" if operator else name


def invented(luck: random.Random, name: str) -> tuple[str, str, dict[str, str]]:
    fields: dict[str, str] = {}
    if luck.random() < 0.6:
        groups = (" | ".join(relation(luck) for _ in range(luck.choice([1, 1, 2]))) for _ in range(luck.choice([1, 2])))
        fields["depends"] = ", ".join(groups)
    for field, chance in (("conflicts", 0.25), ("breaks", 0.25)):
        if luck.random() < chance:
            fields[field] = relation(luck)
    if luck.random() < 0.3:
        fields["provides"] = luck.choice(["virt", "virt (= 1.0)", "virt (= 2)", "cc (= 1.0)"])
    if luck.random() < 0.3:
        fields["multi_arch"] = luck.choice(["foreign", "allowed"])
    return name, luck.choice(VERSIONS), fields


def control(name: str, version: str, fields: dict[str, str]) -> Control:
    return Control(name=name, version=version, architecture="all", **fields)


def healthy(seed: int) -> tuple[list[Any], list[Any]]:
    """What is installed, without any trouble, and what shall come."""
    luck = random.Random(seed)
    while True:
        there = [invented(luck, name) for name in luck.sample(NAMES, luck.choice([1, 2, 3]))]
        coming = [invented(luck, name) for name in luck.sample(NAMES, luck.choice([1, 2]))]
        if not list(problems(DebianWorld([], "amd64"), DebianWorld([control(*one) for one in there], "amd64"))):
            return there, coming


def paragraph(name: str, version: str, fields: dict[str, str]) -> str:
    more = "".join(f"{FIELDS.get(key, key.title())}: {value}\n" for key, value in fields.items())
    head = f"Package: {name}\nStatus: install ok installed\nMaintainer: t <t@example.invalid>\n"
    return f"{head}Architecture: all\nVersion: {version}\n{more}Description: t\n\n"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_dependencies(tmp_path: Path, seed: int) -> None:
    """Whatever can be installed by one can be installed by the other."""
    there, coming = healthy(seed)
    before = [control(*one) for one in there]
    after = replaced(before, [control(*one) for one in coming])
    found = list(problems(DebianWorld(before, "amd64"), DebianWorld(after, "amd64")))
    root = DebianRoot(tmp_path / "root").path
    (root / "var/lib/dpkg/status").write_text("".join(paragraph(*one) for one in there))
    debs = []
    for name, version, fields in coming:
        debs.append(tmp_path / f"{name}.deb")
        debs[-1].write_bytes(make_deb(name, version, **fields).data)
    system = ["-o", f"Dir={root}", "-o", f"Dir::State::status={root}/var/lib/dpkg/status"]
    how = ["--simulate", "--yes", "--allow-downgrades", "--no-install-recommends", "--reinstall", "--no-remove"]
    command = ["apt-get", *system, *how, "install", *map(str, debs)]
    apt = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (apt.returncode == 0) == (not found), (there, coming, found, apt.stdout[-800:])
