"""`fairlead-agent`: one line for every mistake, and nothing loaded that a command does not need."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from device_agent import AGENT_VERSION
from device_agent.log import of_a_file
from device_agent.settings import AgentSettings, load
from fleet_protocol.errors import FleetError

DEFAULT_CONFIG = Path("/etc/fairlead/agent.toml")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every mistake."""
        self.exit(2, f"fairlead-agent: {message}; see `{self.prog} --help`\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when done, 1 when it could not be done, 2 for a command line that is wrong."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except FleetError as error:
        sys.stderr.write(f"fairlead-agent: {error}\n")
    except OSError as error:
        sys.stderr.write(f"fairlead-agent: {of_a_file(error)}\n")
    except KeyboardInterrupt:
        sys.stderr.write("fairlead-agent: interrupted\n")
    return 1


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command in ("install", "uninstall"):
        return _place(arguments)
    settings = load(arguments.config)
    if arguments.command == "run":
        _resident(settings)
    if arguments.command == "init":
        from device_agent.enrolment import init  # noqa: PLC0415 - needs cryptography; `run` must not

        return init(settings, arguments.root, replace_store=arguments.replace)
    if arguments.command == "enroll":
        from device_agent.enrolment import Enrolment, enroll  # noqa: PLC0415

        return enroll(settings, Enrolment(arguments.server, arguments.token, arguments.group, arguments.root_sha256))
    if arguments.command == "status":
        from device_agent.status import status  # noqa: PLC0415

        return status(settings, as_json=arguments.json)
    from device_agent.doctor import doctor  # noqa: PLC0415

    return doctor(settings)


def _place(arguments: argparse.Namespace) -> int:
    from device_agent.host.place import PROGRAM, Place, install, uninstall  # noqa: PLC0415 - `run` must not load it
    from device_agent.host.wishes import Wishes  # noqa: PLC0415

    place = Place(root=arguments.into, config=arguments.config, program=arguments.program or PROGRAM)
    if arguments.command == "uninstall":
        return uninstall(place, purge=arguments.purge)
    wishes = Wishes(
        device=arguments.device,
        fleet=arguments.fleet,
        device_class=arguments.device_class,
        broker=arguments.broker,
        broker_ca=arguments.broker_ca,
        broker_cert=arguments.broker_cert,
        broker_key=arguments.broker_key,
        allow_hosts=tuple(arguments.allow_host),
        variables=tuple(arguments.variable),
        settings=arguments.settings,
    )
    return install(place, wishes, start=not arguments.no_start)


def _resident(settings: AgentSettings) -> NoReturn:
    """Become the resident: a fresh interpreter without what this command line has loaded, in the same process."""
    assert settings.path is not None
    argv = [sys.executable, "-P", "-X", "no_debug_ranges", "-m", "device_agent", str(settings.path)]
    os.execve(sys.executable, argv, {"MALLOC_ARENA_MAX": "1", **os.environ})  # noqa: S606 - no shell is the point


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fairlead-agent", description="Signed updates for this device over MQTT.")
    parser.add_argument("--version", action="version", version=f"fairlead-agent {AGENT_VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _command(commands, "run", "be the agent of this device until SIGTERM")
    init = _command(commands, "init", "make the state directory, the device key and the trust store")
    init.add_argument("--root", type=Path, required=True, help="the fleet's root.json, which this device will trust")
    init.add_argument("--replace", action="store_true", help="begin again where another or a torn trust store stands")
    enroll = _command(commands, "enroll", "register this device with its server, and get the root from there")
    enroll.add_argument("--server", required=True, help="the server's address, http(s)://host:port")
    enroll.add_argument("--token", required=True, help="the server's enrolment token, or @FILE that holds it")
    enroll.add_argument("--group", required=True, help="the group that the device joins")
    enroll.add_argument("--root-sha256", help="refuse a root whose digest is another than this")
    status = _command(commands, "status", "what the running agent says of itself")
    status.add_argument("--json", action="store_true", help="print the agent's own JSON")
    _command(commands, "doctor", "check what the agent needs, one line each, with what to do")
    _install_options(_command(commands, "install", "give the agent its unit, directories and settings on this machine"))
    uninstall = _command(commands, "uninstall", "stop the agent and take its unit away; settings and state are kept")
    uninstall.add_argument("--purge", action="store_true", help="remove settings, keys and state too")
    for command in (commands.choices["install"], uninstall):
        command.add_argument("--root", dest="into", type=Path, default=Path("/"), metavar="DIR", help="in this image")
        command.add_argument("--program", type=Path, help="what the unit runs (/opt/fairlead/venv/bin/fairlead-agent)")
    return parser


def _install_options(install: argparse.ArgumentParser) -> None:
    install.add_argument("--settings", type=Path, metavar="DIR", help="the folder that `fairlead broker device` made")
    install.add_argument("--device", help="this device's name, where there is no such folder")
    install.add_argument("--fleet", help="the fleet's name, as in its root")
    install.add_argument("--class", dest="device_class", metavar="CLASS", help="what hardware this is (uname -m)")
    install.add_argument("--broker", metavar="URL", help="mqtt://host:port or mqtts://host:port")
    install.add_argument("--broker-ca", type=Path, metavar="FILE", help="who signs the broker's certificate")
    install.add_argument("--broker-cert", type=Path, metavar="FILE", help="this device's certificate")
    install.add_argument("--broker-key", type=Path, metavar="FILE", help="the key of that certificate")
    install.add_argument("--allow-host", action="append", default=[], metavar="HOST", help="may be downloaded from")
    install.add_argument("--variable", action="append", default=[], metavar="NAME=VALUE", help="for releases")
    install.add_argument("--no-start", action="store_true", help="leave the running agent as it is")


def _command(commands: "argparse._SubParsersAction[_Parser]", name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help=f"settings file ({DEFAULT_CONFIG})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
