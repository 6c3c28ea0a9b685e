"""`fairlead`: the server, the demo, and the operator's commands."""

import importlib.metadata
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from server.cli import steer, view
from server.cli.demo.command import demo
from server.cli.doctor import doctor
from server.cli.printable import line
from server.cli.publish import publish
from server.cli.session import one_line_errors

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Signed updates for fleets of Linux devices over MQTT.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class DeviceGroup(TyperGroup):
    """`fairlead devices node-1` is `fairlead devices show node-1`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb, or `show` where a device is named in its place."""
        known = args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(ctx, args if known else ["show", *args])


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fairlead {importlib.metadata.version('fairlead')}")
        raise typer.Exit


@app.callback()
def _fairlead(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Try `fairlead demo` first: a whole fleet on this machine, in one command."""


@app.command(rich_help_panel="Servers")
def serve(
    data_dir: Annotated[Path | None, typer.Option(help="Database, artifacts, catalogue, online keys, token.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="HTTP port; 0 lets the kernel choose.")] = None,
    broker_url: Annotated[str | None, typer.Option(help="mqtt:// or mqtts://; without it, an embedded broker.")] = None,
    broker_dir: Annotated[Path | None, typer.Option(help="What `fairlead broker setup` made, instead.")] = None,
    public_url: Annotated[str | None, typer.Option(help="The address at which devices download.")] = None,
    fleet: Annotated[str | None, typer.Option(help="Its name; else that of the root in the data directory.")] = None,
    sequence_floor: Annotated[
        int | None, typer.Option(help="After a loss of the database: number documents above this, for good.")
    ] = None,
    signing: Annotated[str | None, typer.Option(help="online, or server: it then holds all keys.")] = None,
) -> None:
    """Run the server. Every option is also a variable FAIRLEAD_<NAME>, as are many more settings."""
    from server import app as server_app  # noqa: PLC0415 - the other commands start without a web framework
    from server import settings as server_settings  # noqa: PLC0415

    chosen = {
        "data_dir": data_dir,
        "host": host,
        "port": port,
        "broker_url": broker_url,
        "broker_dir": broker_dir,
        "public_url": public_url,
        "fleet": fleet,
        "signing": signing,
        "sequence_floor": sequence_floor,
    }
    with one_line_errors():
        loaded = server_settings.load(**{name: value for name, value in chosen.items() if value is not None})
        raise typer.Exit(server_app.run(loaded))


@app.command(
    rich_help_panel="Servers",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def broker(context: typer.Context) -> None:
    """Configure a broker: render mosquitto's files, make certificates, run the embedded one. See `broker --help`."""
    from broker_config.tool import main as broker_main  # noqa: PLC0415 - only this command needs it

    raise typer.Exit(broker_main(context.args, program="fairlead broker"))


def _register(panel: str, *commands: Callable[..., None]) -> None:
    for command in commands:
        app.command(rich_help_panel=panel)(command)


_register("Servers", demo, doctor)
_register("Rollouts", publish, view.rollouts, view.status)
_register("Rollouts", steer.hold, steer.resume, steer.advance, steer.recall, steer.retry)
_devices = typer.Typer(invoke_without_command=True, cls=DeviceGroup)
_devices.callback()(view.devices)
_devices.command()(view.show)
_devices.command()(steer.remove)
app.add_typer(_devices, name="devices", rich_help_panel="Devices")
_register("Devices", view.groups, view.services, view.logs, view.health)
_register("Devices", steer.enrol, steer.move, steer.rollback)
_register("Releases and records", view.releases, view.audit)
_catalogue = typer.Typer(no_args_is_help=True, help="The signed list of releases that may be installed.")
_catalogue.command()(steer.upload)
app.add_typer(_catalogue, name="catalogue", rich_help_panel="Releases and records")


def main() -> None:
    """The console script: exit status 0 done, 1 failed, 2 wrong usage, 3 held, 4 recalled, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = app(standalone_mode=False, prog_name="fairlead")
    except TyperException as error:
        raise SystemExit(_usage(error)) from None
    raise SystemExit(status if isinstance(status, int) else 0)


def _usage(error: TyperException) -> int:
    """One line on a wrong command line; nothing where the help was printed because there was no command at all."""
    text = line(error.format_message())
    if text:
        end = "" if text.endswith((".", "?")) else "."
        sys.stderr.write(f"fairlead: {text}{end} See `fairlead --help` and `fairlead COMMAND --help` (usage)\n")
    return error.exit_code
