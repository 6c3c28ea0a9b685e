"""`python -m broker_config`: the command line of `broker_config.tool`."""

from broker_config.interrupt import loading


def main() -> int:
    """The exit status."""
    with loading():
        from broker_config import tool  # noqa: PLC0415 - so that Ctrl-C finds no half-loaded module to complain of
    return tool.main()


if __name__ == "__main__":
    raise SystemExit(main())
