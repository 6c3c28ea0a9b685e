"""`fairlead-agent install` and `uninstall`: the agent gets its place on this machine, or in an image of one.

1. Twice is once, and a cut anywhere is mended by doing it again: each file is replaced whole.
2. What is the owner's stays: settings that are there are never written over, state is never touched.
3. A running agent is started anew only where its unit or its program is another than before.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.adapters.files import remove, remove_tree
from device_agent.adapters.state_folders import KEY, make_state_dir
from device_agent.host.wishes import (
    ACCOUNT,
    AGENT_TOML,
    Wishes,
    adopted_files,
    adopted_text,
    certificate,
    check_agreement,
    files_of,
    settings_text,
)
from device_agent.installers.system_files import SystemFiles
from device_agent.settings import AgentSettings, load
from fleet_protocol.errors import PolicyError

UNIT: Final = "fairlead-agent.service"
_UNIT_FILE: Final = f"/etc/systemd/system/{UNIT}"
_ACCOUNT_FILE: Final = "/etc/sysusers.d/fairlead-agent.conf"
_WANTED: Final = f"/etc/systemd/system/multi-user.target.wants/{UNIT}"
PROGRAM: Final = Path("/opt/fairlead/venv/bin/fairlead-agent")
CONFIG: Final = Path("/etc/fairlead/agent.toml")
STATE_DIR: Final = Path("/var/lib/fairlead-agent")
_CERTIFICATE_MODES: Final = {"ca_file": 0o644, "cert_file": 0o644, "key_file": 0o600}
_PATIENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the agent is to be, as the device names it; `root` is where the device's files are for this process.

    `program` is a path that stays the same over upgrades, so that the unit does.
    """

    root: Path = Path("/")
    config: Path = CONFIG
    program: Path = PROGRAM

    @property
    def live(self) -> bool:
        """Whether it is this machine itself."""
        return self.root == Path("/")

    def here(self, path: Path) -> Path:
        """Where this process finds a path of the device."""
        return SystemFiles(self.root).place(str(path))


def install(place: Place, wishes: Wishes, *, start: bool) -> int:
    """Lay down settings, certificates and the unit, enable it, and start it where the device is enrolled already.

    Prints what is to be done next. Raises PolicyError `setup` or `conflict` with one line.
    """
    _check(place)
    settings = _settle(place, wishes)
    state_dir = STATE_DIR if settings is None else settings.state_dir
    make_state_dir(place.here(state_dir))
    SystemFiles(place.root).write(_ACCOUNT_FILE, f'u {ACCOUNT} - "Fairlead agent workers" -\n'.encode())
    changed = _put_unit(place, state_dir)
    enrolled = (place.here(state_dir) / KEY).is_file()
    if place.live:
        _run("systemd-sysusers", _ACCOUNT_FILE)
        _systemctl("daemon-reload")
        if start and settings is not None and enrolled and (changed or not _runs_this_program()):
            _systemctl("restart", UNIT)
    sys.stdout.writelines(f"{line}\n" for line in _next(place, settings, enrolled=enrolled, start=start))
    return 0


def uninstall(place: Place, *, purge: bool) -> int:
    """The agent and its supervisor's services stop, and the unit is gone.

    Settings and state stay, unless `purge` is given. What releases put into the system stays in any case.
    """
    _check(place)
    config, files = place.here(place.config), SystemFiles(place.root)
    settings = load(config) if config.exists() else None
    state_dir = STATE_DIR if settings is None else settings.state_dir
    if place.live and files.read(_UNIT_FILE) is not None:
        _systemctl("disable", "--now", UNIT)
    files.remove(_WANTED)
    files.remove(_UNIT_FILE)
    files.remove(_ACCOUNT_FILE)
    if place.live:
        _systemctl("daemon-reload")
        _end_services(state_dir)
    if purge:
        _purge(place, settings, state_dir)
    kept = "" if purge else f"; {place.config} and {state_dir} are kept"
    sys.stdout.write(f"{UNIT} is gone{kept}\n")
    return 0


def unit_text(place: Place, state_dir: Path) -> str:
    """The unit as it is for these paths."""
    text = Path(__file__).with_name(UNIT).read_text(encoding="utf-8")
    paths = {PROGRAM: place.program, CONFIG: place.config, STATE_DIR: state_dir}
    for named, path in paths.items():
        text = text.replace(str(named), str(path))
    return text


def _check(place: Place) -> None:
    for path in (place.config, place.program):
        if not path.is_absolute() or any(letter in str(path) for letter in " \\\"'%$\n"):
            raise PolicyError("setup", f"{path} must be an absolute path of plain letters")
    if not place.live:
        if not place.root.is_dir():
            raise PolicyError("setup", f"{place.root} is no directory")
    elif os.geteuid() != 0:
        raise PolicyError("setup", "this needs root: run it with sudo")
    elif not Path("/run/systemd/system").is_dir():  # sd_booted(3)
        raise PolicyError("setup", "systemd does not run this machine: start `fairlead-agent run` by its own means")


