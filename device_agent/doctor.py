"""`fairlead-agent doctor`: what the agent needs, checked one by one, with what to do."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from device_agent.adapters.services import DeviceServices
from device_agent.adapters.state_folders import state_mode
from device_agent.adapters.state_lock import state_lock
from device_agent.broker_trial import refusal
from device_agent.identity import worker_user
from device_agent.log import Log, of_a_file
from device_agent.settings import AgentSettings
from device_agent.status import ask
from device_agent.trust import device_key
from device_agent.trust.store import TrustStore
from device_agent.trust.trusted_root import read_root
from device_agent.worker.privileges import become
from fleet_protocol.errors import FleetError

_FREE_BYTES: Final = 64 * 1024 * 1024
_YEAR_S: Final = 1_700_000_000
"""November 2023: a clock before this was never set."""
_CONNECT_S: Final = 5.0
_WORKER: Final = (
    "import device_agent.installers.ops.fetch, device_agent.trust.metadata, device_agent.trust.ops.manifest"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result; `remedy` says what to do where it is not well."""

    name: str
    well: bool
    text: str
    remedy: str = ""


def doctor(settings: AgentSettings) -> int:
    """Print one line per check; 0 where all is well."""
    findings = examine(settings)
    for finding in findings:
        remedy = f": {finding.remedy}" if finding.remedy and not finding.well else ""
        sys.stdout.write(f"{'ok ' if finding.well else 'BAD'} {finding.name:<10} {finding.text}{remedy}\n")
    return 0 if all(finding.well for finding in findings) else 1


def examine(settings: AgentSettings) -> list[Finding]:
    """All checks, none of which changes anything but the state directory's lock file.

    The last two read what the worker user may write, and do so as the worker user, or not at all: this process is not
    root any more afterwards.
    """
    checks: tuple[tuple[str, Callable[[AgentSettings], Finding]], ...] = (
        ("state", _state),
        ("disk", _disk),
        ("clock", _clock),
        ("broker", _broker),
        ("agent", _agent),
        ("services", _services),
        ("workers", _workers),
        ("key", _key),
        ("trust", _trust),
    )
    findings = [Finding("config", True, str(settings.path))]  # noqa: FBT003 - it was read to get here
    for name, check in checks:
        try:
            findings.append(check(settings))
        except FleetError as error:
            findings.append(Finding(name, well=False, text=error.detail))
            if check is _workers:
                break
        except OSError as error:
            findings.append(Finding(name, well=False, text=of_a_file(error)))
    return findings


def _state(settings: AgentSettings) -> Finding:
    path = settings.state_dir
    if not path.is_dir():
        return Finding("state", well=False, text=f"{path} is not there", remedy="run `fairlead-agent init`")
    user, status = worker_user(settings), path.stat()
    mode, wanted = stat.S_IMODE(status.st_mode), state_mode(user, status.st_mode)
    well = mode & ~wanted == 0 and os.access(path, os.W_OK | os.X_OK) and (user is None or status.st_uid == 0)
    text = f"{path} of user {status.st_uid} has mode {mode:04o}"
    return Finding("state", well, text, f"chmod {wanted:o} {path}, as the agent's own user")


def _disk(settings: AgentSettings) -> Finding:
    free = shutil.disk_usage(settings.state_dir).free
    text = f"{free // 2**20} MiB free below {settings.state_dir}"
    return Finding("disk", free >= _FREE_BYTES, text, "an update needs room for its download and its slot")


def _workers(settings: AgentSettings) -> Finding:
    """Become the worker user, where there is one, and see whether it finds what a worker is made of."""
    user = worker_user(settings)
    if user is None:
        return Finding("workers", well=True, text="run as the agent's own user")
    become(user)
    remedy = f"{sys.prefix} and what leads there must be readable for {user.name}"
    try:
        subprocess.run(  # noqa: S603 - fixed command
            [sys.executable, "-P", "-c", _WORKER], stdin=subprocess.DEVNULL, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        text = f"{user.name} can not run {sys.executable}: {getattr(error, 'strerror', None) or error}"
        return Finding("workers", well=False, text=text, remedy=remedy)
    return Finding("workers", well=True, text=f"that read from strangers run as {user.name}, without privileges")


def _key(settings: AgentSettings) -> Finding:
    path = settings.state_dir / device_key.FILE
    key = device_key.load(settings.state_dir)
    mode = stat.S_IMODE(path.stat().st_mode)
    return Finding("key", mode & 0o077 == 0, f"{key.keyid[:16]} in {path}, mode {mode:04o}", f"chmod 600 {path}")


def _trust(settings: AgentSettings) -> Finding:
    with TrustStore.opened(settings.state_dir) as store:
        root = read_root(store.root, settings.fleet)
    days = (root.expires_s - time.time()) / 86_400
    text = f"root version {root.version} of fleet {root.role.fleet}, expires in {days:.0f} days"
    return Finding("trust", days > 0, text, "the release engineer must sign a newer root")


def _clock(settings: AgentSettings) -> Finding:  # noqa: ARG001 - every check has the same form
    now_s = time.time()
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    return Finding("clock", now_s > _YEAR_S, text, "set it, or run a time service")


def _broker(settings: AgentSettings) -> Finding:
    """Ask an agent that is connected; only where none is, connect as this device, which would end its connection."""
    broker = settings.broker
    for path in (broker.ca_file, broker.cert_file, broker.key_file, broker.password_file):
        if path is not None and not os.access(path, os.R_OK):
            return Finding("broker", well=False, text=f"{path} can not be read", remedy="check its owner and mode")
    try:
        with socket.create_connection((broker.host, broker.port), timeout=_CONNECT_S):
            pass
        connected = _agent_is_connected(settings)
        why = None if connected or connected is None else refusal(settings)
    except OSError as error:
        remedy = "is it running, and may this device reach it?"
        return Finding("broker", well=False, text=f"{broker.url}: {error.strerror or error}", remedy=remedy)
    if why is not None:
        remedy = "has this device the certificate, or the password, that its broker knows it by?"
        return Finding("broker", well=False, text=f"{broker.url}: {why}", remedy=remedy)
    if connected is None:
        text = f"{broker.url} takes connections; whether this device's, only the log of its agent says"
        return Finding("broker", well=True, text=text)
    return Finding("broker", well=True, text=f"{broker.url} takes this device")


def _agent_is_connected(settings: AgentSettings) -> bool | None:
    """Whether there is an agent that has its connection; None where there is one that can not be asked."""
    if _holder(settings) is None:
        return False
    try:
        return bool(ask(settings)["broker"]["connected"])
    except FleetError:
        return None


def _agent(settings: AgentSettings) -> Finding:
    text = _holder(settings) or "none runs; start it with `fairlead-agent run`"
    return Finding("agent", well=True, text=text)


def _holder(settings: AgentSettings) -> str | None:
    """What keeps another agent from this state directory: an agent that runs."""
    try:
        with state_lock(settings.state_dir):
            return None
    except FleetError as error:
        return error.detail


def _services(settings: AgentSettings) -> Finding:
    known = DeviceServices(settings.state_dir, settings.system_root, Log())
    services = known.list()
    known.stop(services_too=False)
    down = [service.name for service in services if service.wanted and not service.running]
    text = f"{len(services) - len(down)} of {len(services)} as they ought to be"
    return Finding("services", not down, text, f"{', '.join(down)} not running: see `fairlead-agent status`")
