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
    "unit.before_guard",
    "unit.after_guard",
    "unit.after_stop",
    "unit.after_hold",
    "unit.after_drop_in",
    "unit.after_file",
    "unit.after_removal",
    "unit.after_record",
    "unit.after_reload",
    "unit.after_enable",
    "unit.after_release",
    "unit.after_start",
    "unit.after_restore",
    "unit.after_reread",
    "unit.after_let_go",
    "unit.after_forget",
    "driver.after_ban",
    "driver.before_file",
    "driver.after_file",
    "driver.before_depmod",
    "driver.after_depmod",
    "driver.before_unload",
    "driver.after_unload",
    "driver.before_load",
    "driver.after_load",
    "driver.after_stamp",
    "driver.after_lift",
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
