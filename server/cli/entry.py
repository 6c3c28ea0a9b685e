"""The console script `fairlead`: `server.cli.main`, which takes half a second to load."""

from broker_config.interrupt import loading


def main() -> None:
    """As `server.cli.main.main`."""
    with loading():
        from server.cli import main as command  # noqa: PLC0415 - so that Ctrl-C finds no half-loaded module
    command.main()
