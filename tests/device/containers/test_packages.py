"""Debian packages on a real Debian with systemd: services of packages, packages of the distribution, power cuts."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from device_agent.core.plan import PlannedRelease
from fleet_protocol.install import HealthCheck
from tests.fakes import nspawn
from tests.fakes.debian import NEEDS_APT, Deb, Repository, artifact, make_deb, release_of
from tests.fakes.install_shell import InstallShell, KilledError, deployment
from tests.fakes.package_device import PackageDevice
from tests.fakes.unit_device import BINDS
from tests.fakes.waiting import until

SICK = HealthCheck(kind="exec", target="sick", interval_s=1, timeout_s=20, failures=1)
UNIT = """[Service]
ExecStart=/usr/lib/demo/run
[Install]
WantedBy=multi-user.target
"""
START = "systemctl daemon-reload; systemctl enable --quiet demo.service; systemctl restart demo.service"
STOP = 'systemctl stop demo.service; test "$1" != remove || systemctl disable --quiet demo.service'
CHANGED = "cd / && find etc usr lib var/lib/systemd -newer /etc/fairlead-packages.toml -not -type d | sort"


@pytest.fixture(scope="module")
def tree() -> Path:
    reason = nspawn.missing()
    if reason is None and sys.version_info[:2] != (3, 11):
        reason = "the libraries of this Python are not those of Debian's 3.11"
    if reason is not None:
        pytest.skip(reason)
    return nspawn.build_tree()


@pytest.fixture
def device(tree: Path) -> Iterator[PackageDevice]:
    with nspawn.running_container(name="packages", binds=BINDS) as container:
        yield PackageDevice(container, "packages")


def demo(version: int, *, postinst: str = "", **options: Any) -> Deb:
    """A package with a service, as Debian's own are."""
    run = f"#!/bin/sh\necho {version} >/run/demo\nexec sleep 1000\n"
    scripts = {"postinst": f"{START}\n{postinst}", "prerm": STOP, "postrm": "systemctl daemon-reload"}
    files = {"usr/lib/demo/run": run, "lib/systemd/system/demo.service": UNIT}
    conffiles = {"etc/demo.conf": f"version = {version}\n"}
    options |= {"files": files, "conffiles": conffiles, "scripts": scripts, "executables": ("usr/lib/demo/run",)}
    return make_deb("demo", f"{version}.0", **options)


@dataclass
class Releases:
    """Releases of a device, one after the other."""

    device: PackageDevice
    shell: InstallShell = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.shell = InstallShell(self.device, self.device.run_op)  # type: ignore[arg-type]

    def make(self, *debs: Deb, sick: bool = False, **options: Any) -> PlannedRelease:
        self.count += 1
        tree = {"sick": b"#!/bin/sh\nexit 1\n"}
        self.device.cache(artifact(*debs, tree=tree))
        return release_of(*debs, version=self.count, tree=tree, check=SICK if sick else None, **options)

    def install(self, *debs: Deb, **options: Any) -> tuple[str | None, str | None]:
        """The outcome and its code. After a kill the power is lost, and comes back."""
        release = self.make(*debs, **options)
        self.shell.publish(deployment(f"d-{release.counter}", release))
        while True:
            try:
                self.shell.settle()
            except KilledError:
                if self.device.container.running:
                    self.device.container.power_cut()
                self.device.container.start()
                self.shell.start()
            else:
                return self.shell.outcomes[-1][1:]


@pytest.fixture
def releases(device: PackageDevice) -> Releases:
    return Releases(device)


def runs(device: PackageDevice) -> str:
    """What the service of the package says that it is."""
    assert device.sh("systemctl is-active demo.service") == "active\n"
    return device.sh("cat /run/demo").strip()


def test_a_package_with_a_service_goes_forward_and_back(releases: Releases, device: PackageDevice) -> None:
    assert releases.install(demo(1)) == ("committed", None)
    device.sh("echo 'the owner was here' >>/etc/demo.conf")
    owners = device.sh("cat /etc/demo.conf")
    assert runs(device) == "1"
    assert releases.install(demo(2), sick=True) == ("rolled_back", "unhealthy")
    assert runs(device) == "1"
    assert device.packages("demo") == {"demo": "ii  1.0"}
    assert releases.install(demo(3, postinst="echo no luck; exit 1")) == ("rolled_back", "start")
    assert runs(device) == "1"
    assert releases.install(demo(4)) == ("committed", None)
    assert runs(device) == "4"
    assert device.sh("cat /etc/demo.conf") == owners
    assert device.left_over == []
    device.sh("mkdir -p /etc/apt/sources.list.d && touch /etc/apt/sources.list")
    assert device.sh("dpkg --audit; apt-get check -qq 2>&1") == ""


def test_a_first_installation_that_is_not_well_leaves_nothing(releases: Releases, device: PackageDevice) -> None:
    before = device.sh(
        "cd / && find etc usr lib var/lib/systemd -newer /etc/fairlead-packages.toml -not -type d | sort"
    )
    assert releases.install(demo(1), sick=True) == ("rolled_back", "unhealthy")
    assert device.packages("demo") == {}
    assert device.container.run("systemctl is-active demo.service")[0] != 0
    assert device.sh(CHANGED) == before


