"""The options of `pack`, from `fairlead.toml` and the command line; the command line wins.

package = "my-service"
version = "1.2.0"
counter = 12
kind = "service"                     # or files, driver, package
classes = ["x86_64", "aarch64"]
exec = ["bin/serve", "--port", "${PORT}"]
stop_s = 10
text = "what is new, for people"
part = "web"                         # only where a release has several artifacts for one class
dependencies = "repository"          # kind package: what they need may come from the device's own repositories

[check]
http = "http://127.0.0.1:${PORT}/health"   # or exec = "bin/check"
interval_s = 5
timeout_s = 3
failures = 3

[[requires]]
package = "my-runtime"
sha256 = "..."

[[repository]]                       # kind package: one that devices get from their own repositories
deb = "mirror/my-tool_2.0-1_arm64.deb"     # or name, version and packages = "Packages.xz"

[unit]: see unit_options
[driver]: see driver_files
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

from firmware_tools.debian import from_repository
from firmware_tools.driver_files import load_of
from firmware_tools.packing import OPTIONS_NAME, ReleaseSpec
from firmware_tools.unit_options import unit_of
from fleet_protocol.catalogue import Requirement
from fleet_protocol.errors import PolicyError, ProtocolError
from fleet_protocol.ids import shown
from fleet_protocol.install import Dependencies, HealthCheck

PACKED_KINDS: Final = ("service", "files", "driver", "package")
_NEEDED: Final = ("package", "version", "counter", "kind", "classes")
_TYPES: Final[Mapping[str, type]] = {
    "package": str,
    "version": str,
    "counter": int,
    "kind": str,
    "classes": list,
    "exec": list,
    "stop_s": int,
    "check": dict,
    "requires": list,
    "text": str,
    "part": str,
    "unit": dict,
    "repository": list,
    "dependencies": str,
    "driver": dict,
}
_CHECK_DEFAULTS: Final = {"interval_s": 5, "timeout_s": 3, "failures": 3}


def find(tree: Path) -> Path | None:
    """The options file in the tree, or beside it, or None."""
    places = ([tree / OPTIONS_NAME] if tree.is_dir() else []) + [tree.absolute().parent / OPTIONS_NAME]
    return next((path for path in places if path.is_file()), None)


def read(path: Path) -> dict[str, Any]:
    """The options of a file, with every name and type checked. Raises PolicyError `bad-request`."""
    try:
        options = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise PolicyError("bad-request", f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyError("bad-request", f"{path}: {error}") from None
    for name, value in options.items():
        wanted = _TYPES.get(name)
        if wanted is None:
            raise PolicyError("bad-request", f"{path}: there is no option {shown(name)}")
        if type(value) is not wanted:
            raise PolicyError("bad-request", f"{path}: {name} must be a {wanted.__name__}")
    if "repository" in options:
        options["repository"] = list(from_repository(options["repository"], path.parent))
    return options


def spec_of(options: Mapping[str, Any]) -> ReleaseSpec:
    """What `pack` needs, of options by name. Raises PolicyError `bad-request` for what is missing or wrong."""
    missing = [name for name in _NEEDED if options.get(name) in (None, "", [])]
    if missing:
        raise PolicyError("bad-request", f"missing: {', '.join(missing)}; give options or a {OPTIONS_NAME}")
    if options["kind"] not in PACKED_KINDS:
        raise PolicyError("bad-request", f"kind must be one of {', '.join(PACKED_KINDS)}")
    if "driver" in options and options["kind"] != "driver":
        raise PolicyError("bad-request", "[driver] and --load are for releases of kind driver")
    try:
        check = options.get("check")
        return ReleaseSpec(
            package=options["package"],
            version=options["version"],
            counter=options["counter"],
            kind=options["kind"],
            classes=tuple(_strings(options["classes"], "classes")),
            exec=tuple(_strings(options.get("exec", []), "exec")),
            stop_s=options.get("stop_s", 10),
            check=None if check is None else _check(check),
            requires=tuple(_requirement(item) for item in options.get("requires", [])),
            text=options.get("text", ""),
            part=options.get("part", ""),
            unit=unit_of(options["unit"]) if "unit" in options else None,
            repository=tuple(options.get("repository", ())),
            dependencies=_dependencies(options.get("dependencies", "release")),
            load=load_of(options.get("driver", {})),
        )
    except ProtocolError as error:
        raise PolicyError("bad-request", error.detail) from None


def _dependencies(value: str) -> Dependencies:
    if value not in get_args(Dependencies):
        raise PolicyError("bad-request", f"dependencies must be one of {', '.join(get_args(Dependencies))}")
    return "repository" if value == "repository" else "release"


def _strings(values: list[Any], name: str) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise PolicyError("bad-request", f"{name} must be a list of strings")
    return values


def _check(options: Mapping[str, Any]) -> HealthCheck:
    names = set(options)
    kinds = names & {"http", "exec"}
    if len(kinds) != 1 or not names <= {"http", "exec", *_CHECK_DEFAULTS}:
        raise PolicyError("bad-request", "a check has http or exec, and may have interval_s, timeout_s and failures")
    kind = kinds.pop()
    target = options[kind]
    if not isinstance(target, str):
        raise PolicyError("bad-request", f"check.{kind} must be a string")
    if kind == "http" and not target.startswith("http://127.0.0.1"):
        raise PolicyError("bad-request", "check.http must start with http://127.0.0.1: devices ask only themselves")
    limits = _CHECK_DEFAULTS | {name: options[name] for name in _CHECK_DEFAULTS if name in options}
    return HealthCheck(kind="http" if kind == "http" else "exec", target=target, **limits)


def _requirement(item: Any) -> Requirement:
    if not isinstance(item, dict) or set(item) != {"package", "sha256"}:
        raise PolicyError("bad-request", "each of requires has package and sha256")
    return Requirement(package=str(item["package"]), sha256=str(item["sha256"]))
