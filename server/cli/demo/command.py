"""`fairlead demo`: sets the stage, plays the acts, says where things are, and cleans up."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer
from rich.console import Console

from fleet_protocol.errors import FleetError, PolicyError
from server.cli.demo.acts import Play
from server.cli.demo.desk import Desk, agent_config, run
from server.cli.demo.follow import until
from server.cli.demo.narrator import Narrator
from server.cli.demo.places import FLEET, GROUP, Places, chosen, program
from server.cli.demo.processes import Processes
from server.client import Client, ClientError
from server.tokens import API, ENROL

_UP_S: Final = 60.0
"""How long the stage may take until everything answers."""
_ASK_S: Final = 0.1
_KEPT_VARIABLES: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "PYTHONDONTWRITEBYTECODE")


def demo(
    leave: Annotated[
        bool, typer.Option("--exit", help="End after the second act; exit status 0 only if both went as told.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Keep everything in this new or empty folder instead of a temporary one."),
    ] = None,
) -> None:
    """A whole fleet on this machine: broker, server and three devices, a good release and a bad one."""
    narrator = Narrator(Console())
    try:
        with _interruptible(), _home(folder) as home:
            played = _stage(home, narrator, leave=leave)
    except KeyboardInterrupt:
        narrator.say("stopped; no process of the demo is left")
        raise typer.Exit(1 if leave else 0) from None
    except (FleetError, ClientError) as error:
        print(f"fairlead demo: {error.detail} ({error.code})", file=sys.stderr)  # noqa: T201 - the error line
        raise typer.Exit(1) from None
    raise typer.Exit(0 if played else 1)


def _stage(home: Path, narrator: Narrator, *, leave: bool) -> bool:
    with chosen(home) as places:
        return _play(places, narrator, leave=leave)


def _play(places: Places, narrator: Narrator, *, leave: bool) -> bool:
    places.logs.mkdir()
    environment = _environment(places)
    processes = Processes(places.logs, environment, lambda name, code: narrator.say(_fell(name, code)))
    try:
        narrator.act("Setting the stage")
        for name, port, url in places.moved:
            narrator.say(f"{name}  port {port} is taken by another program: {url} instead")
        desk = Desk(places, environment, narrator)
        desk.open()
        token = _raise_curtain(places, processes, desk, narrator, environment)
        with Client(places.server_url, token) as client:
            play = Play(places, processes, client, desk, narrator)
            played = play.first_act() and play.second_act()
            _close(places, token, narrator, played=played)
            if not leave:
                narrator.say("the fleet stays up until Ctrl-C")
                while True:
                    processes.wait()
        return played
    finally:
        processes.stop()


def _raise_curtain(
    places: Places, processes: Processes, desk: Desk, narrator: Narrator, environment: Mapping[str, str]
) -> str:
    """Start everything; return the API token once the server answers and all three devices are online."""
    port = ["--host", "127.0.0.1", "--port", str(places.broker_port), "--data", str(places.home / "broker")]
    processes.start("broker", [sys.executable, "-m", "broker_config.embedded", *port])
    processes.start("server", [program("fairlead"), "serve"])
    token = _token(places, processes)
    with Client(places.server_url, token) as client:
        _await(processes, "server", lambda: bool(client.get("/health")["broker"]["connected"]))
        _print_places(places, token, narrator)
        for number, node in enumerate(places.nodes):
            node.folder.mkdir(mode=0o700)
            variables = {"PORT": str(node.service_port), "PYTHON": sys.executable}
            node.config.write_text(agent_config(places, number, variables), encoding="utf-8")
            config = ["--config", str(node.config)]
            run(["fairlead-agent", "init", *config, "--root", str(desk.root())], environment)
            enrol = ["--server", places.server_url, "--token", f"@{places.server_data / ENROL}", "--group", GROUP]
            run(["fairlead-agent", "enroll", *config, *enrol], environment)
            processes.start(node.name, [program("fairlead-agent"), "run", *config])
            narrator.say(f"{node.name}  enrolled in group {GROUP}, agent started")
        for node in places.nodes:
            _await(processes, node.name, lambda name=node.name: bool(client.get(f"/api/nodes/{name}")["available"]))  # type: ignore[misc]
    narrator.good("broker, server and three devices are up")
    return token


def _token(places: Places, processes: Processes) -> str:
    file = places.server_data / API
    _await(processes, "server", file.exists)
    return file.read_text(encoding="ascii").strip()


def _await(processes: Processes, name: str, condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + _UP_S

    def answered() -> bool:
        try:
            return condition()
        except ClientError as error:
            if error.status is not None and error.status < 500:
                raise
            return False

    if not until(answered, pause=lambda: processes.wait(_ASK_S), expired=lambda: time.monotonic() > end_s):
        last = processes.log_of(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise PolicyError(
            "setup", f"{name} did not come up in {_UP_S:.0f} s; its last words: {''.join(last) or 'none'}"
        )


def _environment(places: Places) -> dict[str, str]:
    """What the demo's processes inherit: the basics, and the server's settings."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return kept | {
        "PYTHONUNBUFFERED": "1",
        "FAIRLEAD_DATA_DIR": str(places.server_data),
        "FAIRLEAD_PORT": str(places.server_port),
        "FAIRLEAD_BROKER_URL": places.broker_url,
        "FAIRLEAD_FLEET": FLEET,
        "FAIRLEAD_SIGNING": "online",
    }


def _print_places(places: Places, token: str, narrator: Narrator) -> None:
    narrator.place("broker", places.broker_url)
    narrator.place("server", places.server_url)
    narrator.place("docs", f"{places.server_url}/docs")
    narrator.place("token", token)
    for node in places.nodes:
        narrator.place(node.name, node.http_url)
    narrator.place("files", str(places.home))
    for command, words in places.ready_lines.items():
        narrator.place(command, words)


def _close(places: Places, token: str, narrator: Narrator, *, played: bool) -> None:
    narrator.act("Both acts went as told" if played else "The play did not go as told")
    _print_places(places, token, narrator)


def _fell(name: str, code: int) -> str:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return f"{name}  {how}; starting it again"


@contextmanager
def _home(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        made = Path(tempfile.mkdtemp(prefix="fairlead-demo-"))
        try:
            yield made
        finally:
            shutil.rmtree(made)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        taken = next(folder.iterdir(), None)
    except OSError as error:
        raise PolicyError("setup", f"{folder} can not be used: {error.strerror}; choose another --dir") from None
    if taken is not None:
        raise PolicyError("setup", f"{folder} is not empty: the demo begins from nothing; choose another --dir")
    yield folder.resolve()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the demo in order, once: the cleaning up that follows is not interrupted.

    SIGINT is set too because a shell starts background jobs with it ignored.
    """
    asked = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
