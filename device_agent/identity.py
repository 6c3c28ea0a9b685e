"""Who handles strangers' bytes: an account without rights, where the agent itself has to be root."""

import os
from dataclasses import dataclass

from device_agent.settings import AgentSettings
from fleet_protocol.errors import PolicyError


@dataclass(frozen=True, slots=True)
class WorkerUser:
    """An account of this machine, never root's."""

    name: str
    uid: int
    gid: int


def worker_user(settings: AgentSettings) -> WorkerUser | None:
    """The account that `worker_user` names, or None where such workers are to be who this process is.

    Raises PolicyError `setup`, in one line, for an account that is not there, that is root's, or that this process
    can not become: a device whose owner wants the separation never runs without it.
    """
    name = settings.worker_user
    if name is None:
        return None
    import pwd  # noqa: PLC0415 - only devices that use it pay

    try:
        account = pwd.getpwnam(name)
    except KeyError:
        raise _wrong(settings, "is no user of this machine") from None
    if 0 in (account.pw_uid, account.pw_gid):
        raise _wrong(settings, "must be a user without privileges")
    if os.geteuid() == account.pw_uid:
        return None
    if os.geteuid() != 0:
        raise _wrong(settings, f"needs an agent that runs as root or as {name}")
    return WorkerUser(name, account.pw_uid, account.pw_gid)


def _wrong(settings: AgentSettings, why: str) -> PolicyError:
    return PolicyError("setup", f"{settings.path}: worker_user {settings.worker_user!a} {why}")
