"""The resident stays light: what it may not import, it does not (blueprint section 6)."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "tuf",
    "securesystemslib",
    "cryptography",
    "pydantic",
    "urllib3",
    "zstandard",
    "loguru",
    "asyncio",
    "http",
    "email",
    "logging.config",
    "multiprocessing",
    "unittest",
    "fleet_protocol.envelope",
    "fleet_protocol.schema",
    "fleet_protocol.fleet_role",
    "fleet_protocol.acceptance",
}
PROGRAM = """
import json, sys
from device_agent import lean
lean.import_paho(tls={tls})
import device_agent.resident
import hashlib
assert hashlib.sha256(b"").hexdigest().startswith("e3b0c442")
print(json.dumps(sorted(sys.modules)))
"""


def _modules(*, tls: bool) -> set[str]:
    program = PROGRAM.format(tls=tls)
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def _heavy(modules: set[str]) -> set[str]:
    return {module for module in modules if module in HEAVY or module.split(".")[0] in HEAVY}


def test_the_resident_imports_nothing_heavy() -> None:
    modules = _modules(tls=False)
    assert _heavy(modules) == set()
    assert not modules & {"ssl", "_ssl", "_hashlib", "urllib.request"}
    assert {"paho.mqtt.client", "psutil", "tinydb"} <= modules


def test_with_tls_it_imports_tls_and_no_more() -> None:
    modules = _modules(tls=True)
    assert _heavy(modules) == set()


@pytest.mark.parametrize("module", ["device_agent.cli", "device_agent.settings"])
def test_the_command_line_starts_light(module: str) -> None:
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    assert _heavy(modules) == set()
    assert not modules & {"ssl", "paho.mqtt.client", "psutil"}


def test_verifying_documents_needs_no_http_and_leaves_tuf_whole() -> None:
    """They are a seventh of the largest worker's memory."""
    program = (
        "import json, sys, device_agent.trust.metadata; print(json.dumps(sorted(sys.modules)))\n"
        "from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher; assert 'urllib3' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & {"urllib3", "ssl", "http.client", "email", "tuf.ngclient.urllib3_fetcher"}
