"""`python -m device_agent.worker`: carries out one operation and is gone.

1. An operation's own errors are answers. Anything else is a bug: a traceback on standard error, no answer.
2. Operations of one lane wait for each other, also for one whose resident has died.
3. With its answer a worker is gone: nothing that it has loaded is taken down in order, and no thread is waited for.
   What an operation has to put right it does before it answers, for the resident may kill it right after.
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
from device_agent.settings import load
from device_agent.worker.context import WorkerContext
from device_agent.worker.operations import OPERATIONS
from device_agent.worker.pipes import Pipes
from fleet_protocol.errors import FleetError


def main() -> NoReturn:
    """Exit status 0 after an answer, whatever it says."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    pipes = Pipes.of_this_process()
    pipes.answer(_carry_out(pipes.request(), pipes))
    _leave()


def _carry_out(request: Mapping[str, Any], pipes: Pipes) -> Mapping[str, Any]:
    op = request["op"]
    try:
        settings = load(Path(request["config"]))
        context = WorkerContext(settings=settings, want=pipes.want, progress=pipes.progress)
        operation = OPERATIONS[op]
        with _lane(settings.state_dir, operation.lane):
            result = importlib.import_module(operation.module).run(request["args"], context)
    except FleetError as error:
        return _refused(error)
    except OSError as error:
        return _refused(storage_error(error, f"{op}: {error.filename or ''}"))
    return {"ok": True, "result": result}


def _refused(error: FleetError) -> Mapping[str, Any]:
    retry_after_s = getattr(error, "retry_after_s", None)
    return {"ok": False, "code": error.code, "detail": error.detail, "retry_after_s": retry_after_s}


def _leave() -> NoReturn:
    """Rule 3. What libraries have printed is not lost."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(0)


@contextmanager
def _lane(state_dir: Path, lane: str | None) -> Iterator[None]:
    """Rule 2, by a lock that the kernel drops with the process."""
    if lane is None:
        yield
        return
    make_dir(state_dir)
    descriptor = os.open(state_dir / f"{lane}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
