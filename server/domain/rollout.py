"""A rollout: how one deployment advances through a group, and by which rules."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from fleet_protocol import limits
from fleet_protocol.errors import PolicyError

FailureAction = Literal["recall", "hold"]
DEFAULT_SHARES: Final = (500, 2_500, 10_000)
"""Of the waves, in basis points, where an operator names none."""


class RolloutState(StrEnum):
    """Where a rollout is. RECALLED and COMPLETE are final."""

    ACTIVE = "active"
    HELD = "held"
    RECALLED = "recalled"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """One ordered share of a rollout, cumulative: 2,500 means the first quarter of the group."""

    share_bp: int
    devices: tuple[str, ...] = ()
    """Devices that take part from this wave on, by name."""

    def __post_init__(self) -> None:
        if not 0 <= self.share_bp <= limits.SHARE_BP:
            raise PolicyError("bad-request", "a wave's share lies between 0 and 100 %")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The evidence that opens a wave, and the limits that stop a rollout."""

    waves: tuple[Wave, ...]
    soak_s: float
    """How long a wave must have been open before the next may open."""
    failure_limit: int
    """More failed devices than this, in all waves together, stop the rollout; 0 tolerates none."""
    failure_rate: float
    """A share of the finished devices, 0 to 1: failures above it and beyond `failure_limit` stop the rollout."""
    silence_s: float
    """A device not heard of for this long, after it was told, counts as silent."""
    silence_limit: int
    """More silent devices in the open waves than this, beyond what the control arm shows, hold the rollout."""
    on_failure: FailureAction
    probation_s: int
    success_rate: float = 0.8
    """The share of a wave's devices, 0 to 1, that must have committed before the next wave opens; at least one must."""
    until_s: float | None = None
    """From this moment (epoch seconds) no device begins any more; None means that there is no such moment."""
    irreversible: bool = False
    """Whether devices may begin that could not go back."""

    def __post_init__(self) -> None:
        shares = [wave.share_bp for wave in self.waves]
        if not shares or shares != sorted(shares):
            raise PolicyError("bad-request", "a rollout needs waves, each at least as wide as the one before")
        if min(self.soak_s, self.silence_s, self.failure_limit, self.silence_limit, self.probation_s) < 0:
            raise PolicyError("bad-request", "the limits of a rollout are not negative")
        if not 0 <= self.failure_rate <= 1:
            raise PolicyError("bad-request", "failure_rate lies between 0 and 1")
        if not 0 <= self.success_rate <= 1:
            raise PolicyError("bad-request", "success_rate lies between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One deployment's advance. `wave` is the index of the newest open wave; -1 before the first."""

    id: str
    """The update job's id, which is also the deployment's id."""
    group: str
    package: str
    version: str
    counter: int
    policy: Policy
    state: RolloutState = RolloutState.ACTIVE
    wave: int = -1
    shares: tuple[int, ...] = ()
    """By wave, the share in basis points with which it was opened; a wave that is not here has its policy's."""
    wave_opened_s: float | None = None
    advance: bool = False
    """An operator asked to open the next wave without waiting for the evidence."""
    reason: str = ""
    """Why the rollout is held or was recalled."""
    excused_failures: int = 0
    """Failed devices that an operator knew of when resuming."""
    excused_silent: int = 0
    """Silent devices that an operator knew of when resuming."""

    def has_expired(self, now_s: float) -> bool:
        """Whether no device begins any more, whatever else the rollout's state allows."""
        return self.policy.until_s is not None and now_s >= self.policy.until_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Counts over one set of comparable devices. One device, one vote."""

    devices: int = 0
    committed: int = 0
    failed: int = 0
    """Rolled back, failed or refused, by the devices' own signed reports."""
    silent: int = 0
    """Not finished and not heard of for `silence_s` since the arm's newest wave opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureSeen:
    """One device's reason, for people."""

    device: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """The evidence for one rollout at one moment."""

    of_wave: int
    """The index of the newest open wave when this was counted; evidence of another wave opens nothing."""
    wave: Arm
    """Devices that the newest open wave added."""
    treated: Arm
    """Devices of all open waves together."""
    control: Arm
    """Devices of the group that are not selected yet."""
    lowest_left: int | None = None
    """The lowest bucket in the control arm; None where nobody is left."""
    next_named: int = 0
    """How many devices of the control arm the next wave names."""
    failures: tuple[FailureSeen, ...] = ()
    """A few of the newest failures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWave:
    """Open the wave with this index, with this share of the group in basis points."""

    index: int
    share_bp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """No new attempts until an operator resumes."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Order every device back to the fallback."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """The last wave has passed. Late devices still get the release."""


Decision = OpenWave | Hold | Recall | Complete
