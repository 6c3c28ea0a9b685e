"""docs/errors.md is what the code says."""

import subprocess
import sys
from pathlib import Path

import pytest

from fleet_protocol.errors import CODES
from server.api.errors import status_of_code

ROOT = Path(__file__).parents[3]


def test_the_document_is_drawn_from_the_codes() -> None:
    command = [sys.executable, str(ROOT / "docs" / "draw_errors.py"), "--check"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_has_a_status_that_blames_the_right_side(code: str) -> None:
    status = status_of_code(code)
    assert 400 <= status < 600
    ours = code in ("database", "internal", "no-space", "offline")
    assert (status >= 500) == (ours or CODES[code].fault == "transport")
