"""Named places at which a test may kill this process, as a power cut or the OOM killer would."""

import os
import signal
from typing import Final

ENVIRONMENT: Final = "FAIRLEAD_CRASH_AT"

CRASH_POINTS: Final = (
    "fetch.after_block",
    "fetch.before_sync",
    "fetch.before_rename",
    "fetch.after_rename",
    "stage.before_clear",
    "stage.after_clear",
    "stage.after_marker",
    "stage.after_entry",
    "stage.after_block",
    "stage.before_sync",
    "stage.after_sync",
    "activate.before_note",
    "activate.after_note",
    "activate.before_switch",
    "activate.after_switch",
    "service.before_stop",
    "service.after_unwanted",
    "service.after_signal",
    "service.after_stop",
    "service.before_start",
    "service.after_wanted",
    "service.after_spawn",
    "service.after_start",
    "package.before_fetched",
    "package.after_fetched",
    "package.after_take",
    "package.after_rebuild",
    "package.after_put_by",
    "package.before_repair",
    "package.after_repair",
    "package.before_install",
    "package.after_install",
    "package.before_remove",
    "package.after_remove",
    "package.before_mark",
    "package.after_mark",
    "package.before_return",
    "package.before_unpack",
    "package.after_unpack",
    "package.before_reinstall",
    "package.after_reinstall",
    "package.before_purge",
    "package.after_purge",
    "package.after_silence",
    "package.after_sweep",
    "package.after_return",
    "package.after_brought",
    "package.after_forget",
    "backup.after_note",
    "backup.after_copy",
    "backup.after_list",
    "backup.after_restore",
    "backup.after_drop",
    "commit.before_cache",
    "commit.after_cache",
    "commit.after_note",
    "revert.before_switch",
    "revert.after_switch",
    "revert.before_note",
    "revert.after_note",
    "discard.before_clear",
    "discard.after_clear",
    "discard.after_cache",
)
"""One name before and one after every durable effect; `tests/crash` kills at each of them."""


def crash_point(name: str) -> None:
    """Do nothing, unless the environment asks for a kill at `name`: then the process is gone at once."""
    if os.environ.get(ENVIRONMENT) == name:
        os.kill(os.getpid(), signal.SIGKILL)
