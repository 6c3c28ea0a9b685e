"""The guide's commands work as they stand."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from broker_config import tool
from server.cli import main as cli
from server.settings import load

DOCS = Path(__file__).parents[3] / "docs"
GUIDE = (DOCS / "operations.md").read_text(encoding="utf-8")
GUIDE_SERVERS = re.findall(r"```sh serve\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize(("name", "place"), [("setup", "broker/mosquitto"), ("steps", "mosquitto")])
def test_the_commands_that_set_up_mosquitto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    block = re.search(rf"```sh {name}\n(.*?)```", GUIDE, re.DOTALL)
    assert block is not None
    monkeypatch.chdir(tmp_path)
    for line in block[1].splitlines():
        words = shlex.split(line)
        assert words[:2] == ["fairlead", "broker"]
        assert tool.main(words[2:]) == 0, line
    conf = (tmp_path / place / "mosquitto.conf").read_text()
    for path in re.findall(r"(?:cafile|certfile|keyfile|crlfile|acl_file) (\S+)", conf):
        assert Path(path).is_file()


def test_every_command_of_the_program_is_in_the_guide() -> None:
    guide = (DOCS / "cli.md").read_text()
    names = [command.name or command.callback.__name__ for command in cli.app.registered_commands]
    names += [group.name for group in cli.app.registered_groups]
    assert len(names) > 20
    for name in names:
        assert re.search(rf"`{name}\b|\b{name} ", guide), name


def test_every_server_of_the_guide_is_told_its_data_its_broker_and_where_devices_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tool.main(shlex.split("setup --dir broker --fleet acme --host broker.example")) == 0
    serve = get_command(cli.app).commands["serve"]  # type: ignore[attr-defined]
    servers = [line for block in GUIDE_SERVERS for line in _commands(block) if "fairlead serve " in line]
    assert len(servers) == GUIDE.count("fairlead serve --") >= 3
    for line in servers:
        variables, _, options = line.partition("fairlead serve ")
        with monkeypatch.context() as patch, serve.make_context("serve", shlex.split(options)) as context:
            for name, _, value in (word.partition("=") for word in shlex.split(variables)):
                patch.setenv(name, value)
            settings = load(**{name: value for name, value in context.params.items() if value is not None})
        assert settings.data_dir == Path("/srv/fairlead"), line
        assert settings.broker_url == "mqtts://broker.example:8884" and settings.broker_cert_file, line
        assert settings.public_url == "https://updates.example", line


def _commands(block: str) -> list[str]:
    return block.replace("\\\n", " ").replace("$(date +%s)", "1800000000").splitlines()
