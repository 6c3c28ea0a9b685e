"""The README's first real device, as it stands there: offline keys, mosquitto with TLS and access rules, one device."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.supervisor.supervisor import Supervisor
from tests.fakes.ports import reserved_ports
from tests.fakes.readme_scene import Scene, blocks, commands

NEEDED = ("mosquitto", "openssl", "curl")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    where = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    missing = [name for name in NEEDED if shutil.which(name, path=where) is None]
    if missing or not Path("/usr/bin/python3").exists():
        pytest.skip(f"not installed: {', '.join(missing) or '/usr/bin/python3'}")
    with reserved_ports(4) as ports:
        made = Scene(tmp_path, ports)
        try:
            yield made
        finally:
            made.end()
            if (tmp_path / "node-1/state").exists():
                Supervisor(tmp_path / "node-1/state").stop_all()


def test_the_first_device_of_the_readme(scene: Scene) -> None:
    (_, keys), (_, broker), (_, server), (_, device), (_, release), (_, operator) = blocks()
    assert [place for place, _ in blocks()] == ["desk", "broker", "server", "device", "desk", "operator"]

    scene.run(keys)
    setup, mosquitto = commands(broker)
    scene.run(setup)
    scene.start("broker", mosquitto)
    (serve,) = commands(server)
    scene.start("server", serve)
    scene.hears("server", "connected, MQTTv5")
    make, enroll, agent = commands(device)
    scene.run(make)
    enrolled = scene.run(f"{enroll} && sha256sum acme-releases/metadata/1.root.json")
    digest = re.search(r"root sha256 (\w{64})", enrolled)
    assert digest is not None and f"\n{digest[1]}  acme-releases" in enrolled, "the device's and the desk's are one"
    scene.start("agent", agent)
    scene.hears("agent", "connected to mqtts://localhost:")
    scene.run(release, answer="y\n")
    told = scene.run(operator)

    assert "complete, wave 1 of 1, committed 1 of 1" in told
    assert re.search(r"^node-1 +line-1 .* yes .* my-service 1\.0\.0 ", told, re.MULTILINE), told
    assert told.endswith("well\n"), "the service answers"
    assert scene.unused() == set()
    _nothing_else_was_trusted(scene)
    assert scene.end() == {"agent": 0, "server": 0, "broker": 0}


def _nothing_else_was_trusted(scene: Scene) -> None:
    """What the page promises of keys: none of the desk's is on the server, none may be read by others."""
    folder = scene.folder
    offline = {path.read_bytes() for path in (folder / "acme-releases/offline").glob("*.pem")}
    assert len(offline) == 6
    assert not offline & {path.read_bytes() for path in (folder / "server").rglob("*") if path.is_file()}
    secrets = [*folder.rglob("*.key"), *(folder / "server/keys").iterdir(), *(folder / "acme-releases").rglob("*.pem")]
    secrets += [folder / "passphrase", *folder.glob("server/*token"), folder / "node-1/state/device.pem"]
    assert [path for path in secrets if path.stat().st_mode & 0o077] == []
    tokens = [path.read_text().strip() for path in sorted(folder.glob("server/*token"))]
    assert len(tokens) == 2
    for log in folder.glob("*.log"):
        assert not [token for token in tokens if token in log.read_text(errors="replace")]
    doctor = json.loads(scene.run("fairlead doctor --json --token @server/token"))
    assert {row["verdict"] for row in doctor["findings"]} <= {"ok", "warn"}
