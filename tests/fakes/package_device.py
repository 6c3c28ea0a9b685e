"""The installers on a real Debian, and what dpkg says there."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from device_agent.operations import Operation
from tests.fakes.install_shell import KilledError
from tests.fakes.unit_device import UnitDevice


@dataclass
class PackageDevice(UnitDevice):
    """A device whose power may also be cut by somebody else while an operation runs; that one says so first."""

    cut: bool = False

    def put(self, data: bytes, remote: str) -> None:
        """A file of the device."""
        self._put(data, remote)

    def run_op(self, asked: Operation) -> dict[str, object]:
        """For an InstallShell."""
        try:
            return super().run_op(asked)
        except AssertionError:
            if not self.cut:
                raise
            self.cut = False
            self.killed += 1
            raise KilledError from None

    def packages(self, *names: str) -> Mapping[str, str]:
        """State and version by name."""
        form = shlex.quote("${Package} ${db:Status-Abbrev} ${Version}\\n")
        _, out, _ = self.container.run(f"dpkg-query --show --showformat={form} {' '.join(names)}")
        return {line.split(" ")[0]: line.partition(" ")[2] for line in out.splitlines()}

    @property
    def left_over(self) -> list[str]:
        """What an ended attempt must not leave."""
        found = "find backup cache slots/*/*.debs/*/back -type f 2>/dev/null || true"
        return [name for name in self.sh(f"cd {self.state} && {found}").split() if not name.endswith("mirrors.json")]