def rebuilt(device: PackageDevice, name: str, version: str, *, postinst: str) -> Deb:
    """A package of the distribution as a later version of it, with the same files."""
    device.sh(
        f"rm -rf /root/new && mkdir -p /root/new/DEBIAN && cd / && dpkg --listfiles {name} | grep -v '^/\\.$' | "
        'while read -r file; do test ! -f "$file" || cp --parents -a "$file" /root/new/; done'
    )
    fields = device.sh(f"dpkg-query --show --showformat='${{Architecture}} ${{Pre-Depends}}' {name}")
    architecture, _, needs = fields.partition(" ")
    control = f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nPre-Depends: {needs}\n"
    control += "Maintainer: t <t@example.invalid>\nDescription: for a test\n"
    device.put(control.encode(), "/root/new/DEBIAN/control")
    device.put(f"#!/bin/sh\n{postinst}\n".encode(), "/root/new/DEBIAN/postinst")
    device.sh("chmod 755 /root/new /root/new/DEBIAN /root/new/DEBIAN/postinst")
    device.sh("dpkg-deb --root-owner-group -Zgzip --build /root/new /root/new.deb")
    return Deb(name, version, architecture, device.container.get("/root/new.deb"))


def state(device: PackageDevice, name: str) -> str:
    """All that dpkg knows of an installed package, and how those of its files are that the image has."""
    files = f"dpkg-query --listfiles {name} | sort | xargs -d '\\n' stat -c '%n %a %U %G %F' 2>/dev/null || true"
    return device.sh(f"dpkg --verify {name} | grep -v ^missing; dpkg-query --status {name}; {files}")


@pytest.mark.parametrize("name", ["hostname", "sed", "procps"])
def test_a_package_of_the_distribution_comes_back_out_of_its_installed_files(
    releases: Releases, device: PackageDevice, name: str
) -> None:
    """Its .deb is nowhere: the image was built without a cache, and the device has no repository."""
    before, installed = state(device, name), device.packages(name)
    bad = rebuilt(device, name, "99.0", postinst="echo no luck; exit 1")
    assert releases.install(bad) == ("rolled_back", "start")
    assert device.packages(name) == installed
    assert state(device, name) == before
    assert device.left_over == []
    assert releases.install(rebuilt(device, name, "99.0", postinst="exit 0")) == ("committed", None)
    assert device.packages(name) == {name: "ii  99.0"}


@pytest.mark.parametrize("script", ["preinst", "postinst", "prerm", "postrm"])
def test_power_lost_inside_a_script(releases: Releases, device: PackageDevice, script: str) -> None:
    """The device goes on with the update when it is back."""
    wait = "if test ! -e /var/lib/waited; then touch /var/lib/waited; sync; sleep 1000; fi"
    old, new = ({}, {script: wait}) if script in ("preinst", "postinst") else ({script: wait}, {})
    tool = [
        make_deb("tool", f"{number}.0", scripts=scripts, conffiles={"etc/tool.conf": str(number)})
        for number, scripts in ((1, old), (2, new))
    ]
    assert releases.install(tool[0]) == ("committed", None)

    def cut() -> None:
        until(lambda: device.container.file("/var/lib/waited").exists())
        device.cut = True
        device.container.power_cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    assert releases.install(tool[1]) == ("committed", None)
    cutter.join()
    assert device.killed == 1
    assert device.packages("tool") == {"tool": "ii  2.0"}
    assert device.sh("cat /usr/lib/tool/version /etc/tool.conf") == "2.02"
    assert device.sh("dpkg --audit") == ""
    assert device.left_over == []


@pytest.mark.parametrize("point", ["package.before_install", "package.after_install", "package.after_reinstall"])
def test_power_lost_between_two_steps(releases: Releases, device: PackageDevice, point: str) -> None:
    assert releases.install(demo(1)) == ("committed", None)
    back = point == "package.after_reinstall"
    device.kill = ("revert" if back else "activate"), point
    outcome = releases.install(demo(2), sick=back)
    assert outcome == (("rolled_back", "unhealthy") if back else ("committed", None))
    assert device.killed == 1
    assert runs(device) == ("1" if back else "2")
    assert device.left_over == []


@NEEDS_APT
def test_dependencies_out_of_a_repository(releases: Releases, device: PackageDevice, tmp_path: Path) -> None:
    """With apt as the distribution has it: its sandbox, its marks, its own lists untouched."""
    repository = Repository(tmp_path / "repository")
    repository.offer(make_deb("demo-lib", "1.0"), make_deb("demo-lib", "2.0"))
    subprocess.run(["chmod", "-R", "a+rX", str(repository.path)], check=True)
    device.container.put(repository.path, "/srv/repository")
    device.put(b"deb [trusted=yes] copy:/srv/repository ./\n", "/etc/apt/sources.list")
    lists = device.sh("find /var/lib/apt/lists -type f 2>/dev/null | sort || true")
    assert releases.install(demo(1, depends="demo-lib (>= 1)"), dependencies="repository") == ("committed", None)
    assert device.packages("demo", "demo-lib") == {"demo": "ii  1.0", "demo-lib": "ii  2.0"}
    assert device.sh("apt-mark showauto demo demo-lib") == "demo-lib\n"
    assert device.sh("find /var/lib/apt/lists -type f 2>/dev/null | sort || true") == lists
    assert device.sh("stat -c %a /var/lib/apt/extended_states") == "644\n"
    assert releases.install(demo(2)) == ("committed", None)
    assert device.packages("demo", "demo-lib") == {"demo": "ii  2.0"}
    assert device.left_over == []
