"""The configuration files that dpkg watches, and what it may leave beside them (deb-conffiles(5))."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from device_agent.installers.dpkg import Dpkg

_BESIDE: Final = (".dpkg-new", ".dpkg-tmp", ".dpkg-old", ".dpkg-dist")
_LINKS_MOST: Final = 25


def watched(root: Path, dpkg: Dpkg, specs: Iterable[str], debs: Iterable[Path]) -> list[str]:
    """Every path that an installation of `debs` in place of `specs` may change as a configuration file."""
    paths = [path for spec in specs for path in dpkg.conffiles(spec)]
    paths += [path for deb in debs for path in dpkg.conffiles_of(deb)]
    found = (one for path in dict.fromkeys(paths) for one in _with_target(root, path))
    return [one for path in dict.fromkeys(found) for one in (path, *beside(root, path))]


def beside(root: Path, path: str) -> Iterator[str]:
    """What dpkg, or somebody before it, left beside a configuration file."""
    return (path + end for end in _BESIDE if os.path.lexists(_place(root, path + end)))


def _with_target(root: Path, path: str) -> Iterator[str]:
    """dpkg follows a link that the owner put there, and changes what it leads to."""
    for _ in range(_LINKS_MOST):
        yield path
        place = _place(root, path)
        if not place.is_symlink():
            return
        text = str(place.readlink())
        path = os.path.normpath(text if text.startswith("/") else f"{path.rpartition('/')[0]}/{text}")


def _place(root: Path, path: str) -> Path:
    return root / path[1:]
