"""The console script `fairlead-firmware`: `firmware_tools.cli`, which takes half a second to load."""

import signal


def main() -> None:
    """As `firmware_tools.cli.main`; Ctrl-C while it is loaded ends the process at once, and says nothing."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from firmware_tools import cli  # noqa: PLC0415 - see above

    signal.signal(signal.SIGINT, before)
    cli.main()
