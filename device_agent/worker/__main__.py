"""`python -m device_agent.worker`: carries out one operation and is gone.

1. An operation's own errors are answers. Anything else is a bug: a traceback on standard error, no answer.
2. Operations of one lane wait for each other, also for one whose resident has died.
3. With its answer a worker is gone: nothing that it has loaded is taken down in order, and no thread is waited for.
   What an operation has to put right it does before it answers, for the resident may kill it right after.
4. What needs no privileges has none before it sees a stranger's byte: until then nothing was read but the resident's
   request and the owner's settings.
5. An operation that installs may take as long as its steps do, and tells that it goes on (`steps`).
"""

import fcntl
import importlib
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from device_agent.adapters.files import make_dir, storage_error
from device_agent.identity import worker_user
from device_agent.settings import AgentSettings, load
from device_agent.worker.context import WorkerContext
from device_agent.worker.operations import INSTALLING, OPERATIONS, Operation
from device_agent.worker.pipes import Pipes
from device_agent.worker.steps import follow_steps
from fleet_protocol.errors import FleetError, InstallError


def main() -> NoReturn:
    """Exit status 0 after an answer, whatever it says."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipes = Pipes.of_this_process()
    pipes.answer(_carry_out(pipes.request(), pipes))
    _leave()


def _carry_out(request: Mapping[str, Any], pipes: Pipes) -> Mapping[str, Any]:
    op = request["op"]
    try:
        settings = load(Path(request["config"]))
        operation = OPERATIONS[op]
        with _lane(settings.state_dir, operation.lane) as lane:
            _go_first(operation)
            _give_up_privileges(operation, settings)
            pipes.watch()
            _wait_for(lane)
            run = importlib.import_module(operation.module).run
            if operation.lane == INSTALLING:
                follow_steps(pipes.alive)  # rule 5
            os.umask(0o077)  # not before the import: others must be able to read the bytecode that it leaves
            context = WorkerContext(settings=settings, want=pipes.want, progress=pipes.progress)
            result = run(request["args"], context)
    except FleetError as error:
        return _refused(error)
    except MemoryError:
        return _refused(InstallError("no-memory", op))
    except OSError as error:
        return _refused(storage_error(error, f"{op}: {error.filename or ''}"))
    return {"ok": True, "result": result}


def _go_first(operation: Operation) -> None:
    """Where memory runs out, the kernel ends this process before the resident (proc_pid_oom_score_adj(5)).

    Not one that installs: what that starts would inherit it.
    """
    if not operation.privileged:
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500")


def _give_up_privileges(operation: Operation, settings: AgentSettings) -> None:
    """Rule 4."""
    user = None if operation.privileged else worker_user(settings)
    if user is not None:
        from device_agent.worker.privileges import become  # noqa: PLC0415 - needs ctypes

        become(user)


def _refused(error: FleetError) -> Mapping[str, Any]:
    detail = error.detail.encode("utf-8", "replace").decode("utf-8")  # a file name may be no text
    return {"ok": False, "code": error.code, "detail": detail, "retry_after_s": getattr(error, "retry_after_s", None)}


def _leave() -> NoReturn:
    """Rule 3. What libraries have printed is not lost."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(0)


@contextmanager
def _lane(state_dir: Path, lane: str | None) -> Iterator[int | None]:
    """The lane's lock file, which the agent's own identity makes."""
    if lane is None:
        yield None
        return
    make_dir(state_dir)
    descriptor = os.open(state_dir / f"{lane}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_for(lane: int | None) -> None:
    """Rule 2, by a lock that the kernel drops with this process, and that no child of it can keep (fcntl(2))."""
    if lane is not None:
        fcntl.lockf(lane, fcntl.LOCK_EX)


if __name__ == "__main__":
    main()
