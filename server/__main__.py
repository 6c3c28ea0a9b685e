"""`python -m server`: the server with settings from the environment alone."""

import sys

from fleet_protocol.errors import FleetError
from server.app import run
from server.settings import load


def main() -> int:
    """The exit status."""
    try:
        return run(load())
    except FleetError as error:
        sys.stderr.write(f"fairlead: {error.code}: {error.detail}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
