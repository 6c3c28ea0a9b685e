"""What Fairlead adds to TUF metadata: each target's `custom`, `x-floor` in targets, `x-fleet` in root.

The rest of the catalogue is ordinary TUF, specification 1.0, and read by the `tuf` library alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from fleet_protocol import limits
from fleet_protocol.checks import check_count, check_distinct, check_range, check_text
from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import check_id, check_sha256, check_version
from fleet_protocol.install import Install

Kind = Literal["service", "driver", "package", "files", "image", "agent"]
KINDS: Final[tuple[Kind, ...]] = ("service", "driver", "package", "files", "image", "agent")
Format = Literal["tar.zst", "raw"]
FORMATS: Final[tuple[Format, ...]] = ("tar.zst", "raw")
FLOOR_MEMBER: Final = "x-floor"
FLEET_MEMBER: Final = "x-fleet"
_STRICT: Final[Any] = {"strict": True, "extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Precursor:
    """The base that a delta applies to."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    sha256: str

    def __post_init__(self) -> None:
        check_sha256(self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A release of another package that must be in the catalogue, by its artifact's digest."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    package: str
    sha256: str

    def __post_init__(self) -> None:
        check_id(self.package, "package")
        check_sha256(self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetInfo:
    """A target's `custom` member: everything about an artifact that the offline keys vouch for.

    `unpacked_size` is the bytes of all regular files; `unpacked_files` counts files and directories
    (`fleet_protocol.archive`). A `raw` artifact is one file: its own size, and 1. Artifacts of one release
    that are for one class each have a `part` of their own, and are installed together.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT

    package: str
    kind: Kind
    version: str
    counter: int
    classes: tuple[str, ...]
    format: Format
    unpacked_size: int
    unpacked_files: int
    precursors: tuple[Precursor, ...]
    requires: tuple[Requirement, ...]
    install: Install
    text: str
    part: str = ""

    def __post_init__(self) -> None:
        check_id(self.package, "package")
        check_version(self.version)
        check_range(self.counter, 1, limits.JSON_INTEGER, "counter")
        check_count(self.classes, 64, "classes", least=1)
        for device_class in self.classes:
            check_id(device_class, "class")
        check_distinct(self.classes, "classes")
        check_range(self.unpacked_size, 0, 2**45, "unpacked_size")
        check_range(self.unpacked_files, 0, 1_000_000, "unpacked_files")
        check_count(self.precursors, 16, "precursors")
        check_count(self.requires, 16, "requires")
        check_text(self.text, limits.TEXT, "text")
        if self.part:
            check_id(self.part, "part")


def check_parts(infos: Iterable[TargetInfo]) -> None:
    """Raise ProtocolError `mismatch` unless the artifacts of one release that are for one class can be told apart.

    A class has one artifact, or several that each have a `part` of their own: those are installed together.
    """
    parts: dict[str, list[str]] = {}
    for info in infos:
        for device_class in info.classes:
            parts.setdefault(device_class, []).append(info.part)
    for device_class, found in parts.items():
        if len(found) > 1 and ("" in found or len(set(found)) != len(found)):
            raise ProtocolError(
                "mismatch", f"two targets are for one class, {device_class}, and not parts of their own"
            )


def parse_floor(value: object) -> Mapping[str, int]:
    """The `x-floor` member of targets: a counter by package; absent means no floors. Raises `schema`."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ProtocolError("schema", "x-floor is not an object")
    for package, counter in value.items():
        check_id(package, "package")
        check_range(counter, 0, limits.JSON_INTEGER, "floor")
    return dict(value)
