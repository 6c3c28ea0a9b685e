"""What an owner asks for on the command line, and the settings file that says it."""

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from device_agent.settings import AgentSettings, parse
from fleet_protocol.errors import PolicyError

CERTIFICATES: Final = {"broker_ca": "ca_file", "broker_cert": "cert_file", "broker_key": "key_file"}
"""Each wish that is a file, and the key of `[broker]` that names its copy."""
AGENT_TOML: Final = "agent.toml"
_NEEDED: Final = ("device", "fleet", "broker")
ACCOUNT: Final = "fairlead-agent"
"""Whom workers that read strangers' bytes run as."""
_HEAD: Final = "# Made by `fairlead-agent install`, and yours from then on: deploy/agent.toml shows every key.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Everything that `install` can be told about the device. What is None was not said."""

    device: str | None = None
    fleet: str | None = None
    device_class: str | None = None
    broker: str | None = None
    broker_ca: Path | None = None
    broker_cert: Path | None = None
    broker_key: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    """NAME=VALUE each."""
    settings: Path | None = None
    """A folder with an agent.toml and the files that it names beside it, as `fairlead broker device` makes one."""

    @property
    def said(self) -> bool:
        """Whether anything was."""
        return any(getattr(self, field.name) for field in fields(self))

    def certificates(self) -> dict[str, Path]:
        """The files to be copied, by the key of `[broker]` that names them."""
        given = {key: getattr(self, name) for name, key in CERTIFICATES.items()}
        return {key: path for key, path in given.items() if path is not None}


def certificate(config: Path, key: str) -> Path:
    """Where the copy of a certificate lies: beside the settings."""
    return config.with_name(f"broker-{key.removesuffix('_file')}.pem")


def settings_text(wishes: Wishes, config: Path, state_dir: Path) -> str:
    """A settings file that says just what was wished. Raises PolicyError `setup` for what is missing or wrong."""
    for name in _NEEDED:
        if getattr(wishes, name) is None:
            raise PolicyError("setup", f"there is no {config} yet, so --{name} is needed")
    text = "\n".join(_lines(wishes, config, state_dir)) + "\n"
    _read(text, config)
    return text


def check_agreement(wishes: Wishes, config: Path, there: AgentSettings) -> None:
    """Raise PolicyError `conflict` where the settings that are there do not say what was wished."""
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("device", wishes.device, there.device),
        ("fleet", wishes.fleet, there.fleet),
        ("class", wishes.device_class, there.device_class),
        ("broker", wishes.broker, there.broker.url),
        *((f"variable {name}", value, there.variables.get(name)) for name, value in _variables(wishes)),
    )
    for option, wished, said in pairs:
        if wished is not None and wished != said:
            says = "says nothing" if said is None else f"says {said!a}"
            raise PolicyError("conflict", f"{config} {says} for --{option}: edit it, or leave that out")
    for host in wishes.allow_hosts:
        if host not in there.download.allowed_hosts:
            raise PolicyError("conflict", f"{config} does not allow the host {host!a}: edit it, or leave that out")
    for key in wishes.certificates():
        if getattr(there.broker, key) != certificate(config, key):
            raise PolicyError("conflict", f"{config} names another {key}: edit it, or leave that out")


def adopted_text(wishes: Wishes, folder: Path, brought: AgentSettings, state_dir: Path) -> str:
    """The folder's agent.toml for a device on which it lies beside the same files, and state in `state_dir`.

    What was wished besides is in it. Raises PolicyError `conflict` where the folder says something else.
    """
    text = (folder / AGENT_TOML).read_text(encoding="utf-8")
    lines = [f"state_dir = {_quoted(state_dir)}"]
    if brought.worker_user is None:
        lines.append(f"worker_user = {_quoted(ACCOUNT)}")
    text = re.sub(r"(?m)^state_dir\s*=.*$", lambda _: "\n".join(lines), text, count=1)
    if brought.http_port is None:
        text = _with_lines(text, "http", ["port = 0"])
    hosts = [host for host in dict.fromkeys(wishes.allow_hosts) if host not in brought.download.allowed_hosts]
    if hosts:
        text = re.sub(r"(?m)^allowed_hosts\s*=\s*\[[^]]*\]", "", text, count=1)
        text = _with_lines(text, "download", [_allowed_hosts((*brought.download.allowed_hosts, *hosts))])
    added = [(name, value) for name, value in _variables(wishes) if name not in brought.variables]
    if added:
        text = _with_lines(text, "variables", [f"{_quoted(name)} = {_quoted(value)}" for name, value in added])
    check_agreement(wishes, folder / AGENT_TOML, _read(text, folder / AGENT_TOML))
    return text


def adopted_files(folder: Path, settings: AgentSettings) -> list[Path]:
    """The files of the folder that its settings name. Raises PolicyError `setup` for one that is somewhere else."""
    named = files_of(settings)
    for path in named:
        if path.parent != folder.resolve() or not path.is_file():
            raise PolicyError("setup", f"{settings.path} names {path}, which is no file in {folder}")
    return named


def files_of(settings: AgentSettings) -> list[Path]:
    """What the settings name for the broker."""
    broker = settings.broker
    return [path for path in (broker.ca_file, broker.cert_file, broker.key_file, broker.password_file) if path]


def _lines(wishes: Wishes, config: Path, state_dir: Path) -> Iterator[str]:
    yield _HEAD
    yield f"device = {_quoted(wishes.device)}"
    yield f"fleet = {_quoted(wishes.fleet)}"
    yield f"class = {_quoted(wishes.device_class or os.uname().machine.lower())}"
    yield f"state_dir = {_quoted(state_dir)}"
    yield f"worker_user = {_quoted(ACCOUNT)}"
    yield f"\n[broker]\nurl = {_quoted(wishes.broker)}"
    for key in wishes.certificates():
        yield f"{key} = {_quoted(certificate(config, key))}"
    if wishes.allow_hosts:
        yield f"\n[download]\n{_allowed_hosts(wishes.allow_hosts)}"
    yield "\n# For `fairlead-agent status`; on 127.0.0.1, at a port of the kernel's choosing.\n[http]\nport = 0"
    variables = _variables(wishes)
    if variables:
        yield "\n[variables]"
    for name, value in variables:
        yield f"{_quoted(name)} = {_quoted(value)}"


def _variables(wishes: Wishes) -> list[tuple[str, str]]:
    """Each variable once, with the value that was said last."""
    found: dict[str, str] = {}
    for text in wishes.variables:
        name, separator, value = text.partition("=")
        if not separator:
            raise PolicyError("setup", f"--variable {text!a} is not NAME=VALUE")
        found[name] = value
    return list(found.items())


def _allowed_hosts(hosts: Iterable[str]) -> str:
    return f"allowed_hosts = [{', '.join(_quoted(host) for host in hosts)}]"


def _with_lines(text: str, table: str, lines: list[str]) -> str:
    """The settings file with more lines in one of its tables, which is added at the end where there is none."""
    head = re.search(rf"(?m)^\[{table}\][^\n]*$", text)
    if head is None:
        return "\n".join([text.rstrip("\n"), "", f"[{table}]", *lines, ""])
    return "\n".join([text[: head.end()], *lines]) + text[head.end() :]


def _read(text: str, path: Path) -> AgentSettings:
    try:
        return parse(tomllib.loads(text), path)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError("setup", f"{path} can not say that: {error}") from None


def _quoted(value: object) -> str:
    """A basic string of TOML, which a string of JSON mostly is; `_read` sees whether it is."""
    return json.dumps(str(value), ensure_ascii=False)
