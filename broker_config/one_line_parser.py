"""Command lines whose mistakes are one line."""

import argparse
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """`argparse` without its usage text: that is what `--help` is for."""

    def error(self, message: str) -> NoReturn:
        """Exit status 2 and one line on standard error."""
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")
