"""The glossary has every word of the design and every value of the code, once."""

import re
from pathlib import Path
from typing import get_args

import pytest

from fleet_protocol.catalogue import KINDS
from fleet_protocol.manifest import DeploymentState
from fleet_protocol.messages import OUTCOMES, STAGES, Verdict
from server.domain.rollout import RolloutState

TEXT = (Path(__file__).parents[3] / "docs" / "glossary.md").read_text("utf-8")
DESIGN = {
    *("artifact", "release", "catalogue", "counter", "group", "deployment", "manifest", "rollout", "wave", "attempt"),
    *("stage", "outcome", "slot", "position", "standing", "probation", "commit", "rollback", "recall", "replay"),
    *("freeze", "heartbeat", "telemetry", "health", "report", "verdict", "decision", "effect"),
}
SECTIONS = {
    "Stages of an attempt": STAGES,
    "Outcomes of an attempt": OUTCOMES,
    "States of a deployment in a manifest": get_args(DeploymentState),
    "States of a rollout": tuple(state.value for state in RolloutState),
    "Kinds of release": KINDS,
    "Verdicts": get_args(Verdict),
}


def rows(section: str) -> list[tuple[str, str]]:
    """First and second column of the table below a heading; the first table for an empty heading."""
    text = TEXT.partition(f"## {section}\n")[2] if section else TEXT
    table = text.partition("\n## ")[0]
    found = re.findall(r"^\| (.+?) \| (.+) \|$", table, re.MULTILINE)
    return [(name, meaning) for name, meaning in found if not name.startswith("---")][1:]


def test_every_word_of_the_design_is_there_once() -> None:
    words = [name for name, _ in rows("")]
    assert len(words) == len(set(words))
    assert set(words) >= DESIGN


@pytest.mark.parametrize("section", SECTIONS)
def test_a_table_has_exactly_the_values_of_the_code(section: str) -> None:
    assert [name.strip("`") for name, _ in rows(section)] == list(SECTIONS[section])


def test_every_entry_means_something() -> None:
    for section in ("", *SECTIONS):
        assert all(len(meaning) > 5 for _, meaning in rows(section))
