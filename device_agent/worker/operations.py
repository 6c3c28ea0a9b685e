"""The operations and where they are. Only the one that is asked for is imported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Operation:
    """`module` has a function `run(args, context) -> result`. Operations of one `lane` never run side by side."""

    module: str
    lane: str | None = None


_TRUST: Final = "device_agent.trust.ops"
_INSTALL: Final = "device_agent.installers.ops"

OPERATIONS: Final[Mapping[str, Operation]] = {
    "sign": Operation(f"{_TRUST}.sign"),
    **{name: Operation(f"{_TRUST}.{name}", "trust") for name in ("assignment", "manifest", "refresh", "command")},
    **{
        name: Operation(f"{_INSTALL}.{name}", "install")
        for name in ("fetch", "stage", "activate", "check", "commit", "revert", "discard")
    },
}
