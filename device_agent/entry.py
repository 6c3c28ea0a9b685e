"""The console script `fairlead-agent`: `device_agent.cli`."""

import signal


def main() -> int:
    """As `device_agent.cli.main`; Ctrl-C while it is loaded ends the process at once, and says nothing."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from device_agent import cli  # noqa: PLC0415 - see above

    signal.signal(signal.SIGINT, before)
    return cli.main()
