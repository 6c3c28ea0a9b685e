"""A fleet, a tree and an artifact, made with the real tools."""

from collections.abc import Callable
from pathlib import Path

import pytest

from firmware_tools import ceremony, packing
from firmware_tools.fleet import Fleet
from firmware_tools.packing import ReleaseSpec

NOW_S = 1_800_000_000.0


@pytest.fixture
def now_s() -> float:
    return NOW_S


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return ceremony.init(tmp_path / "fleet", fleet="acme", now_s=NOW_S)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "bin").mkdir(parents=True)
    program = root / "bin" / "serve"
    program.write_text("#!/bin/sh\nexec sleep 1\n")
    program.chmod(0o755)
    (root / "data.txt").write_text("hello\n")
    return root


@pytest.fixture
def make_artifact(tree: Path, tmp_path: Path) -> Callable[..., Path]:
    """Pack the tree, with any field of the specification replaced."""

    def make(out: str = "release.tar.zst", **changes: object) -> Path:
        fields: dict[str, object] = {
            "package": "my-service",
            "version": "1.2.0",
            "counter": 12,
            "kind": "service",
            "classes": ("x86_64",),
            "exec": ("bin/serve",),
        }
        path = tmp_path / out
        packing.pack(tree, path, ReleaseSpec(**(fields | changes)), level=3)  # type: ignore[arg-type]
        return path

    return make
