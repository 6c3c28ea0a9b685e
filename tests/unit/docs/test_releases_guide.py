"""`docs/releases.md` names only commands and options that exist, and its options file is a valid one."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from firmware_tools import pack_options
from firmware_tools.cli import app
from fleet_protocol.install import HealthCheck
from fleet_protocol.unit_file import read_unit_file

TEXT = (Path(__file__).parents[3] / "docs" / "releases.md").read_text("utf-8").replace("\\\n", " ")
COMMANDS = sorted(
    {line.partition("#")[0].strip() for line in TEXT.splitlines() if line.startswith("fairlead-firmware ")}
    | {f"fairlead-firmware {rest}" for rest in re.findall(r"`fairlead-firmware ([a-z-]+ [^`]*)`", TEXT)}
)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_exists_with_its_options(line: str) -> None:
    group = typer.main.get_command(app)
    _, name, *arguments = shlex.split(line)
    command = group.commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in arguments if word.startswith("--")} <= known


def test_every_command_is_in_the_guide() -> None:
    group = typer.main.get_command(app)
    assert {line.split()[1] for line in COMMANDS} >= set(group.commands) - {"inspect", "verify"}  # type: ignore[attr-defined]
    assert all(f"fairlead-firmware {name}" in TEXT for name in ("inspect", "verify"))


def test_options_that_are_named_alone_exist() -> None:
    group = typer.main.get_command(app)
    known = {option for command in group.commands.values() for one in command.params for option in one.opts}  # type: ignore[attr-defined]
    assert set(re.findall(r"`(--[a-z-]+)", TEXT)) <= known


def test_the_options_files_are_valid(tmp_path: Path) -> None:
    first, *others = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    (tmp_path / "fairlead.toml").write_text(first)
    spec = pack_options.spec_of(pack_options.read(tmp_path / "fairlead.toml"))
    assert spec.exec == ("bin/serve", "--port", "${PORT}")
    assert isinstance(spec.check, HealthCheck)
    for body in others:
        (tmp_path / "fairlead.toml").write_text(body)
        pack_options.spec_of(pack_options.read(tmp_path / "fairlead.toml"))


def test_the_unit_file_is_one_that_a_device_takes() -> None:
    (body,) = re.findall(r"^```ini\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert read_unit_file(body.encode()).programs == ("bin/serve",)
