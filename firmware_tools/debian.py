"""The Debian packages of a release: measured from the .debs, never asked for."""

import gzip
import lzma
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from firmware_tools import deb_file
from fleet_protocol.errors import PolicyError, ProtocolError
from fleet_protocol.install import DebianPackage, Install

_NAMED: Final = ("name", "version", "architecture", "packages")
_READERS: Final[Mapping[str, Any]] = {".gz": gzip.open, ".xz": lzma.open}
_DEPENDS: Final = ("pre-depends", "depends")


@dataclass(frozen=True, slots=True, kw_only=True)
class FromRepository:
    """A package that devices get from their own repositories: `file` is its .deb, or lists it under `name`."""

    file: Path
    name: str = ""
    version: str = ""
    architecture: str = ""


def packages(source: Path, raw_name: str, repository: Sequence[FromRepository]) -> tuple[DebianPackage, ...]:
    """Every .deb of a tree, or the only one that `source` is, then those that devices get from their repositories.

    Raises PolicyError `bad-request` where there is none, or one name twice.
    """
    brought = [_described(path, name) for name, path in _debs(source, raw_name)]
    found = (*brought, *(_listed(one) if one.name else _described(one.file, None) for one in repository))
    names = [package.name for package in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        detail = f"{twice[0]} is there more than once: pack one artifact for each architecture, with its own classes"
        raise PolicyError("bad-request", detail)
    if not found:
        raise PolicyError("bad-request", f"there is no .deb in {source}, and no package of a repository is named")
    return found


def needs_lines(source: Path, repository: Sequence[FromRepository]) -> list[str]:
    """What the packages of a release need and none of them brings, for people: devices must have it already."""
    brought = [deb_file.read(path).fields for _, path in _debs(source, "")]
    brought += [_looked_up(one) if one.name else deb_file.read(one.file).fields for one in repository]
    provided = {fields["package"] for fields in brought}
    provided |= {_name(text) for fields in brought for text in _list(fields, "provides")}
    wanted = {text for fields in brought for field in _DEPENDS for text in _list(fields, field)}
    missing = sorted(text for text in wanted if not any(_name(one) in provided for one in text.split("|")))
    return [f"  needs on the device: {', '.join(missing)}"] if missing else []


def release_lines(install: Install) -> list[str]:
    """What becomes of a device's packages, in words."""
    lines = []
    for package in install.packages:
        source = "out of the artifact" if package.file is not None else "from the device's own repositories"
        lines.append(f"  installs {package.name} {package.version} ({package.architecture}) {source}")
        lines.append(f"    sha256 {package.sha256}")
    if install.packages and install.dependencies == "repository":
        lines.append("  MAY INSTALL more packages that these need, whatever the device's own repositories have")
    return lines


def from_repository(options: Iterable[Any], directory: Path) -> Iterator[FromRepository]:
    """What `[[repository]]` names: each `deb = "FILE"`, or `name`, `version` and `packages = "FILE"`, a Packages file
    as repositories have it. Paths are relative to `directory`; nothing is read yet."""
    for option in options:
        texts = isinstance(option, dict) and all(isinstance(value, str) for value in option.values())
        if texts and set(option) == {"deb"}:
            yield FromRepository(file=directory / option["deb"])
        elif texts and {"name", "version", "packages"} <= set(option) <= {*_NAMED}:
            wanted = {key: value for key, value in option.items() if key != "packages"}
            yield FromRepository(file=directory / option["packages"], **wanted)
        else:
            detail = "each of repository has deb, or name, version and packages (and may have architecture)"
            raise PolicyError("bad-request", detail)


def _debs(source: Path, raw_name: str) -> Iterator[tuple[str, Path]]:
    """The name in the artifact, and the file."""
    if source.is_file():
        yield raw_name, source
        return
    for path in sorted(source.rglob("*.deb")):
        yield path.relative_to(source).as_posix(), path


def _described(path: Path, file: str | None) -> DebianPackage:
    deb = deb_file.read(path)
    try:
        return DebianPackage(
            name=deb.name, version=deb.version, architecture=deb.architecture, sha256=deb.sha256, file=file
        )
    except ProtocolError as error:
        raise PolicyError("bad-request", f"{path}: {error.detail}") from None


def _listed(wanted: FromRepository) -> DebianPackage:
    fields = _looked_up(wanted)
    architecture, sha256 = fields.get("architecture", ""), fields.get("sha256", "")
    try:
        return DebianPackage(
            name=wanted.name, version=wanted.version, architecture=architecture, sha256=sha256, file=None
        )
    except ProtocolError as error:
        detail = f"{wanted.file}: {wanted.name} {wanted.version}: {error.detail}"
        raise PolicyError("bad-request", detail) from None


def _looked_up(wanted: FromRepository) -> Mapping[str, str]:
    """The one package of a Packages file that is meant."""
    found = [fields for fields in _paragraphs(wanted.file) if _is_it(fields, wanted)]
    digests = {(fields.get("architecture", ""), fields.get("sha256", "")) for fields in found}
    what = f"{wanted.name} {wanted.version}"
    if len(digests) != 1:
        several = f"{wanted.file} has {what} more than once: say for which architecture"
        raise PolicyError("bad-request", several if digests else f"{wanted.file} has no {what}")
    return found[0]


def _is_it(fields: Mapping[str, str], wanted: FromRepository) -> bool:
    same = (fields.get("package"), fields.get("version")) == (wanted.name, wanted.version)
    return same and wanted.architecture in ("", fields.get("architecture"))


def _paragraphs(path: Path) -> Iterator[Mapping[str, str]]:
    try:
        with _READERS.get(path.suffix, Path.open)(path, "rb") as file:
            yield from map(deb_file.paragraph, _blocks(file))
    except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
        raise PolicyError("bad-request", f"{path} is not a Packages file: {error}") from None


def _blocks(file: IO[bytes]) -> Iterator[str]:
    lines: list[str] = []
    for line in file:
        text = line.decode("utf-8")
        if text.strip():
            lines.append(text)
        elif lines:
            yield "".join(lines)
            lines = []
    if lines:
        yield "".join(lines)


def _list(fields: Mapping[str, str], field: str) -> list[str]:
    return [" ".join(text.split()) for text in fields.get(field, "").split(",") if text.strip()]


def _name(text: str) -> str:
    return text.split("(", maxsplit=1)[0].split(":", maxsplit=1)[0].strip()
