"""Follows one rollout and tells each change once."""

from collections.abc import Callable, Mapping
from typing import Any

from server.cli.demo.narrator import Narrator

FINAL_STATES = frozenset({"complete", "recalled", "held"})


class Follower:
    """Turns snapshots of a job and its devices into lines of the story."""

    def __init__(self, narrator: Narrator) -> None:
        self._narrator = narrator
        self._told: dict[str, object] = {}

    def job(self, job: Mapping[str, Any]) -> None:
        """Tell a wave that opened and an end that came."""
        wave, waves = int(job["wave"]), len(job["waves"])
        if wave >= 0 and self._news("wave", wave):
            counts = job["counts"]
            evidence = "" if wave == 0 else f": {counts['committed']} committed so far, nothing failed"
            self._narrator.say(f"server  wave {wave + 1} of {waves} opens{evidence}")
        if job["state"] != "active" and self._news("state", job["state"]):
            reason = f": {job['reason']}" if job["reason"] else ""
            self._narrator.say(f"server  the rollout is {job['state']}{reason}")

    def node(self, node: Mapping[str, Any], job_id: str) -> None:
        """Tell a device's stage, and how its attempt at the job ended."""
        attempt = next((a for a in node["attempts"] if a["deployment"] == job_id), None)
        if attempt is None:
            return
        key = (attempt["number"], attempt["stage"], attempt["outcome"])
        if not self._news(node["id"], key):
            return
        if attempt["outcome"] is None:
            self._narrator.say(f"{node['id']}  {attempt['stage'].replace('_', ' ')} {attempt['version']}")
            return
        why = f": {attempt['code']} ({attempt['detail']})" if attempt["code"] else ""
        self._narrator.say(f"{node['id']}  {attempt['outcome'].replace('_', ' ')} {attempt['version']}{why}")

    def _news(self, key: str, value: object) -> bool:
        if self._told.get(key) == value:
            return False
        self._told[key] = value
        return True


def until(condition: Callable[[], bool], *, pause: Callable[[], None], expired: Callable[[], bool]) -> bool:
    """Ask until the condition holds (True) or the time has run out (False)."""
    while not condition():
        if expired():
            return False
        pause()
    return True
