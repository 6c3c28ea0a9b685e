"""What a driver's part of a slot holds: `<kernel>/<module>.ko` for each kernel that it was built for."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

from device_agent.adapters.files import read_optional
from fleet_protocol.errors import InstallError, ProtocolError
from fleet_protocol.module_file import FILE_SIZE, ModuleFile, read_module

_MODULE: Final = re.compile(r"[a-z0-9_]{1,55}")
"""As `fleet_protocol.install.Driver` has it: what has another name is no module of ours."""


class DriverContent:
    """One part's directory in one slot."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def modules(self, releases: Collection[str]) -> frozenset[str]:
        """The names of its modules for these kernel releases."""
        files = (path for release in releases for path in (self._path / release).glob("*.ko"))
        return frozenset(path.stem for path in files if _MODULE.fullmatch(path.stem))

    def has(self, release: str, module: str) -> bool:
        """Whether it holds this module for this kernel."""
        return self._file(release, module).is_file()

    def data(self, release: str, module: str) -> bytes:
        """The module's file. Raises InstallError `kernel` where there is none."""
        data = read_optional(self._file(release, module), FILE_SIZE)
        if data is None:
            raise InstallError("kernel", f"the release holds no {release}/{module}.ko")
        return data

    def read(self, release: str, module: str) -> ModuleFile:
        """What the module's file says; it is this module, for this kernel. Raises InstallError `kernel`."""
        where = f"{release}/{module}.ko"
        try:
            found = read_module(self.data(release, module))
        except ProtocolError as error:
            raise InstallError("kernel", f"{where}: {error.detail}") from None
        if found.name != module:
            raise InstallError("kernel", f"{where} is the module {found.name}")
        if found.kernel != release:
            raise InstallError("kernel", f"{where} is built for kernel {found.kernel}")
        if found.srcversion is None and found.version is None and found.build_id is None:
            raise InstallError("kernel", f"{where} has no version, no srcversion and no build id to know it by")
        return found

    def _file(self, release: str, module: str) -> Path:
        return self._path / release / f"{module}.ko"
