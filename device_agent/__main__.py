"""`python -m device_agent CONFIG`: the resident process and nothing else; `fairlead-agent run` becomes this."""

import signal
import sys

from device_agent import lean

lean.make_rare_modules_lazy()


def main(config: str) -> int:
    """Exit status 0 after an orderly stop, 1 with one line where the owner must mend something."""
    from pathlib import Path  # noqa: PLC0415 - the order of imports is the point of this module

    from device_agent.log import of_a_file  # noqa: PLC0415
    from device_agent.settings import load  # noqa: PLC0415
    from fleet_protocol.errors import FleetError  # noqa: PLC0415

    try:
        settings = load(Path(config))
        lean.forget("tomllib")
        lean.import_paho(tls=settings.broker.tls)
        from device_agent.resident import run  # noqa: PLC0415

        return run(settings)
    except FleetError as error:
        sys.stderr.write(f"fairlead-agent: {error}\n")
    except OSError as error:
        sys.stderr.write(f"fairlead-agent: {of_a_file(error)}\n")
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the resident answers to it, Ctrl-C just ends it
    sys.exit(main(sys.argv[1]))
