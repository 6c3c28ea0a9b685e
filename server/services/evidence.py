"""Evidence for one rollout, counted over the devices whose hardware the release fits; safe in several threads."""

import threading

from server.domain.rollout import Observations, Rollout
from server.ports import Reads
from server.services.catalogue import Catalogue
from server.services.observing import Observer


class Evidence:
    """One Observer behind a lock, with the hardware classes that the catalogue names."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._observer = Observer()
        self._lock = threading.Lock()

    def observe(self, work: Reads, rollout: Rollout, now_s: float) -> Observations:
        """See server.services.observing.Observer; a release that has left the catalogue counts every device."""
        contents = self._catalogue.contents
        release = None if contents is None else contents.release(rollout.package, rollout.version)
        with self._lock:
            return self._observer.observe(work, rollout, now_s, None if release is None else release.classes)
