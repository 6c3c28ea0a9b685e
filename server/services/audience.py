"""Which devices a deployment is meant for, once all its waves are open."""

from collections.abc import Iterable
from dataclasses import dataclass

from fleet_protocol import limits
from server.domain.rollout import Policy


@dataclass(frozen=True, slots=True)
class Audience:
    """A share of the group and devices by name."""

    share_bp: int
    devices: frozenset[str]

    @classmethod
    def of(cls, policy: Policy) -> "Audience":
        """Everybody whom the policy's waves reach in the end."""
        return cls(policy.waves[-1].share_bp, frozenset(name for wave in policy.waves for name in wave.devices))

    def meets(self, other: "Audience") -> bool:
        """Whether some device may belong to both."""
        if self.share_bp and (other.share_bp or other.devices):
            return True
        return bool((other.share_bp and self.devices) or self.devices & other.devices)

    def covers(self, other: "Audience") -> bool:
        """Whether every device of the other belongs to this one for certain."""
        if self.share_bp == limits.SHARE_BP:
            return True
        return other.share_bp == 0 and other.devices <= self.devices


def meeting(audience: Audience, policies: Iterable[Policy]) -> bool:
    """Whether any of the policies may reach a device of this audience."""
    return any(audience.meets(Audience.of(policy)) for policy in policies)
