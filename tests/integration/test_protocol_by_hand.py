"""docs/protocol.md's way to a manifest, typed as it stands, at a broker with TLS and with a dashboard's certificate."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fleet_protocol.topics import MANIFEST, ROOT
from tests.fakes.tls_broker import DASHBOARD, tls_broker

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"


def test_a_dashboard_gets_a_manifest_and_the_root_to_check_it_with(tmp_path: Path) -> None:
    if shutil.which("mosquitto_sub") is None or shutil.which("mosquitto", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("mosquitto and mosquitto-clients are not installed")
    block = re.search(r"```sh from-broker\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    here = tmp_path / "here"
    here.mkdir()
    with tls_broker(tmp_path) as broker, broker.server() as server:
        server.publish(broker.topics.of(MANIFEST, group="line-1"), b"a manifest", retain=True)
        server.publish(broker.topics.of(ROOT, version=1), b"a root", retain=True)
        broker.services.issue_service(DASHBOARD).write(here, DASHBOARD)
        shutil.copy(broker.services.ca_file, here / "ca.pem")
        script = block[1]
        for said, meant in (("broker.example", "localhost"), ("8884", str(broker.settings.services.port))):
            assert said in script
            script = script.replace(said, meant)
        subprocess.run(["bash", "-euc", script], cwd=here, check=True, stdin=subprocess.DEVNULL, timeout=60)
    assert (here / "manifest.json").read_text() == "a manifest\n"
    assert (here / "1.root.json").read_text() == "a root\n"
