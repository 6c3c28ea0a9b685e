"""Debian packages on an emulated arm64 device: good, bad, and with the plug pulled while dpkg is at work."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.vm_site import NODE, VmSite
from tests.fakes.waiting import until

pytestmark = pytest.mark.device
BACKUP = "/var/lib/fairlead-agent/backup"
CONTROL = """Package: demo-tool
Version: {version}
Architecture: all
Maintainer: Nobody <nobody@example.invalid>
Description: a package for tests
"""


def _deb(folder: Path, version: str, postinst: str) -> bytes:
    """A package with half a megabyte of content, and this script."""
    tree = folder / version
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(CONTROL.format(version=version))
    (tree / "DEBIAN/postinst").write_text(f"#!/bin/sh\n{postinst}\n")
    (tree / "DEBIAN/postinst").chmod(0o755)
    (tree / "usr/lib/demo-tool").mkdir(parents=True)
    (tree / "usr/lib/demo-tool/version").write_text(version)
    (tree / "usr/lib/demo-tool/content").write_bytes(version.encode() * 100_000)
    out = folder / f"{version}.deb"
    argv = ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(out)]
    subprocess.run(argv, check=True, capture_output=True)
    return out.read_bytes()


@dataclass
class Tool:
    """Releases of one package, one after the other."""

    vm: VmSite
    folder: Path
    counter: int = 0
    running: str = ""

    def publish(self, *, postinst: str = "exit 0") -> str:
        """The next version goes out; returns the job."""
        self.counter += 1
        deb = _deb(self.folder, self.version, postinst)
        self.vm.site.add("tool", self.version, self.counter, tree={"demo-tool.deb": deb}, kind="package")
        return self.vm.site.publish("tool", self.version, kind="package", probation_s=5)

    @property
    def version(self) -> str:
        return f"{self.counter}.0"

    def commits(self, job: str) -> None:
        """The newest version is committed, and dpkg agrees."""
        assert self.vm.site.attempted(NODE, job) == ("committed", None)
        self.running = self.version
        self.settled()

    def settled(self) -> None:
        """dpkg has the version that ought to be there, its files are that version's, and nothing half done is left."""
        device, wanted = self.vm.device, f"install ok installed {self.running}"
        status = "dpkg-query --show --showformat='${Status} ${Version}' demo-tool"
        until(lambda: device.run(status)[1] == wanted, deadline_s=900, pause_s=1)
        assert device.do("cat /usr/lib/demo-tool/version") == self.running
        assert device.do("dpkg --audit; dpkg --verify demo-tool") == ""
        assert device.run(f"find {BACKUP} -type f")[1] == ""


@pytest.fixture(scope="module")
def tool(vm: VmSite, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """The first version is committed before the first test."""
    tool = Tool(vm, tmp_path_factory.mktemp("debs"))
    tool.commits(tool.publish())
    return tool


def test_a_better_package_takes_the_place_of_the_old_one(vm: VmSite, tool: Tool) -> None:
    tool.commits(tool.publish())


def test_a_package_whose_script_fails_is_taken_back(vm: VmSite, tool: Tool) -> None:
    outcome, code = vm.site.attempted(NODE, tool.publish(postinst="exit 1"))
    assert outcome == "rolled_back"
    assert code == "start"
    tool.settled()


@pytest.mark.parametrize("stage", ["installing", "switching"])
def test_the_plug_is_pulled_while_dpkg_is_at_work(vm: VmSite, tool: Tool, stage: str) -> None:
    job = tool.publish(postinst="sleep 2")
    vm.site.reached(NODE, job, stage)
    vm.power_cut_and_back()
    tool.commits(job)
