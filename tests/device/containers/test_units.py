"""Services under a real systemd: units of the system and of users, their owner's wishes, and power cuts."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from device_agent.core.plan import PlannedRelease
from fleet_protocol.install import HealthCheck, Unit
from tests.fakes import nspawn
from tests.fakes.artifacts import Artifact, packed, planned_release, planned_target
from tests.fakes.install_shell import InstallShell, KilledError, deployment
from tests.fakes.unit_device import BINDS, UnitDevice
from tests.fakes.waiting import until

RUN = b"#!/bin/sh\necho started $UNIT_VERSION\nexec sleep 1000\n"
CRASHES = b"#!/bin/sh\necho ERROR out of luck\nexit 7\n"
LATE = b"#!/bin/sh\n[ -e /run/crash ] || exec sleep 1000\n"
HANGS = b"#!/bin/sh\nsystemd-notify --ready\nexec sleep 1000\n"
SICK = b"#!/bin/sh\nexit 1\n"
TEXT = """[Unit]
Description=version {version}
[Service]
WorkingDirectory=@SLOT@
Environment=UNIT_VERSION={version}
ExecStart=@SLOT@/bin/run
{service}
[Install]
WantedBy={targets}
"""
VERSIONS = count(1)


@pytest.fixture(scope="module")
def container() -> Iterator[nspawn.Container]:
    reason = nspawn.missing()
    if reason is None and sys.version_info[:2] != (3, 11):
        reason = "the libraries of this Python are not those of Debian's 3.11"
    if reason is not None:
        pytest.skip(reason)
    with nspawn.running_container(name="units", binds=BINDS) as found:
        yield found


@pytest.fixture
def device(container: nspawn.Container, request: pytest.FixtureRequest) -> UnitDevice:
    name = f"t{next(VERSIONS)}"
    return UnitDevice(container, name, settings=getattr(request, "param", ""))


class Releases:
    """Versions of one unit of one device."""

    def __init__(self, device: UnitDevice, *, scope: Any = "system", enable: bool = True) -> None:
        self.device, self.unit = device, f"{device.name}.service"
        self._unit = Unit(name=self.unit, file="its.service", scope=scope, enable=enable)
        self.shell = InstallShell(device, device.run_op)  # type: ignore[arg-type]
        self.count = 0

    def make(
        self,
        program: bytes = RUN,
        *,
        service: str = "",
        targets: str = "multi-user.target",
        sick: bool = False,
        **install: Any,
    ) -> PlannedRelease:
        """The next version."""
        self.count += 1
        text = TEXT.format(version=self.count, service=service, targets=targets).encode()
        tree = {"bin/run": program, "bin/sick": SICK, "its.service": text, "version": b"%d" % self.count}
        artifact: Artifact = packed(tree, {"bin/run": 0o755, "bin/sick": 0o755})
        self.device.cache(artifact)
        check = HealthCheck(kind="exec", target="bin/sick", interval_s=1, timeout_s=20, failures=1) if sick else None
        given = {"unit": self._unit} | install
        target = replace(planned_target(artifact, kind="service", check=check, **given), path=f"app/{self.count}/any")
        release: PlannedRelease = planned_release(target, version=f"{self.count}.0", counter=self.count)
        return release

    def install(self, release: PlannedRelease) -> tuple[str | None, str | None]:
        """Publish it; the outcome and its code. A kill is a power cut, with a look at what boots before the agent."""
        self.device.cache()
        self.shell.publish(deployment(f"d-{release.counter}", release))
        while True:
            try:
                self.shell.settle()
            except KilledError:
                self.expect_one_release()
                self.device.container.power_cut()
                self.device.container.start()
                self.expect_one_release()
                self.shell.start()
            else:
                return self.shell.outcomes[-1][1:]

    def expect_one_release(self) -> None:
        """Whatever runs is of one release: unit file, drop-in and slot."""
        active, pid = self.device.show(self.unit, "ActiveState", "MainPID")
        if active != "active":
            return
        told = dict(pair.split("=", 1) for pair in self.device.sh(f"tr '\\0' '\\n' </proc/{pid}/environ").splitlines())
        version = self.device.sh(f"cat /proc/{pid}/cwd/version")
        assert (told["UNIT_VERSION"], told["FAIRLEAD_VERSION"]) == (version, f"{version}.0")

    def expect(self, version: int) -> None:
        """Exactly this version runs, enabled, and nothing is left over."""
        self.expect_one_release()
        shown = self.device.show(self.unit, "ActiveState", "UnitFileState", "NRestarts", "Description")
        assert shown == ("active", "enabled", "0", f"version {version}")
        left = self.device.sh(f"find {self.device.state}/backup {self.device.state}/services -type f")
        assert left.split() == [f"{self.device.state}/services/app/{name}" for name in ("lock", "unit.json")]


def etc(device: UnitDevice) -> str:
    """Everything that is configured, with its content or text."""
    return device.sh(
        "cd /etc/systemd/system && find . -type l -printf '%p -> %l\\n' | sort; cat $(find . -type f | sort)"
    )


def test_an_update_a_rollback_and_what_the_owner_has_beside_it(device: UnitDevice) -> None:
    releases = Releases(device)
    assert releases.install(releases.make()) == ("committed", None)
    device.write(f"/etc/systemd/system/{releases.unit}.d/90-own.conf", "[Service]\nEnvironment=OWN=1\n")
    device.write(f"/run/systemd/system/{releases.unit}.d/91-own.conf", "[Service]\nEnvironment=RUNTIME=1\n")
    device.sh(f"systemctl add-wants timers.target {releases.unit}")
    before = etc(device)
    assert releases.install(releases.make(sick=True, targets="basic.target")) == ("rolled_back", "unhealthy")
    assert etc(device) == before
    releases.expect(1)
    assert releases.install(releases.make(targets="basic.target")) == ("committed", None)
    releases.expect(3)
    links = device.sh(f"cd /etc/systemd/system && find . -name {releases.unit} -type l | sort").split()
    assert links == [f"./{target}.target.wants/{releases.unit}" for target in ("basic", "timers")]
    (pid,) = device.show(releases.unit, "MainPID")
    told = device.sh(f"tr '\\0' '\\n' </proc/{pid}/environ")
    assert "OWN=1" in told and "RUNTIME=1" in told


def test_a_disabled_unit_stays_disabled(device: UnitDevice) -> None:
    releases = Releases(device)
    assert releases.install(releases.make())[0] == "committed"
    device.sh(f"systemctl disable {releases.unit}")
    assert releases.install(releases.make(targets="basic.target")) == ("committed", None)
    assert device.show(releases.unit, "ActiveState", "UnitFileState") == ("active", "disabled")
    assert releases.install(releases.make(sick=True))[0] == "rolled_back"
    assert device.show(releases.unit, "ActiveState", "UnitFileState") == ("active", "disabled")


def test_a_masked_unit_is_refused(device: UnitDevice) -> None:
    releases = Releases(device)
    device.sh(f"systemctl mask {releases.unit}")
    before = etc(device)
    assert releases.install(releases.make()) == ("failed", "masked")
    assert etc(device) == before
    device.sh(f"systemctl unmask {releases.unit}")
    assert releases.install(releases.make()) == ("committed", None)
    masked = f"ln -sf /dev/null /etc/systemd/system/{releases.unit} && systemctl daemon-reload"
    (pid,) = device.show(releases.unit, "MainPID")
    device.sh(f"cp /etc/systemd/system/{releases.unit} /root/kept && {masked}")
    assert releases.install(releases.make()) == ("failed", "masked")
    assert device.show(releases.unit, "MainPID", "LoadState") == (pid, "masked")


def test_a_crash_in_probation(device: UnitDevice) -> None:
    releases = Releases(device)
    assert releases.install(releases.make())[0] == "committed"
    assert releases.install(releases.make(CRASHES, service="Restart=always\nRestartSec=0.1")) == (
        "rolled_back",
        "crashed",
    )
    why = releases.shell.record.failures["d-2"].detail
    assert "ERROR out of luck" in why
    releases.expect(1)


def test_a_start_that_fails(device: UnitDevice) -> None:
    releases = Releases(device)
    assert releases.install(releases.make())[0] == "committed"
    stays = b"#!/bin/sh\necho ERROR not ready\nexec sleep 1000\n"
    never = releases.make(stays, service="Type=notify\nTimeoutStartSec=1")
    assert releases.install(never) == ("rolled_back", "start")
    assert "ERROR not ready" in releases.shell.record.failures["d-2"].detail
    releases.expect(1)
    unmet = releases.make(service="Type=exec")
    device.write(f"/etc/systemd/system/{releases.unit}.d/90-own.conf", "[Unit]\nConditionPathExists=/not/there\n")
    assert releases.install(unmet)[1] == "start"


def test_a_watchdog_that_barks(device: UnitDevice) -> None:
    releases = Releases(device)
    service = "Type=notify\nNotifyAccess=all\nWatchdogSec=1\nRestart=always\nRestartSec=0.1"
    release = releases.make(HANGS, service=service)
    device.run("stage", release=release, slot="a", active=None)
    tree = (device.run("stage", release=release, slot="a", active=None) or {})["tree"]
    device.run("activate", release=release, slot="a", previous=None, tree=tree)
    until(lambda: device.show(releases.unit, "NRestarts") != ("0",))
    verdict = device.run("check", release=release, slot="a") or {}
    assert verdict["code"] == "crashed"
    device.run("revert", package="app", slot="a", previous=None, release=None, tree=None)
    assert device.show(releases.unit, "LoadState") == ("not-found",)


def test_the_systems_own_unit_comes_back(device: UnitDevice) -> None:
    releases = Releases(device)
    own = "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n"
    device.write(f"/lib/systemd/system/{releases.unit}", own)
    device.sh(f"systemctl enable --now {releases.unit}")
    before = etc(device)
    assert releases.install(releases.make(sick=True)) == ("rolled_back", "unhealthy")
    assert etc(device) == before
    assert device.show(releases.unit, "ActiveState", "FragmentPath") == (
        "active",
        f"/lib/systemd/system/{releases.unit}",
    )


def test_one_shots_are_well_once_they_have_ended(device: UnitDevice) -> None:
    releases = Releases(device)
    assert releases.install(releases.make(b"#!/bin/sh\ntrue\n", service="Type=oneshot")) == ("committed", None)
    assert releases.install(releases.make(SICK, service="Type=oneshot")) == ("rolled_back", "start")


def test_a_user_that_is_not_root_reaches_its_program(device: UnitDevice) -> None:
    releases = Releases(device)
    assert releases.install(releases.make(service="Type=exec\nDynamicUser=yes")) == ("committed", None)
    assert releases.install(releases.make(service="Type=exec\nUser=nobody")) == ("committed", None)


@pytest.mark.parametrize("device", ['unit_user = "bob"'], indirect=True)
def test_a_unit_of_a_user(device: UnitDevice) -> None:
    device.sh("id bob 2>/dev/null || useradd --create-home bob && loginctl enable-linger bob")
    releases = Releases(device, scope="user")
    ask = "setpriv --reuid=bob --regid=bob --clear-groups env HOME=/home/bob XDG_RUNTIME_DIR=/run/user/$(id -u bob) "
    state = f"{ask} systemctl --user show --property=ActiveState,UnitFileState,Description --value {releases.unit}"
    for sick, version in ((False, 1), (True, 1), (False, 3)):
        releases.install(releases.make(sick=sick, targets="default.target"))
        assert set(device.sh(state).split("\n")) == {f"version {version}", "active", "enabled", ""}
    owners = device.sh("find /home/bob/.config -printf '%u\\n' | sort -u")
    assert owners.split() == ["bob"]
    device.container.power_cut()
    device.container.start()
    until(lambda: "active" in device.container.run(state)[1].split("\n"))
    (view,) = device.python("print(json.dumps([[v.name, v.running, v.version] for v in services.list()]))")
    assert view == ["app", True, "3.0"]
    lines = device.python("print(json.dumps(services.logs('app', 5)))")
    assert "started 3" in lines
    device.kill = ("activate", "unit.after_stop")
    device.sh(f"chmod 700 {device.state} {device.state}/services")
    quiet: list[bool] = []
    releases.expect_one_release = lambda: quiet.append("inactive" in device.container.run(state)[1])  # type: ignore[method-assign]
    assert releases.install(releases.make(targets="default.target")) == ("committed", None)
    assert quiet == [True, True], "it is stopped, and does not come up at boot"
    assert set(device.sh(state).split("\n")) == {"version 4", "active", "enabled", ""}


ODD = ["a b", "q\"u'o", "$HOME $$ $(x)", "100%", ";", "back\\slash", "tab\tline\nend", "ünï", "@x@", ""]


def test_a_program_without_a_unit_gets_one(device: UnitDevice) -> None:
    releases = Releases(device)
    show = b'#!/bin/sh\nfor a in "$@"; do printf "%s\\0" "$a"; done >"$STATE_DIRECTORY/args"\nexec sleep 1000\n'
    release = releases.make(show, unit=None, run=["bin/run", *ODD])
    assert releases.install(release) == ("committed", None)
    assert device.show("app.service", "ActiveState", "Type", "Restart") == ("active", "exec", "always")
    args = device.sh(f"base64 -w0 {device.state}/services/app/data/args")
    import base64

    assert base64.b64decode(args).decode().split("\0")[:-1] == ODD
    device.run("revert", package="app", slot="a", previous=None, release=None, tree=None)
    assert device.show("app.service", "LoadState") == ("not-found",)


def test_what_the_resident_sees(device: UnitDevice) -> None:
    releases = Releases(device)
    noisy = b"#!/bin/sh\necho one\nwhile :; do echo ERROR two; echo '<3>three'; sleep 0.2; done\n"
    assert releases.install(releases.make(noisy))[0] == "committed"
    program = (
        "import time, dataclasses\nbefore = services.log_errors()\nfirst = services.log_errors()\ntime.sleep(2)\n"
        "print(json.dumps([[dataclasses.asdict(v) for v in services.list()], services.logs('app', 3), before,"
        " services.log_errors()]))"
    )
    (view,), lines, before, errors = device.python(program)
    assert (view["name"], view["wanted"], view["running"], view["restarts"]) == ("app", True, True, 0)
    assert view["pid"] == int(device.show(releases.unit, "MainPID")[0])
    assert len(lines) == 3 and {"ERROR two", "three"} <= set(lines)
    assert before == {} and errors["app"] > 100
    device.sh(f"systemctl disable --now {releases.unit}")
    ((wanted, running),) = device.python("print(json.dumps([[v.wanted, v.running] for v in services.list()]))")
    assert (wanted, running) == (False, False)


FORWARD = ["after_guard", "after_stop", "after_hold", "after_file", "after_reload", "after_enable", "after_release"]
BACK = ["after_guard", "after_stop", "after_restore", "after_reread", "after_let_go", "after_start"]


@pytest.mark.parametrize("point", [*FORWARD, "after_start"])
def test_power_that_is_cut_in_an_update(device: UnitDevice, point: str) -> None:
    releases = Releases(device)
    assert releases.install(releases.make())[0] == "committed"
    device.kill = ("activate", f"unit.{point}")
    assert releases.install(releases.make(targets="multi-user.target basic.target")) == ("committed", None)
    assert device.killed == 1
    releases.expect(2)


@pytest.mark.parametrize("point", BACK)
def test_power_that_is_cut_on_the_way_back(device: UnitDevice, point: str) -> None:
    releases = Releases(device)
    assert releases.install(releases.make())[0] == "committed"
    before = etc(device)
    device.kill = ("revert", f"unit.{point}")
    assert releases.install(releases.make(sick=True)) == ("rolled_back", "unhealthy")
    assert device.killed == 1
    releases.expect(1)
    assert etc(device) == before
