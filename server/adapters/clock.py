"""The machine's wall clock."""

import time


class SystemClock:
    """A `Clock` that reads the machine's time; it may step when the machine's time is set."""

    def now_s(self) -> float:
        """Epoch seconds, UTC."""
        return time.time()
