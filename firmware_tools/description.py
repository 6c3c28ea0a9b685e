"""The description of a packed artifact: the file beside it, and later its entry in the catalogue."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from firmware_tools.files import write_atomically
from fleet_protocol import strict_json
from fleet_protocol.catalogue import TargetInfo
from fleet_protocol.errors import PolicyError, ProtocolError
from fleet_protocol.ids import check_sha256, check_target_path
from fleet_protocol.payload import to_value
from fleet_protocol.schema import from_value

SUFFIX: Final = ".json"
_MEMBERS: Final = {"path", "length", "sha256", "custom"}
_SIZE_MOST: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What is said of one artifact. `path` is its name in the catalogue; `length` is bytes."""

    path: str
    length: int
    sha256: str
    custom: TargetInfo

    def __post_init__(self) -> None:
        check_target_path(self.path)
        check_sha256(self.sha256)

    def encode(self) -> bytes:
        """The description's JSON; equal descriptions give equal bytes."""
        return strict_json.dumps(to_value(self)) + b"\n"


def beside(artifact: Path) -> Path:
    """Where the description of an artifact is: its file name with `.json` added."""
    return artifact.with_name(artifact.name + SUFFIX)


def write(artifact: Path, description: Description) -> None:
    """Write the description beside its artifact."""
    write_atomically(beside(artifact), description.encode())


def read(artifact: Path) -> Description:
    """The description beside an artifact; its numbers are claims that nobody has checked.

    Raises PolicyError `bad-request` where it is missing or not a description.
    """
    path = beside(artifact)
    try:
        value: Any = strict_json.loads(path.read_bytes(), max_size=_SIZE_MOST)
        if not isinstance(value, dict) or set(value) != _MEMBERS or type(value["length"]) is not int:
            raise ProtocolError("schema", "the members are not path, length, sha256 and custom")
        return Description(**value | {"custom": from_value(TargetInfo, value["custom"])})
    except FileNotFoundError:
        detail = f"{path} is missing: `fairlead-firmware pack` writes it beside the artifact; keep the two together"
        raise PolicyError("bad-request", detail) from None
    except (ProtocolError, TypeError) as error:
        raise PolicyError("bad-request", f"{path} is not a description of an artifact: {error}") from None


def target_path(info: TargetInfo) -> str:
    """The artifact's name in the catalogue: `<package>/<version>/[<part>/]<classes joined by +>.<format>`."""
    place = "/".join([info.package, info.version, *([info.part] if info.part else [])])
    path = f"{place}/{'+'.join(sorted(info.classes))}.{info.format}"
    try:
        return check_target_path(path)
    except ProtocolError:
        raise PolicyError("bad-request", "the classes are too many for one name: pack them apart, or --path") from None
