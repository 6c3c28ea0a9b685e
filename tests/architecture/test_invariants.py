"""Every invariant and every rule of the two kernels is cited by a test, by its number."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = "\n".join(
    path.read_text("utf-8") for path in sorted((ROOT / "tests").rglob("*.py")) if path.name != Path(__file__).name
)
INVARIANTS = re.findall(r"^\| ([DSK]\d+) \|", (ROOT / "docs/invariants.md").read_text("utf-8"), re.MULTILINE)


def rules(module: str) -> list[str]:
    return re.findall(r"^([A-Z]\d+)\. ", (ROOT / module).read_text("utf-8"), re.MULTILINE)


def test_there_are_invariants() -> None:
    assert {"D1", "D13", "S1", "S6", "K1", "K4"} <= set(INVARIANTS)


@pytest.mark.parametrize("number", INVARIANTS)
def test_an_invariant_is_cited(number: str) -> None:
    assert re.search(rf"\b[Ii]nvariants? [^\n]*\b{number}\b", TESTS), f"no test speaks of invariant {number}"


@pytest.mark.parametrize("number", [*rules("device_agent/core/machine.py"), *rules("server/domain/engine.py")])
def test_a_rule_is_cited(number: str) -> None:
    assert re.search(rf"\b{number}\b|def test_{number.lower()}_", TESTS), f"no test cites rule {number}"
