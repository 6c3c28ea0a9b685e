"""What keeps failing: every duty of a periodic loop runs under a guard, so that none of them ends the loop.

Each new complaint is one log line, not one a round, and stands in GET /health until the duty succeeds.
"""

import threading
from collections.abc import Callable, Collection

from loguru import logger

from fleet_protocol.errors import FleetError


class Complaints:
    """Complaints by subject; any thread may guard and ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: dict[str, str] = {}

    def guard(self, subject: str, act: Callable[[], object]) -> None:
        """Act, and remember why it failed if it did; never raises an Exception."""
        try:
            act()
        except FleetError as error:
            self._complain(subject, str(error), None)
        except Exception as error:  # noqa: BLE001 - a defect in one duty must not end the others
            self._complain(subject, f"defect: {error!r}", error)
        else:
            with self._lock:
                self._texts.pop(subject, None)

    def keep(self, kind: str, subjects: Collection[str]) -> None:
        """Forget the complaints about every other subject whose name begins with `kind`: nobody will try them again."""
        with self._lock:
            gone = [name for name in self._texts if name.startswith(kind) and name not in subjects]
            for name in gone:
                del self._texts[name]

    def problems(self) -> list[str]:
        """One line for each subject."""
        with self._lock:
            return [f"{subject}: {text}" for subject, text in sorted(self._texts.items())]

    def _complain(self, subject: str, text: str, defect: Exception | None) -> None:
        with self._lock:
            known, self._texts[subject] = self._texts.get(subject), text
        if known != text:
            logger.opt(exception=defect).error("{}: {}; tried again every round", subject, text)
