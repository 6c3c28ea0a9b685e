"""Kernel drivers on an emulated arm64 device: two good ones, one that does not load, one that takes it down."""

from dataclasses import dataclass

import pytest

from tests.fakes.kernel_modules import tree_of
from tests.fakes.vm_site import NODE, VmSite
from tests.fakes.waiting import until

pytestmark = pytest.mark.device
VERSION = "/sys/module/fairlead_demo/version"
BACKUP = "/var/lib/fairlead-agent/backup"
VERSIONS = {"one": "1.0", "two": "2.0", "fails": "3.0", "panics": "4.0"}


@dataclass
class Driver:
    """Releases of one driver, one after the other."""

    vm: VmSite
    counter: int = 0
    running: str = ""

    def publish(self, build: str) -> str:
        """The build goes out as the next release; returns the job."""
        self.counter += 1
        version = f"{self.counter}.0.0"
        self.vm.site.add("demo", version, self.counter, tree=tree_of(build), kind="driver")
        return self.vm.site.publish("demo", version, kind="driver", probation_s=5)

    def commits(self, build: str, job: str) -> None:
        """The release is committed, and its build is the one that is loaded."""
        assert self.vm.site.attempted(NODE, job) == ("committed", None)
        self.running = build
        self.settled()

    def settled(self) -> None:
        """The build that ought to is loaded, and nothing half done is left."""
        device, wanted = self.vm.device, VERSIONS[self.running]
        until(lambda: device.run(f"cat {VERSION}")[1].strip() == wanted, deadline_s=900, pause_s=1)
        assert device.do("ls /lib/modules/$(uname -r)/updates").split() == ["fairlead_demo.ko"]
        assert device.do("modinfo --field version fairlead_demo").strip() == wanted
        assert device.run(f"find {BACKUP} -type f")[1] == ""


@pytest.fixture(scope="module")
def driver(vm: VmSite) -> Driver:
    """The first build is committed before the first test."""
    driver = Driver(vm)
    driver.commits("one", driver.publish("one"))
    return driver


def test_a_better_driver_takes_the_place_of_the_old_one_and_is_loaded_at_boot(vm: VmSite, driver: Driver) -> None:
    driver.commits("two", driver.publish("two"))
    vm.power_cut_and_back()
    driver.settled()


def test_a_driver_that_does_not_load_is_taken_back(vm: VmSite, driver: Driver) -> None:
    assert vm.site.attempted(NODE, driver.publish("fails")) == ("rolled_back", "start")
    driver.settled()


def test_a_driver_that_takes_the_kernel_down_does_so_twice_and_no_boot_loads_it(vm: VmSite, driver: Driver) -> None:
    """The first time may have been the power."""
    job = driver.publish("panics")
    vm.device.gone()
    vm.device.switch_on()
    vm.device.gone()
    vm.device.start()
    assert vm.site.attempted(NODE, job) == ("rolled_back", "crashed")
    driver.settled()


@pytest.mark.parametrize(("stage", "build"), [("installing", "one"), ("switching", "two")])
def test_the_plug_is_pulled_in_mid_update(vm: VmSite, driver: Driver, stage: str, build: str) -> None:
    job = driver.publish(build)
    vm.site.reached(NODE, job, stage)
    vm.power_cut_and_back()
    driver.commits(build, job)
