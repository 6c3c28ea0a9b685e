"""What a user copies to a device: the folder that `./setup.sh wheels` makes of this checkout, kept until it changes."""

import shutil
from pathlib import Path

from tests.fakes import lab_cache

ROOT = Path(__file__).parents[2]
_MADE_OF = ("device_agent", "fleet_protocol", "deploy/install-agent.sh", "pyproject.toml", "requirements-agent.lock")


def agent_wheels(machine: str, python: str) -> Path:
    """The folder for devices of that machine (`uname -m`) with that Python (`3.11`)."""
    key = lab_cache.digest([*(ROOT / name for name in _MADE_OF), machine, python])
    kind = f"wheels_{machine}"

    def build(place: Path) -> None:
        for older in lab_cache.folder().glob(f"{kind}-*/*.whl"):
            if older.parent != place and not older.name.startswith("fairlead-"):
                shutil.copy2(older, place)
        argv = ["bash", str(ROOT / "setup.sh"), "wheels", str(place), "--machine", machine, "--python", python]
        lab_cache.build_with(argv, place / "build.log", cwd=ROOT)

    return lab_cache.cached(kind, key, build)
