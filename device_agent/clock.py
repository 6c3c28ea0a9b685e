"""Time and luck for the loop."""

import random
import time

from device_agent.core.events import Moment


class Clock:
    """The real one; tests have their own."""

    def mono_s(self) -> float:
        """Monotonic seconds of this boot."""
        return time.monotonic()

    def wall_s(self) -> float:
        """Epoch seconds."""
        return time.time()

    def moment(self) -> Moment:
        """Now, with a fresh piece of luck."""
        return Moment(wall_s=self.wall_s(), mono_s=self.mono_s(), luck=random.random())  # noqa: S311 - jitter only
