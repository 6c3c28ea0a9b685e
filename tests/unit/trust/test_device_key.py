"""The device's key and its signatures, read by the libraries that others verify with."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import SSlibKey

from device_agent.trust import device_key
from fleet_protocol.acceptance import open_report
from fleet_protocol.dsse import MANIFEST_TYPE, REPORT_TYPE, decode, pae
from fleet_protocol.envelope import key_set
from fleet_protocol.errors import FleetError, PolicyError, ProtocolError
from tests.fakes.trust_device import TrustDevice
from tests.fakes.trust_fleet import Fleet


def test_a_key_is_made_once_and_is_the_owner_s_alone(tmp_path: Path) -> None:
    first = device_key.create(tmp_path)
    assert device_key.create(tmp_path).public_key == first.public_key
    assert device_key.load(tmp_path).keyid == first.keyid
    assert [path.name for path in tmp_path.iterdir()] == ["device.pem"]
    assert (tmp_path / "device.pem").stat().st_mode & 0o777 == 0o600


def test_the_key_id_is_the_one_that_securesystemslib_computes(tmp_path: Path) -> None:
    key = device_key.create(tmp_path)
    reference = SSlibKey.from_crypto(key.private.public_key())
    assert (key.keyid, dict(key.public_key)) == (reference.keyid, reference.to_dict())


@pytest.mark.parametrize("content", [None, b"", b"no key", b"-----BEGIN PRIVATE KEY-----\n", b"x" * 100_000])
def test_a_missing_or_unreadable_key_is_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "device.pem").write_bytes(content)
    with pytest.raises(PolicyError, match="keys"):
        device_key.load(tmp_path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "device.pem"
    command = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(PolicyError, match="no ed25519 key"):
        device_key.load(tmp_path)


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Fleet, TrustDevice, bytes]:
    """A report signed by the operation."""
    fleet = Fleet()
    device = TrustDevice(fleet, tmp_path)
    payload = json.loads(decode(fleet.report(counter=5), max_size=10_000).payload)
    return fleet, device, device.sign(payload, REPORT_TYPE)


def test_the_server_opens_what_the_device_signs(signed: tuple[Fleet, TrustDevice, bytes]) -> None:
    _, device, data = signed
    key = key_set(1, {device.key.keyid: device.key.public_key})
    report = open_report(data, key=key, fleet="acme", device="node-1", after=4).document
    assert (report.device, report.counter) == ("node-1", 5)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"fleet": "other"}, "scope"),
        ({"device": "node-2"}, "scope"),
        ({"after": 5}, "replay"),
        ({"after": 6}, "replay"),
    ],
)
def test_a_report_that_is_not_this_device_s_newest(
    signed: tuple[Fleet, TrustDevice, bytes], options: dict[str, Any], code: str
) -> None:
    """M5."""
    _, device, data = signed
    key = key_set(1, {device.key.keyid: device.key.public_key})
    with pytest.raises(ProtocolError) as caught:
        open_report(data, key=key, **{"fleet": "acme", "device": "node-1", **options})
    assert caught.value.code == code


def test_a_report_of_another_key_or_another_type(signed: tuple[Fleet, TrustDevice, bytes]) -> None:
    """M5."""
    fleet, device, _ = signed
    key = key_set(1, {device.key.keyid: device.key.public_key})
    for data, code in ((fleet.report(), "signature"), (fleet.assignment(), "type")):
        with pytest.raises(ProtocolError) as caught:
            open_report(data, key=key, fleet="acme", device="node-1")
        assert caught.value.code == code


def test_a_device_signs_reports_and_nothing_else(signed: tuple[Fleet, TrustDevice, bytes]) -> None:
    _, device, _ = signed
    for kind in (MANIFEST_TYPE, "", "text/plain"):
        with pytest.raises(ProtocolError, match="type"):
            device.sign({"_type": "fairlead.manifest", "v": 1}, kind)


def test_a_report_beyond_its_topic_s_size_is_not_signed(signed: tuple[Fleet, TrustDevice, bytes]) -> None:
    _, device, _ = signed
    with pytest.raises(FleetError, match="size"):
        device.sign({"why": "x" * 70_000}, REPORT_TYPE)


def test_openssl_verifies_a_device_s_signature(signed: tuple[Fleet, TrustDevice, bytes], tmp_path: Path) -> None:
    """No client code of ours is needed to check a report."""
    _, _, data = signed
    signature = decode(data, max_size=100_000)
    (tmp_path / "message").write_bytes(pae(signature.payload_type, signature.payload))
    (tmp_path / "signature").write_bytes(signature.signatures[0][1])
    public = ["openssl", "pkey", "-in", str(tmp_path / "device.pem"), "-pubout", "-out", str(tmp_path / "public.pem")]
    subprocess.run(public, check=True, capture_output=True)
    verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin"]
    subprocess.run([*verify, "-in", "message", "-sigfile", "signature"], check=True, capture_output=True, cwd=tmp_path)
