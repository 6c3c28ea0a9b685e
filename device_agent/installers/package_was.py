"""How Debian packages were before an attempt: what the way back restores."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from device_agent.core.codec import from_json, to_json
from device_agent.installers.debian_control import Control
from device_agent.installers.debian_world import together
from device_agent.installers.dpkg import Entry

Role = Literal["release", "dependency", "leaving"]
"""Named by the release, needed by what it names, or brought by a release before and not named any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Was:
    """One package. `version` is None where it was not installed."""

    name: str
    architecture: str
    role: Role
    version: str | None = None
    config_files: bool = False
    """It was not installed, but its configuration was still there."""
    whole: bool = True
    """It was configured; otherwise nobody can ask for more than that it is there again."""
    want: str = ""
    automatic: bool = False
    deb: str | None = None
    """The .deb that brings it back, relative to the state directory."""
    sha256: str = ""
    coming: str | None = None
    """The .deb that takes its place."""
    coming_sha256: str = ""

    @property
    def spec(self) -> str:
        """As dpkg's tools take it."""
        return f"{self.name}:{self.architecture}"

    @property
    def lost(self) -> bool:
        """There is no way back to what was installed."""
        return self.version is not None and self.deb is None

    def is_so(self, entries: Iterable[Entry]) -> bool:
        """Whether the package is now as it was."""
        now = at(entries, self.name, self.architecture)
        if self.version is not None:
            same = now is not None and now.present and now.control.version == self.version
            return same and now is not None and (now.whole or not self.whole)
        if now is None or now.status == "not-installed":
            return True
        return self.config_files and now.status == "config-files"


def to_facts(was: Iterable[Was]) -> Mapping[str, Any]:
    """For a backup's note."""
    return {"packages": [to_json(one) for one in was]}


def from_facts(facts: Mapping[str, Any]) -> tuple[Was, ...]:
    """What `to_facts` wrote."""
    return tuple(from_json(Was, row) for row in facts["packages"])


def at(entries: Iterable[Entry], name: str, architecture: str) -> Entry | None:
    """The entry of exactly this name and architecture."""
    return next((e for e in entries if (e.control.name, e.control.architecture) == (name, architecture)), None)


def instance(entries: Iterable[Entry], control: Control) -> Entry | None:
    """The entry that an installation of `control` would replace: that of its architecture, or the only other one."""
    exact = at(entries, control.name, control.architecture)
    if exact is not None and exact.present:
        return exact
    others = (entry for entry in entries if entry.control.name == control.name and entry.present)
    return next((entry for entry in others if not together(entry.control, control)), exact)
