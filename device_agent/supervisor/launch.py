"""Becomes a service: started for one service only, writes down who it is, and replaces itself.

It is a program of its own so that a starter which is killed at any instant leaves nothing half done. It holds the
service's lock (descriptor 3, inherited) until `execve` closes it, so that nobody can look before `pid.json` is
there. What went wrong goes to descriptor 4, which `execve` closes too. Standard library only, run with -I -S.
"""

import json
import os
import signal
import sys
from pathlib import Path

LOCK, ANSWER = 3, 4


def main(directory: Path, restarts: int) -> int:
    """Never returns where the service could be started; otherwise 127, with a line on descriptor 4."""
    for descriptor in (LOCK, ANSWER):
        os.set_inheritable(descriptor, False)  # noqa: FBT003  it takes no keyword
    os.closerange(ANSWER + 1, os.sysconf("SC_OPEN_MAX"))
    try:
        wanted = json.loads((directory / "wanted.json").read_bytes())
        _write_pid(directory, wanted["generation"], restarts)
        _become(wanted["spec"])
    except OSError as error:
        os.write(ANSWER, f"{error.filename or 'service'}: {error.strerror}".encode())
    return 127


def _write_pid(directory: Path, generation: int, restarts: int) -> None:
    stat = Path("/proc/self/stat").read_text("ascii", errors="replace")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    process = {"pid": os.getpid(), "start_ticks": int(stat.rpartition(")")[2].split()[19]), "boot": boot}
    temporary = directory / "pid.json.new"
    temporary.write_text(json.dumps({"process": process, "generation": generation, "restarts": restarts}))
    temporary.replace(directory / "pid.json")


def _become(spec: dict[str, object]) -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)
    os.chdir(str(spec["cwd"]))
    arguments, environment = spec["exec"], spec["env"]
    if not isinstance(arguments, list) or not isinstance(environment, dict):
        raise OSError(0, "wanted.json is not of its form")
    os.execve(arguments[0], arguments, environment)  # noqa: S606  no shell is the point


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
