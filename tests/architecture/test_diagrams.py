"""The committed diagrams are the tables that the code runs on."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_diagrams_are_drawn_from_the_tables():
    drawings = runpy.run_path(str(DOCS / "draw_state_diagrams.py"))["drawings"]()
    for name, text in drawings.items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"run python docs/draw_state_diagrams.py for {name}"
