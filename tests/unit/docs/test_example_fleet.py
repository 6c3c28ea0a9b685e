"""The worked example of the document is a whole, valid fleet: for our code, and for a stock TUF client."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from firmware_tools.metadata import entry, floors, read_targets
from firmware_tools.root_chain import verify_chain
from fleet_protocol import acceptance
from fleet_protocol.envelope import key_set
from fleet_protocol.timestamps import parse_time
from tests.vectors import make_vectors

EXAMPLE = Path(make_vectors.__file__).parent / "example"
NOW_S = parse_time("2026-11-23T06:00:30Z")


class _Files(FetcherInterface):
    def _fetch(self, url: str) -> Iterator[bytes]:
        path = EXAMPLE / urlsplit(url).path.lstrip("/").removeprefix("targets/")
        if not path.is_file():
            raise DownloadHTTPError("absent", 404)
        return iter([path.read_bytes()])


def test_a_stock_client_follows_it(tmp_path: Path) -> None:
    first = (EXAMPLE / "1.root.json").read_bytes()
    client = Updater(str(tmp_path), "file:///", fetcher=_Files(), bootstrap=first)
    client.refresh()
    info = client.get_targetinfo("my-service/1.2.0/aarch64.tar.zst")
    assert info is not None
    info.verify_length_and_hashes((EXAMPLE / "artifact").read_bytes())


def test_our_rules_hold_for_it() -> None:
    (root,) = verify_chain([(EXAMPLE / "1.root.json").read_bytes()])
    targets = read_targets((EXAMPLE / "1.targets.json").read_bytes())
    assert root.accepts_targets(targets)
    assert floors(targets.signed) == {"my-service": 11}
    role = root.roles["deployment"]
    data = (EXAMPLE / "manifest.json").read_bytes()
    manifest = acceptance.open_manifest(data, role=role, fleet=root.fleet, group="line-1", now_s=NOW_S).document
    (target,) = manifest.deployments[0].targets
    info, length, sha256 = entry(targets.signed, target.path)
    assert (target.length, target.sha256) == (length, sha256)
    assert (info.version, info.counter) == ("1.2.0", 12)
    data = (EXAMPLE / "assignment.json").read_bytes()
    assert acceptance.open_assignment(data, role=role, fleet="acme", device="node-1").document.group == "line-1"
    data = (EXAMPLE / "command.json").read_bytes()
    command = acceptance.open_command(data, role=role, fleet="acme", device="node-1", now_s=NOW_S).document
    assert command.name == "fetch-logs"


def test_the_report_verifies_under_the_devices_key() -> None:
    device = json.loads((EXAMPLE / "device-key.json").read_bytes())
    key = key_set(1, {device["keyid"]: device["key"]})
    data = (EXAMPLE / "report.json").read_bytes()
    report = acceptance.open_report(data, key=key, fleet="acme", device="node-1").document
    assert (report.counter, report.attempt is not None) == (41, True)