def _settle(place: Place, wishes: Wishes) -> AgentSettings | None:
    """The device's settings, made now where they were not there; None where there are none and nothing was said."""
    if wishes.settings is not None:
        return _adopt(place, wishes, wishes.settings)
    config, files = place.here(place.config), SystemFiles(place.root)
    for key, path in wishes.certificates().items():
        if not path.is_file():
            raise PolicyError("setup", f"{path}: no such file, for the broker's {key}")
    if config.exists():
        check_agreement(wishes, place.config, load(config))
    elif wishes.said:
        text = settings_text(wishes, place.config, STATE_DIR)
        _copy_certificates(place, wishes)
        files.write(str(place.config), text.encode())
    else:
        files.make_dir(str(place.config.parent))
        return None
    _copy_certificates(place, wishes)
    return load(config)


def _adopt(place: Place, wishes: Wishes, folder: Path) -> AgentSettings:
    """The settings and the files of a folder; settings of the same device that are there already stay."""
    for key in wishes.certificates():
        raise PolicyError("conflict", f"{folder} brings its own {key}: leave the other out")
    config, files = place.here(place.config), SystemFiles(place.root)
    brought = load(folder / AGENT_TOML)
    named = adopted_files(folder, brought)
    if config.exists():
        there = load(config)
        if (there.device, there.fleet) != (brought.device, brought.fleet):
            raise PolicyError("conflict", f"{place.config} is of {there.device} of fleet {there.fleet}")
        check_agreement(wishes, place.config, there)
    else:
        files.write(str(place.config), adopted_text(wishes, folder, brought, STATE_DIR).encode())
    for path in named:
        private = path in (brought.broker.key_file, brought.broker.password_file)
        files.write(str(place.config.with_name(path.name)), path.read_bytes(), mode=0o600 if private else 0o644)
    return load(config)


def _copy_certificates(place: Place, wishes: Wishes) -> None:
    for key, path in wishes.certificates().items():
        copy = str(certificate(place.config, key))
        SystemFiles(place.root).write(copy, path.read_bytes(), mode=_CERTIFICATE_MODES[key])


def _put_unit(place: Place, state_dir: Path) -> bool:
    """The unit is there and enabled; whether that is news."""
    files, text = SystemFiles(place.root), unit_text(place, state_dir).encode()
    changed = files.read(_UNIT_FILE) != text
    if changed:
        files.write(_UNIT_FILE, text)
    files.link(_WANTED, _UNIT_FILE)
    return changed


def _next(place: Place, settings: AgentSettings | None, *, enrolled: bool, start: bool) -> Iterator[str]:
    yield f"{UNIT} is installed and enabled"
    if settings is None:
        yield f"next: write {place.config}, or give --device, --fleet and --broker"
    elif not enrolled:
        yield f"next: {place.program} enroll --config {place.config} --server ... --token @... --group ..."
        yield f"then: systemctl start {UNIT}"
    elif place.live and not start:
        yield f"next: systemctl restart {UNIT}"


def _purge(place: Place, settings: AgentSettings | None, state_dir: Path) -> None:
    """Remove what the agent made, and of the directory that the settings are in only them and what they name there."""
    if (place.here(state_dir) / KEY).exists():
        remove_tree(place.here(state_dir))
    config = place.here(place.config)
    named = () if settings is None else files_of(settings)
    beside = (place.config.parent, config.parent.resolve())  # settings name their files by absolute paths
    for name in (*(path.name for path in named if path.parent in beside), config.name):
        remove(config.with_name(name))
    with suppress(OSError):
        config.parent.rmdir()


def _runs_this_program() -> bool:
    """Whether the unit's process runs on the very interpreter that runs this."""
    shown = _systemctl("show", "--property=MainPID", "--value", UNIT).strip()
    if shown in ("", "0"):
        return False
    try:
        words = Path(f"/proc/{shown}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[0] == os.fsencode(sys.executable)


def _end_services(state_dir: Path) -> None:
    """Services of the agent's own supervisor have nobody any more."""
    from device_agent.supervisor.supervisor import Supervisor  # noqa: PLC0415 - no other command needs it

    Supervisor(state_dir).stop_all()


def _systemctl(*words: str) -> str:
    return _run("systemctl", *words)


def _run(*words: str) -> str:
    done = subprocess.run(  # noqa: S603 - fixed commands
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise PolicyError("setup", f"{' '.join(words)}: {last}")
    return done.stdout
