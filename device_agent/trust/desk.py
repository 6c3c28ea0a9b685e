"""Where documents are handed in: the steps that assignment, manifest, command and refresh have in common.

1. A document is judged by the keys of the newest root that this device trusts, and by the trusted time: the later
   of the clock and the time floor.
2. A document that no trusted key signed may be the work of newer keys: the root chain is then refreshed and the
   document judged once more. A token bucket bounds how often; without a token, or without an answer from the
   broker, the refusal stands and says when the document may be offered again.
3. The time floor rises with `issued` of verified documents, but never to where the trusted metadata expires: a
   stolen key cannot push a device's time beyond the next timestamp.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from device_agent.adapters.files import read_optional
from device_agent.settings import AgentSettings
from device_agent.trust.allowance import REFILL_S, Allowance
from device_agent.trust.floors import Floors
from device_agent.trust.store import ALLOWANCE, DIRECTORY, TrustStore
from device_agent.trust.trusted_root import TrustedRoot, read_root
from fleet_protocol.envelope import KeySet
from fleet_protocol.errors import ProtocolError, TransportError

if TYPE_CHECKING:
    from device_agent.trust.metadata import VerifiedCatalogue

T = TypeVar("T")
_UNPROVEN = frozenset({"signature", "threshold"})


class UnprovenError(ProtocolError):
    """No trusted key signed, and whether newer keys did could not be found out now."""

    def __init__(self, refusal: ProtocolError, retry_after_s: float) -> None:
        super().__init__(refusal.code, refusal.detail)
        self.retry_after_s = retry_after_s


class Desk:
    """One worker operation's hold on the trust store."""

    def __init__(
        self,
        store: TrustStore,
        settings: AgentSettings,
        want: Callable[[str], bytes | None],
        clock: Callable[[], float] = time.time,
        mono_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.settings = store, settings
        self._want, self._clock = want, clock
        self._allowance = Allowance(settings.state_dir / DIRECTORY / ALLOWANCE, mono_s)

    @property
    def root(self) -> TrustedRoot:
        """The newest root, judged again: what is on disk may come from an older agent."""
        return read_root(self.store.root, self.settings.fleet)

    @property
    def floors(self) -> Floors:
        """The floors that the present deployment keys still hold up."""
        return self.store.floors.under(self.root.role.deployment)

    @property
    def now_s(self) -> float:
        """The trusted time, epoch seconds."""
        return max(self._clock(), float(self.floors.time_s))

    def proven(self, judge: Callable[[KeySet], T]) -> T:
        """`judge`'s verdict on a document under the deployment role, by rule 2."""
        try:
            return judge(self.root.role.deployment)
        except ProtocolError as error:
            if error.code not in _UNPROVEN:
                raise
            self._seek_newer_keys(error)
        return judge(self.root.role.deployment)

    @contextmanager
    def refreshed(self, at_least_s: float = 0.0) -> Iterator["VerifiedCatalogue"]:
        """The catalogue as the broker has it now; `at_least_s` is a time that a verified document has told."""
        from device_agent.trust.metadata import refreshed  # noqa: PLC0415 - half of the import cost of the worker

        now_s = max(self.now_s, min(at_least_s, self.root.expires_s))
        judge = self._judge
        with refreshed(self.store, self._want, self.settings.topics, judge=judge, now_s=now_s) as catalogue:
            yield catalogue

    def raised(self, floors: Floors, issued_s: float, voters: frozenset[str], expires_s: float) -> Floors:
        """Rule 3. `expires_s` is when the first of the trusted metadata expires."""
        return floors.with_time(int(min(issued_s, expires_s - 1)), voters)

    def save(self, floors: Floors) -> None:
        """Persist floors that were derived from `self.floors`; what names the metadata stays the store's."""
        mine = self.store.floors
        self.store.save(replace(floors, anchor=mine.anchor, generation=mine.generation, files=mine.files))

    def _judge(self, root: bytes) -> TrustedRoot:
        return read_root(root, self.settings.fleet)

    def _seek_newer_keys(self, refusal: ProtocolError) -> None:
        """Return where the root is newer than before; raise the refusal otherwise."""
        if not self._allowance.take():
            raise UnprovenError(refusal, REFILL_S) from refusal
        before = self.root.version
        try:
            with self.refreshed():
                pass
        except TransportError as error:
            if self.root.version == before:
                raise UnprovenError(refusal, error.retry_after_s or REFILL_S) from error
        except ProtocolError as error:
            if self.root.version == before:
                raise refusal from error
        if self.root.version == before:
            raise refusal


def read_document(path: str, most: int) -> bytes:
    """A spooled document; one over `most` bytes is ProtocolError `size`, and is not read."""
    try:
        data = read_optional(Path(path), most)
    except OSError as error:
        if error.errno is not None and Path(path).exists() and Path(path).stat().st_size > most:
            raise ProtocolError("size", f"over {most} bytes") from error
        raise
    return b"" if data is None else data
