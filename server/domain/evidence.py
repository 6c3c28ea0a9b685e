"""What one device's signed word about an attempt is worth as evidence for or against a release.

Rules, cited by number in the tests and in `docs/invariants.md`:

V1. It has committed when it said so of the rollout's own version; a recalled device that committed its fallback has
    not.
V2. It has failed when it rolled back, failed or refused by itself.
V3. It was withdrawn when somebody ordered it back and it went: `rolled_back` or `abandoned`, under no code or under
    `withdrawn`. That is no vote against the release, for nothing failed; and none for it, for the device runs it no
    more. Its silence says nothing about the release either. A device that fails on its way says so under another code.
V4. Everything else is no word yet: an attempt in progress, and one that a hold or a newer plan abandoned.
"""

from typing import Final, Literal

from fleet_protocol.messages import Outcome

Word = Literal["committed", "failed", "withdrawn"]
_FAILURES: Final = frozenset({"rolled_back", "failed", "refused"})
_RETURNS: Final = frozenset({("rolled_back", None), ("rolled_back", "withdrawn"), ("abandoned", "withdrawn")})


def word(outcome: Outcome | None, code: str | None, *, version: str, wanted: str) -> Word | None:
    """What a device's newest report says, by rules V1 to V4; `wanted` is the rollout's version."""
    if (outcome, code) in _RETURNS:
        return "withdrawn"
    if outcome == "committed":
        return "committed" if version == wanted else None
    return "failed" if outcome in _FAILURES else None
