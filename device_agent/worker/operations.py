"""The operations, where they are, and who carries them out. Only the one that is asked for is imported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Operation:
    """`module` has a function `run(args, context) -> result`. Operations of one `lane` never run side by side."""

    module: str
    lane: str | None = None
    privileged: bool = False
    """Has the agent's own identity; the others are carried out by the worker user, if the owner names one."""


INSTALLING: Final = "install"
"""The lane of the operations on artifacts."""
_TRUST: Final = "device_agent.trust.ops"
_INSTALL: Final = "device_agent.installers.ops"

OPERATIONS: Final[Mapping[str, Operation]] = {
    "sign": Operation(f"{_TRUST}.sign"),
    **{name: Operation(f"{_TRUST}.{name}", "trust") for name in ("assignment", "manifest", "refresh", "command")},
    "fetch": Operation(f"{_INSTALL}.fetch", INSTALLING),
    **{
        name: Operation(f"{_INSTALL}.{name}", INSTALLING, privileged=True)
        for name in ("stage", "activate", "check", "commit", "revert", "discard")
    },
}
