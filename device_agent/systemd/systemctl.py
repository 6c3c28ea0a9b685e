"""The service managers of this device: the system's, and a user's own (systemctl(1))."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.installers.programs import Programs, Ran
from fleet_protocol.errors import InstallError

_ASK_S: Final = 20.0
_ACT_S: Final = 120.0
STOP_MOST_S: Final = 700.0
"""A release may take 600 s to stop; systemd kills what takes longer than the unit's own TimeoutStopSec=."""
_PROPERTIES: Final = (
    "Id",
    "LoadState",
    "UnitFileState",
    "ActiveState",
    "SubState",
    "Result",
    "Type",
    "MainPID",
    "NRestarts",
    "InvocationID",
    "ExecMainStatus",
    "FragmentPath",
    "User",
    "DynamicUser",
    "ConditionResult",
    "ActiveEnterTimestampMonotonic",
)


@dataclass(frozen=True, slots=True)
class Account:
    """Whose service manager it is."""

    name: str
    uid: int
    gid: int
    home: str


def account_of(name: str) -> Account:
    """The account of this name. Raises InstallError `unsupported` where the device has none."""
    import pwd  # noqa: PLC0415 - only devices with units of users pay

    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise InstallError("unsupported", f"this device has no user {name!a}") from None
    return Account(name, found.pw_uid, found.pw_gid, found.pw_dir)


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of one unit (org.freedesktop.systemd1(5))."""

    properties: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.properties.get(name, "")

    def number(self, name: str) -> int:
        """A property that is a number; 0 where systemd does not say."""
        text = self[name]
        return int(text) if text.isdecimal() else 0

    @property
    def exists(self) -> bool:
        """Whether there is such a unit."""
        return self["LoadState"] not in ("", "not-found")

    @property
    def is_masked(self) -> bool:
        """Whether its owner wants it never to start."""
        return self["LoadState"] == "masked" or self["UnitFileState"].startswith("masked")

    @property
    def is_enabled(self) -> bool:
        """Whether something starts it at boot."""
        return self["UnitFileState"] in ("enabled", "enabled-runtime")

    @property
    def is_active(self) -> bool:
        """Whether it runs."""
        return self["ActiveState"] in ("active", "reloading")

    @property
    def is_down(self) -> bool:
        """Whether nothing of it runs, nor will by itself."""
        return self["ActiveState"] in ("inactive", "failed")

    @property
    def restarts(self) -> int:
        """How often it ended by itself and was started again since somebody last started it."""
        return self.number("NRestarts")

    @property
    def is_restarting(self) -> bool:
        """Whether it has ended by itself and waits for its next start."""
        return self["SubState"].startswith("auto-restart")

    @property
    def is_coming_up(self) -> bool:
        """Whether its start is under way."""
        return self["ActiveState"] == "activating" and not self.is_restarting

    @property
    def has_done_its_work(self) -> bool:
        """Whether it is one that ends by itself (Type=oneshot), and ended well."""
        return self["Type"] == "oneshot" and self["ActiveState"] == "inactive" and self["Result"] == "success"


class Systemctl:
    """One service manager. Errors are InstallErrors: `start` of `start` alone, otherwise `io`."""

    def __init__(self, programs: Programs, account: Account | None = None) -> None:
        """`account` None is the system's own manager."""
        self._programs, self._account = programs, account

    def show(self, *units: str) -> list[UnitState]:
        """The units' states, in the order in which they were asked for."""
        if not units:
            return []
        ran = self._must("show", f"--property={','.join(_PROPERTIES)}", "--", *units, timeout_s=_ASK_S)
        blocks = [block for block in ran.output.split("\n\n") if block.strip()]
        if len(blocks) != len(units):
            raise InstallError("io", f"systemctl tells of {len(blocks)} units, not of {len(units)}")
        return [UnitState(dict(line.split("=", 1) for line in block.splitlines() if "=" in line)) for block in blocks]

    def state(self, unit: str) -> UnitState:
        """One unit's state."""
        return self.show(unit)[0]

    def version(self) -> int:
        """systemd's version; 0 where it can not be read."""
        words = self._must("--version", timeout_s=_ASK_S).output.split()
        return int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0

    def reload(self) -> None:
        """systemd has read all unit files again."""
        self._must("daemon-reload", timeout_s=_ACT_S)

    def enable(self, unit: str) -> None:
        """What its [Install] section says is done; again is nothing."""
        self._must("enable", "--", unit, timeout_s=_ACT_S)

    def stop(self, unit: str) -> None:
        """Nothing of it runs; at most as long as the unit's own TimeoutStopSec= says."""
        self._must("stop", "--", unit, timeout_s=STOP_MOST_S)

    def start(self, unit: str, timeout_s: float) -> Ran:
        """What `systemctl start` blocks for has come, or has failed. Raises `start` where neither has in time."""
        return self._run("start", "--", unit, timeout_s=timeout_s)

    def come_up(self, unit: str, timeout_s: float) -> None:
        """Start it, or wait for a start that is under way, and leave it to its state how that went."""
        with suppress(InstallError):
            self.start(unit, timeout_s)

    def forgive(self, unit: str) -> None:
        """Failures of before are forgotten: they neither count nor keep it from starting."""
        self._run("reset-failed", "--", unit, timeout_s=_ACT_S)

    def bring_up(self) -> None:
        """The manager runs. Raises InstallError `unsupported` where it does not, and `io` where it hangs."""
        account = self._account
        if account is not None and account.uid != os.geteuid():
            try:
                Systemctl(self._programs).start(f"user@{account.uid}.service", _ACT_S)
            except InstallError as error:  # which says nothing about the release
                raise InstallError("io", error.detail) from None
        ran = self._run("show-environment", timeout_s=_ASK_S)
        if ran.status != 0:
            whose = "systemd" if account is None else f"user {account.name}"
            hint = "" if account is None else f": loginctl enable-linger {account.name}"
            raise InstallError("unsupported", f"{whose} has no service manager running ({ran.last_words}){hint}")

    def _must(self, *arguments: str, timeout_s: float) -> Ran:
        try:
            ran = self._run(*arguments, timeout_s=timeout_s)
        except InstallError as error:
            raise error if error.code == "unsupported" else InstallError("io", error.detail) from None
        if ran.status != 0:
            raise InstallError("io", f"systemctl {arguments[0]} {arguments[-1]}: {ran.last_words}")
        return ran

    def _run(self, *arguments: str, timeout_s: float) -> Ran:
        account = self._account
        if account is None:
            return self._programs.run("systemctl", "--no-ask-password", *arguments, timeout_s=timeout_s)
        other = account.uid != os.geteuid()
        return self._programs.run(
            "systemctl",
            "--user",
            *arguments,
            timeout_s=timeout_s,
            environment={"XDG_RUNTIME_DIR": f"/run/user/{account.uid}", "HOME": account.home},
            user=account.uid if other else None,
            group=account.gid if other else None,
        )


def own_account() -> Account:
    """The account of this process."""
    import pwd  # noqa: PLC0415 - only devices with units of users pay

    return account_of(pwd.getpwuid(os.geteuid()).pw_name)


def is_running(system_root: Path) -> bool:
    """Whether systemd is what runs this system's services (sd_booted(3))."""
    return (system_root / "run/systemd/system").is_dir()
