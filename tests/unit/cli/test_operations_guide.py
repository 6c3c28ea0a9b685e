"""The guide's commands work as they stand."""

import re
import shlex
from pathlib import Path

import pytest

from broker_config import tool
from server.cli import main as cli

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(("name", "place"), [("setup", "broker/mosquitto"), ("steps", "mosquitto")])
def test_the_commands_that_set_up_mosquitto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    block = re.search(rf"```sh {name}\n(.*?)```", (DOCS / "operations.md").read_text(), re.DOTALL)
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
