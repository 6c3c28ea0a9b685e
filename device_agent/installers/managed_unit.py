"""One unit of ours on this device: systemd's handle on it, its files and its log."""

import os
from collections.abc import Iterable
from pathlib import Path

from device_agent.adapters.files import fsync_dir
from device_agent.installers.crash import crash_point
from device_agent.installers.port import Device
from device_agent.installers.unit_files import OwnedFiles, UnitFiles
from device_agent.systemd.journal import UnitLog, last_lines
from device_agent.systemd.systemctl import Systemctl, UnitState, account_of
from device_agent.systemd.unit_record import UnitRecord
from fleet_protocol.errors import InstallError

START_MOST_S = 300.0
"""systemd itself gives up after the unit's TimeoutStartSec=, which some units set to infinity."""
_LAST_LINES = 3
_LOG_MOST = 4_096
_SEARCH = 0o011
"""Others may pass through a directory; they can not list it."""


class ManagedUnit:
    """Errors are InstallErrors: `start` where it does not start, `unsupported` where its user has no manager."""

    def __init__(self, device: Device, record: UnitRecord) -> None:
        self.name = record.unit
        self._device, self._record = device, record
        self._account = None if record.user is None else account_of(record.user)
        self.control = Systemctl(device.programs, self._account)
        self.files = UnitFiles(files_of(device, (record,)), record.unit, self._account)

    def ready(self) -> "ManagedUnit":
        """The same, once its manager runs: that of a user may come up after the agent."""
        if self._account is not None:
            self.control.bring_up()
        return self

    def state(self) -> UnitState:
        """How it is now."""
        return self.control.state(self.name)

    def last_words(self) -> str:
        """The end of what it has said, or of what systemd has said of it where it said nothing."""
        log = UnitLog(self.name, None if self._account is None else self._account.uid)
        found = (last_lines(self._device.programs, kind, _LAST_LINES, _LOG_MOST) for kind in (log.own, log.matches))
        return next((" | ".join(lines) for lines in found if lines), "")

    def stop(self) -> None:
        """Nothing of it runs; it must be kept from starting again before."""
        if not self.state().is_down:
            self.control.stop(self.name)
            crash_point("unit.after_stop")

    def start(self, *, anew: bool) -> None:
        """It runs, or has ended well if that is its way. One that has ended by itself is left to the check.

        `anew` says whether a failure of before means nothing.
        """
        state = self.state()
        if state.is_active or state.is_restarting:
            return
        if anew or state["ActiveState"] != "failed":
            self.control.forgive(self.name)
            ran = self.control.start(self.name, START_MOST_S)
            crash_point("unit.after_start")
            state = self.state()
            if ran.status == 0 and (state.is_active or state.is_restarting or state.has_done_its_work):
                return
        raise InstallError("start", f"{self.name} {_how(state)}; its last output: {self.last_words()}"[:300])

    def open_way(self, guard: Path) -> None:
        """Whose unit it is can reach its slot, and sees whether it is quiet; a user that it runs as, its slot.

        The agent's folders let others pass through then, where they are its own.
        """
        state, root = self.state(), self._device.state_dir
        ways = [root, root / "slots", root / "slots" / self._record.package]
        if self._account is not None:
            ways += [root / "services", guard.parent]
        elif state["User"] in ("", "root", "0") and state["DynamicUser"] != "yes":
            return
        for way in ways:
            mode = way.stat().st_mode
            if mode & _SEARCH != _SEARCH and way.stat().st_uid == os.geteuid():
                way.chmod(mode | _SEARCH)
                fsync_dir(way)


def files_of(device: Device, records: Iterable[UnitRecord]) -> OwnedFiles:
    """The system's files, those in the homes of these units' users with their rights."""
    users = {record.user for record in records if record.user is not None}
    return OwnedFiles(device.system_root, tuple(account_of(user) for user in sorted(users)))


def _how(state: UnitState) -> str:
    if state["ActiveState"] == "failed":
        return f"failed ({state['Result']}, status {state['ExecMainStatus']})"
    if state["ConditionResult"] == "no" and state["ActiveState"] == "inactive":
        return "was not started, because of its conditions"
    return f"is {state['ActiveState']}"
