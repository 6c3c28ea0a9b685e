"""The trust store on disk: `trust/floors.json` and the metadata directory that it names.

1. Nothing counts but what the floor file names, by digest. A store without a readable floor file, or whose
   metadata is gone or altered, is `untrusted` until a person lays down a root again.
2. New metadata is written beside the old, fsynced, and counts from the moment the floor file that names it is
   renamed into place. A power cut leaves the old store or the new one.
3. One process at a time, by a lock that ends with the process.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from device_agent.adapters.files import fsync_dir, make_dir, read_optional, write_atomic
from device_agent.adapters.foreign_folder import open_own, remove_entry
from device_agent.trust.floors import FILE_SIZE, Floors, decode, encode
from fleet_protocol import limits
from fleet_protocol.errors import PolicyError, ProtocolError

ROOT_FILE: Final = "root.json"
DIRECTORY: Final = "trust"
ALLOWANCE: Final = "allowance.json"
"""Not the store's, but kept beside it."""
_FLOORS: Final = "floors.json"
_LOCK: Final = "lock"
_WORK: Final = "work"
_METADATA_SIZE: Final = limits.TARGETS_SIZE


class TrustStore:
    """An intact trust store, locked. `floors` is what is on disk."""

    def __init__(self, directory: Path, floors: Floors) -> None:
        self._directory = directory
        self.floors = floors

    @classmethod
    @contextmanager
    def opened(cls, state_dir: Path) -> Iterator["TrustStore"]:
        """Lock and check the store below `state_dir`; raises ProtocolError `untrusted`."""
        directory = state_dir / DIRECTORY
        if not directory.is_dir():
            raise ProtocolError("untrusted", "there is no trust store; lay down a root with `fairlead-agent init`")
        with _locked(directory):
            store = cls(directory, _load(directory))
            store._check()
            store._sweep()
            yield store

    def read(self, name: str) -> bytes | None:
        """A metadata file of the store, or None where it holds none; raises ProtocolError `untrusted`."""
        wanted = self.floors.files.get(name)
        if wanted is None:
            return None
        data = read_optional(self._metadata(self.floors.generation) / name, _METADATA_SIZE)
        if data is None or hashlib.sha256(data).hexdigest() != wanted:
            raise ProtocolError("untrusted", f"the trust store's {name} is missing or altered")
        return data

    @property
    def root(self) -> bytes:
        """The newest root that this device trusts."""
        data = self.read(ROOT_FILE)
        if data is None:
            raise ProtocolError("untrusted", "the trust store has no root")
        return data

    def save(self, floors: Floors) -> None:
        """Return only when these floors would survive a power cut. Equal floors cost nothing."""
        if floors != self.floors:
            write_atomic(self._directory / _FLOORS, encode(floors))
            self.floors = floors

    @contextmanager
    def copied(self) -> Iterator[Path]:
        """A scratch directory with a copy of the metadata; gone when the block ends."""
        work = self._directory / _WORK
        remove_entry(work)
        work.mkdir(0o700)
        try:
            for name in self.floors.files:
                (work / name).write_bytes(self.read(name) or b"")
            yield work
        finally:
            remove_entry(work)

    def adopt(self, files: Mapping[str, bytes], floors: Floors) -> None:
        """Rule 2: these metadata files and these floors replace what the store held."""
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        before = self.floors
        if digests == before.files:
            self.save(replace(floors, generation=before.generation, files=digests))
            return
        generation = before.generation + 1
        new = self._metadata(generation)
        remove_entry(new)
        new.mkdir(0o700)
        for name, data in files.items():
            if before.files.get(name) == digests[name]:
                os.link(self._metadata(before.generation) / name, new / name)
            else:
                write_atomic(new / name, data)
        fsync_dir(new)
        fsync_dir(self._directory)
        self.save(replace(floors, generation=generation, files=digests))
        remove_entry(self._metadata(before.generation))

    def _metadata(self, generation: int) -> Path:
        return self._directory / f"metadata-{generation}"

    def _check(self) -> None:
        for name in {ROOT_FILE, *self.floors.files}:
            if "/" in name or self.read(name) is None:
                raise ProtocolError("untrusted", f"the trust store has no {name}")

    def _sweep(self) -> None:
        """Remove what a power cut left behind, or anybody else."""
        kept = {_FLOORS, _LOCK, ALLOWANCE, self._metadata(self.floors.generation).name}
        for path in self._directory.iterdir():
            if path.name not in kept:
                remove_entry(path)


def initialise(state_dir: Path, root: bytes, *, replace_store: bool = False) -> bool:
    """Make a trust store that begins with this root, which the caller has judged. False where it stands already.

    Raises PolicyError `conflict` where a store with another first root stands, ProtocolError `untrusted` where
    the one that stands is torn. `replace_store` is a person's decision to begin again in either case.
    """
    directory = state_dir / DIRECTORY
    make_dir(directory)
    digest = hashlib.sha256(root).hexdigest()
    with _locked(directory):
        begun = (directory / _FLOORS).exists() or any(directory.glob("metadata-*"))
        if begun and not replace_store:
            if _load(directory).anchor != digest:
                raise PolicyError("conflict", f"{directory} trusts another first root")
            return False
        for path in directory.glob("metadata-*"):
            remove_entry(path)
        metadata = directory / "metadata-1"
        try:
            metadata.mkdir(0o700)
            write_atomic(metadata / ROOT_FILE, root)
            fsync_dir(directory)
            write_atomic(directory / _FLOORS, encode(Floors(anchor=digest, files={ROOT_FILE: digest})))
        except OSError:
            if not (directory / _FLOORS).exists():
                remove_entry(metadata)  # nobody has trusted it yet, so that the next try finds nothing torn
            raise
    return True


def _load(directory: Path) -> Floors:
    try:
        data = read_optional(directory / _FLOORS, FILE_SIZE)
    except OSError as error:
        if error.errno not in (errno.EOVERFLOW, errno.EINVAL):
            raise
        data = b""
    if data is None:
        raise ProtocolError("untrusted", "the floor file is missing")
    return decode(data)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Rule 3. Waits for whoever holds the lock: an operation is bounded in time."""
    descriptor = open_own(directory / _LOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
