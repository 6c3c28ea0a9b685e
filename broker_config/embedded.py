"""The embedded broker: amqtt on loopback, for the demo and small trials.

`python -m broker_config.embedded --host 127.0.0.1 --port 1883` prints one line, `{"host": ..., "port": ...}`,
once it accepts connections, and ends on SIGTERM, SIGINT or the end of the process that started it.
It asks nobody for a name: what devices accept is decided by signatures alone. For a fleet, use mosquitto.
"""

import asyncio
import ipaddress
import json
import logging
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker_config.bounds import PACKET_MOST
from broker_config.one_line_parser import OneLineParser
from fleet_protocol.errors import FleetError, PolicyError

CONNECTIONS_MOST: Final = 2_000
_SHUTDOWN_S: Final = 5.0
_QUIET_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """Where the embedded broker listens and what it keeps. `port` 0 lets the kernel choose."""

    host: str = "127.0.0.1"
    port: int = 1883
    data_dir: Path | None = None
    """Where retained messages are kept over a restart; None keeps them in memory."""
    detached: bool = False
    """Go on after the process that started it has ended."""

    def __post_init__(self) -> None:
        if not _is_loopback(self.host):
            raise PolicyError(
                "setup", f"the embedded broker listens on loopback only, not on {self.host}; use mosquitto"
            )
        if not 0 <= self.port <= 65_535:
            raise PolicyError("setup", f"{self.port} is not a port")


def main(argv: Sequence[str] | None = None, *, program: str = "python -m broker_config.embedded") -> int:
    """Run until told to end; 0 on an orderly end, 1 with one line on stderr where it cannot start."""
    parser = OneLineParser(prog=program, description=__doc__.split("\n", 1)[0])
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default %(default)s)")
    parser.add_argument("--port", type=int, default=1883, help="0 lets the kernel choose (default %(default)s)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep retained messages over a restart")
    parser.add_argument("--detached", action="store_true", help="go on when the process that started it has ended")
    args = parser.parse_args(argv)
    logging.getLogger("amqtt").setLevel(logging.CRITICAL + 1)
    try:
        settings = EmbeddedSettings(host=args.host, port=args.port, data_dir=args.data, detached=args.detached)
        asyncio.run(_serve(settings))
    except (FleetError, OSError) as error:
        sys.stderr.write(f"embedded broker: {_line(error)}\n")
        return 1
    return 0


async def _serve(settings: EmbeddedSettings) -> None:
    loop, ending = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    # Imported late: amqtt takes half a second, and a refusal should not.
    from broker_config.connections import Connections  # noqa: PLC0415
    from broker_config.parent import on_parent_end  # noqa: PLC0415

    if not settings.detached:
        on_parent_end(ending.set)
    complaints = _Complaints()
    loop.set_exception_handler(lambda _, context: complaints.add(_cause(context)))
    connections = Connections(
        settings.data_dir, packet_size=PACKET_MOST, most=CONNECTIONS_MOST, complain=complaints.add
    )
    host, port = await connections.open(settings.host, settings.port)
    sys.stdout.write(json.dumps({"host": host, "port": port}) + "\n")
    sys.stdout.flush()
    await ending.wait()
    try:
        async with asyncio.timeout(_SHUTDOWN_S):
            await connections.close()
    except TimeoutError:
        complaints.add("timeout: connections were cut off at the end")


class _Complaints:
    """One line on stderr for each kind of complaint a minute, however often it comes."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, int]] = {}

    def add(self, text: str) -> None:
        """Say it, or count it where the same kind (the part before the colon) was said just now."""
        kind = text.partition(":")[0]
        said_s, more = self._told.get(kind, (float("-inf"), 0))
        now_s = time.monotonic()
        if now_s - said_s < _QUIET_S:
            self._told[kind] = said_s, more + 1
            return
        self._told[kind] = now_s, 0
        sys.stderr.write(f"embedded broker: {text}" + (f" ({more} more like it before)" if more else "") + "\n")


def _cause(context: Mapping[str, Any]) -> str:
    error = context.get("exception")
    return f"broker: {type(error).__name__ if error else context.get('message')}"


def _line(error: FleetError | OSError) -> str:
    if isinstance(error, FleetError):
        return f"{error.detail} ({error.code})"
    return f"{error.strerror or error} (setup)"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    raise SystemExit(main())
