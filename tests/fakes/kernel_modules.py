"""The test driver, built for the emulated device's kernel, kept until its source changes."""

import os
from pathlib import Path

from tests.fakes import lab_cache
from tests.fakes.vm_image import base_image

_SOURCE = Path(__file__).parents[1] / "device" / "driver"


def kernel_modules() -> Path:
    """A folder for each build with `<kernel>/fairlead_demo.ko` in it: one and two are good, the others are not."""
    base = base_image()

    def build(place: Path) -> None:
        headers = base / "headers/usr/src" / f"linux-headers-{(base / 'kernel').read_text().strip()}"
        environment = {**os.environ, "ARCH": "arm64", "CROSS_COMPILE": "aarch64-linux-gnu-"}
        lab_cache.build_with(
            [str(_SOURCE / "build.sh"), str(headers), str(place)], place / "build.log", env=environment
        )

    return lab_cache.cached("modules", lab_cache.digest([_SOURCE, base.name]), build)


def tree_of(name: str) -> dict[str, bytes]:
    """The content of a release of that build."""
    folder = kernel_modules() / name
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.ko")}
