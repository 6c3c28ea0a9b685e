"""`docs/protocol.md` is true: its tables are the code's, its examples validate, its commands run as printed."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol import schema
from fleet_protocol.catalogue import FORMATS, KINDS, TargetInfo
from fleet_protocol.errors import CODES
from fleet_protocol.fleet_role import parse_fleet_role
from fleet_protocol.install import DebianPackage, Driver, Unit
from fleet_protocol.manifest import Manifest
from fleet_protocol.messages import (
    COMMANDS,
    OUTCOMES,
    STAGES,
    Assignment,
    Command,
    Health,
    Heartbeat,
    Reply,
    Report,
    State,
)
from fleet_protocol.strict_json import dumps, loads
from tests.unit.docs.protocol_tables import CONTENT, DOCUMENT, with_tables
from tests.vectors import make_vectors

TEXT = DOCUMENT.read_text("utf-8")
EXAMPLE = Path(make_vectors.__file__).parent / "example"
BLOCKS = re.findall(r"^```(\w*)(?: ([\w=-]+))?\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
EXAMPLES = {label.removeprefix("example="): body for _, label, body in BLOCKS if label.startswith("example=")}
DOCUMENTS = {"manifest": Manifest, "assignment": Assignment, "command": Command, "report": Report, "reply": Reply}


def test_the_generated_tables_are_the_codes() -> None:
    assert with_tables(TEXT) == TEXT, "run python -m tests.unit.docs.protocol_tables"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_in_an_example_is_valid(name: str) -> None:
    kind: Any = DOCUMENTS[name]
    assert schema.from_payload(kind, EXAMPLES[name].encode(), max_size=10_000)


def test_the_other_examples_are_valid() -> None:
    value = {name: loads(body.encode(), max_size=10_000) for name, body in EXAMPLES.items()}
    assert schema.from_value(Heartbeat, value["heartbeat"])
    assert schema.from_value(Health, value["health"])
    assert schema.from_value(TargetInfo, value["targetinfo"])
    assert schema.from_value(Unit, value["unit"])
    assert schema.from_value(Driver, value["driver"])
    assert [schema.from_value(DebianPackage, package) for package in value["packages"]]
    assert parse_fleet_role(value["x-fleet"]).fleet == "acme"
    assert all(type(number) is float for number in value["telemetry"].values())
    flat = value["state"]
    versions = {name: version for name, version in flat.items() if name.startswith("version_")}
    state = State(
        **{name: value for name, value in flat.items() if name not in versions},
        installed={name.removeprefix("version_"): version for name, version in versions.items()},
    )
    assert dumps(state.to_flat()) == dumps(flat)


def test_every_example_is_looked_at() -> None:
    others = {"heartbeat", "health", "targetinfo", "unit", "driver", "packages", "x-fleet", "telemetry", "state"}
    assert EXAMPLES.keys() == {*DOCUMENTS, *others}


@pytest.mark.parametrize("word", [*STAGES, *OUTCOMES, *COMMANDS, *KINDS, *FORMATS, *CODES])
def test_every_word_that_travels_is_there(word: str) -> None:
    assert f"`{word}`" in TEXT


def test_every_topic_has_its_content_and_every_link_its_heading() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith(("## ", "### "))
    }
    assert set(re.findall(r"\(#([a-z0-9-]+)\)", TEXT)) <= headings
    assert all(text for text in CONTENT.values())


def _script() -> tuple[str, str]:
    """All commands that can run without a broker, in order, and everything that they print."""
    commands = "".join(body for kind, label, body in BLOCKS if kind == "sh" and not label)
    printed = "".join(body for kind, _, body in BLOCKS if kind == "output")
    return commands, printed


@pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("jq", "openssl", "basenc", "sh")),
    reason="the commands of the document need jq, openssl and coreutils",
)
def test_the_commands_print_what_the_document_says(tmp_path: Path) -> None:
    for name in ("manifest.json", "1.root.json", "1.targets.json"):
        shutil.copy(EXAMPLE / name, tmp_path)
    commands, printed = _script()
    result = subprocess.run(["sh", "-eu", "-c", commands], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    assert result.returncode == 0
    assert result.stdout == printed


@pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("jq", "openssl", "basenc", "sh")),
    reason="the commands of the document need jq, openssl and coreutils",
)
def test_the_commands_notice_an_altered_manifest(tmp_path: Path) -> None:
    for name in ("manifest.json", "1.root.json", "1.targets.json"):
        shutil.copy(EXAMPLE / name, tmp_path)
    envelope = json.loads((tmp_path / "manifest.json").read_text())
    payload = envelope["payload"]
    envelope["payload"] = payload[:40] + ("A" if payload[40] != "A" else "B") + payload[41:]
    (tmp_path / "manifest.json").write_text(json.dumps(envelope))
    commands = _script()[0].replace("jq -c '{_type, fleet, group, sequence, expires}' payload", ":")
    result = subprocess.run(["sh", "-eu", "-c", commands], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Signature Verified Successfully" not in result.stdout
    assert result.returncode != 0
