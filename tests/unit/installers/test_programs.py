"""How the system's own tools are run."""

import os
from pathlib import Path

from device_agent.installers.programs import Programs


def test_what_a_tool_makes_others_can_read_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert Programs().run("touch", str(tmp_path / "made"), timeout_s=60).status == 0
    finally:
        os.umask(before)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o644
