"""Every folder below the state directory has an owner in the table that gives them away."""

import re
from pathlib import Path

from device_agent.adapters.state_folders import FOLDERS
from device_agent.trust.store import DIRECTORY

ROOT = Path(__file__).parents[2]


def test_the_table_has_every_folder_that_the_code_makes() -> None:
    code = [path.read_text("utf-8") for path in (ROOT / "device_agent").rglob("*.py")]
    named = {name for text in code for name in re.findall(r'state_dir / "([a-z]+)"', text)}
    assert named | {DIRECTORY} == FOLDERS.keys()


def test_the_guide_says_whose_each_folder_is() -> None:
    guide = (ROOT / "docs" / "security.md").read_text("utf-8")
    rows = [line for line in guide.splitlines() if line.startswith("| `") and "/`" in line]
    told = {name for row in rows for name in re.findall(r"`([a-z]+)/`", row.split("|")[1])}
    assert told == FOLDERS.keys()
