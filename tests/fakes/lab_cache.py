"""What device tests build once and keep: folders, each named by a digest of what it was made of.

They lie in $FAIRLEAD_LAB, or in ~/.cache/fairlead-lab, and may be deleted at any time when no test runs.
"""

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_KEPT = 4
"""Of each kind, so that two checkouts do not build against each other for ever."""


def folder() -> Path:
    """The cache itself."""
    given = os.environ.get("FAIRLEAD_LAB")
    path = Path(given) if given else Path.home() / ".cache" / "fairlead-lab"
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(parts: Iterable[bytes | str | Path]) -> str:
    """A short name for these texts and files; a folder stands for all files below it."""
    whole = hashlib.sha256()
    for part in parts:
        for data in _contents(part):
            whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:16]


def cached(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder of that kind and key. `build` gets an empty folder to fill where it is not there yet."""
    place = folder() / f"{kind}-{key}"
    with _locked(folder() / f"{kind}.lock"):
        if not place.exists():
            part = folder() / f"{kind}-{key}.part"
            _remove(part)
            part.mkdir()
            build(part)
            part.replace(place)
        os.utime(place)
        _forget_old(kind)
    return place


def build_with(argv: list[str], log: Path, **options: object) -> None:
    """Run a builder; the end of its log is the message where it fails."""
    with log.open("ab") as out:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{argv[0]} failed:\n" + log.read_text(errors="replace")[-3_000:]


def _contents(part: bytes | str | Path) -> Iterator[bytes]:
    if isinstance(part, Path) and part.is_dir():
        for path in sorted(part.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(part)).encode()
                yield path.read_bytes()
    elif isinstance(part, Path):
        yield part.read_bytes()
    else:
        yield part.encode() if isinstance(part, str) else part


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _forget_old(kind: str) -> None:
    there = [path for path in folder().glob(f"{kind}-*") if path.is_dir() and path.suffix != ".part"]
    for path in sorted(there, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        _remove(path)


def _remove(path: Path) -> None:
    """Gone, but for what a builder that was killed may have mounted in it."""
    subprocess.run(["rm", "-rf", "--one-file-system", str(path)], check=False, capture_output=True)
