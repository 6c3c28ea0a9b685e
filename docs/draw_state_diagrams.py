"""Draws the two state diagrams from the tables that the code runs on: `python docs/draw_state_diagrams.py`.

A test compares the committed files with what this draws, so that no diagram can tell an old story.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from device_agent.core.machine import TRANSITIONS as DEVICE
from device_agent.core.resume import RESUME
from server.domain.verbs import TRANSITIONS as ROLLOUT

DOCS = Path(__file__).parent
_ALWAYS = frozenset({"Started"})
"""Events that a start of the agent brings; drawn from RESUME instead."""


def device() -> str:
    """The device's stages: which event may lead from where to where."""
    edges: dict[tuple[str, str], set[str]] = defaultdict(set)
    for stage, row in DEVICE.items():
        for event, rule in row.items():
            for target in rule.to - {stage}:
                if event.__name__ not in _ALWAYS:
                    edges[stage, target].add(event.__name__)
    lines = [f"    {here} --> {there}: {', '.join(sorted(events))}" for (here, there), events in sorted(edges.items())]
    resumed = [f"    note right of {stage}: at a start, {row.text}" for stage, row in sorted(RESUME.items())]
    return "\n".join(["stateDiagram-v2", "    [*] --> idle", *lines, *resumed, ""])


def rollout() -> str:
    """The rollout's states: which verb or decision leads from where to where."""
    edges: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (state, verb), target in ROLLOUT.items():
        edges[state.value, target.value].append(verb.value)
    lines = [f"    {here} --> {there}: {', '.join(sorted(verbs))}" for (here, there), verbs in sorted(edges.items())]
    return "\n".join(["stateDiagram-v2", "    [*] --> active", *lines, "    recalled --> [*]", ""])


def drawings() -> Mapping[str, str]:
    """Every diagram by its file name."""
    return {"state-device.mmd": device(), "state-rollout.mmd": rollout()}


if __name__ == "__main__":
    for name, text in drawings().items():
        (DOCS / name).write_text(text, encoding="utf-8")
