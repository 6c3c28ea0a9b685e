"""Services on an emulated arm64 device with a disk of its own: good, bad, and with the plug pulled on the way."""

import time
from dataclasses import dataclass

import pytest

from tests.fakes.device_site import exec_check
from tests.fakes.vm_site import NODE, VmSite
from tests.fakes.waiting import until

pytestmark = pytest.mark.device
STATE = "/var/lib/fairlead-agent"
GOOD = {"run": "#!/bin/sh\nexec sleep infinity\n", "check": "#!/bin/sh\nexit 0\n"}


@dataclass
class Idler:
    """Releases of a package that does nothing, one after the other."""

    vm: VmSite
    counter: int = 0
    running: int = 0
    """The release that is known to run."""

    def publish(self, **replaced: str) -> str:
        """The next release goes out; `replaced` are its files. Returns the job."""
        self.counter += 1
        version = f"1.{self.counter}.0"
        self.vm.site.add("idler", version, self.counter, tree=GOOD | replaced, exec=("run",), check=exec_check())
        return self.vm.site.publish("idler", version, probation_s=5)

    def commits(self, job: str) -> None:
        """The newest release is committed and runs."""
        assert self.vm.site.attempted(NODE, job) == ("committed", None)
        self.running = self.counter
        self.settled()

    def settled(self) -> None:
        """The release that ought to runs, one process of it, and nothing half done is left."""
        site, device = self.vm.site, self.vm.device
        until(lambda: site.installed(NODE, "idler") == f"1.{self.running}.0", deadline_s=300, pause_s=1)
        until(lambda: device.run("pgrep --count --full '^sleep infinity'")[1].strip() == "1", deadline_s=300, pause_s=1)
        assert device.run(f"find {STATE}/backup {STATE}/cache -type f")[1] == ""
        assert "ok  trust" in device.run("/opt/fairlead/venv/bin/fairlead-agent doctor")[1]


@pytest.fixture(scope="module")
def idler(vm: VmSite) -> Idler:
    """A release is committed before the first test."""
    idler = Idler(vm)
    idler.commits(idler.publish())
    return idler


def test_the_device_is_what_it_is_meant_to_be(vm: VmSite) -> None:
    assert vm.device.do("uname -m").strip() == "aarch64"
    assert vm.device.do("systemctl is-active fairlead-agent").strip() == "active"
    assert vm.device.do("systemctl --failed --no-legend --plain") == ""


def test_a_service_that_crashes_on_probation_is_taken_back(vm: VmSite, idler: Idler) -> None:
    job = idler.publish(run="#!/bin/sh\nsleep 2\nexit 3\n")
    assert vm.site.attempted(NODE, job) == ("rolled_back", "crashed")
    idler.settled()


def test_a_service_whose_check_fails_is_taken_back(vm: VmSite, idler: Idler) -> None:
    job = idler.publish(check="#!/bin/sh\nexit 1\n")
    assert vm.site.attempted(NODE, job) == ("rolled_back", "unhealthy")
    idler.settled()


def test_a_device_that_was_cut_off_takes_what_it_missed(vm: VmSite, idler: Idler) -> None:
    vm.device.cut()
    job = idler.publish()
    vm.device.mend()
    idler.commits(job)


@pytest.mark.parametrize("stage", ["downloading", "installing", "switching", "probation"])
def test_the_plug_is_pulled_in_mid_install(vm: VmSite, idler: Idler, stage: str) -> None:
    job = idler.publish()
    vm.site.reached(NODE, job, stage)
    vm.power_cut_and_back()
    idler.commits(job)


@pytest.mark.parametrize("clock", ["1970-01-01T00:00:00", f"{time.gmtime().tm_year + 10}-06-01T00:00:00"])
def test_a_clock_that_is_wrong_stops_no_service_and_no_recovery(vm: VmSite, idler: Idler, clock: str) -> None:
    vm.power_cut_and_back(clock=clock)
    assert abs(int(vm.device.do("date +%s")) - time.time()) > 30 * 86_400
    until(lambda: vm.device.run("pgrep --full '^sleep infinity'")[0] == 0, deadline_s=300, pause_s=1)
    assert vm.device.do("systemctl is-active fairlead-agent").strip() == "active"
    vm.device.do(f"date --set=@{int(time.time())}")
    vm.site.online(NODE)
    idler.commits(idler.publish())
