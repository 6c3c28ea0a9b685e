"""Tells the demo as it happens: one line an event, plain where nobody's terminal reads along."""

import time

from rich.console import Console
from rich.markup import escape


class Narrator:
    """Prints what happens, with the seconds since the demo began."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def act(self, title: str) -> None:
        """A new part of the story begins."""
        self._console.print(f"\n[bold]{escape(title)}[/bold]", soft_wrap=True)

    def say(self, text: str) -> None:
        """Something happened."""
        elapsed = time.monotonic() - self._started
        self._console.print(f"[dim]{elapsed:6.1f} s[/dim]  {escape(text)}", highlight=False, soft_wrap=True)

    def good(self, text: str) -> None:
        """Something went as told."""
        self.say(f"✓ {text}")

    def bad(self, text: str) -> None:
        """Something did not go as told."""
        self.say(f"✗ {text}")

    def place(self, name: str, where: str) -> None:
        """Where something is: `name where` alone on its line, to be read by people and scripts."""
        self._console.print(f"{name} {where}", highlight=False, markup=False, soft_wrap=True)
