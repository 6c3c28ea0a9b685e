"""A2 to A6: how signatures are counted, and for what."""

import json
from base64 import encodebytes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, Root

from fleet_protocol import envelope
from fleet_protocol.catalogue import FLEET_MEMBER
from fleet_protocol.fleet_role import format_fleet_role
from fleet_protocol.topics import ROOT, TARGETS, TIMESTAMP
from tests.fakes.trust_device import TrustDevice, enrolled, still_obeys
from tests.fakes.trust_fleet import Fleet, FleetKeys, ed25519


def two_of_three(state_dir: Path) -> tuple[Fleet, TrustDevice]:
    """A fleet whose deployment role asks for two signatures."""
    return enrolled(state_dir, keys=FleetKeys(deployment=ed25519(3)), thresholds={"deployment": 2})


def offers(fleet: Fleet, device: TrustDevice, signers: list[CryptoSigner]) -> dict[str, Callable[[], Any]]:
    """One document of each kind, signed by these."""
    manifest = fleet.manifest(fleet.deployment(), signers=signers)
    assignment = fleet.assignment(signers=signers)
    command = fleet.command(signers=signers)
    return {
        "manifest": lambda: device.offer_manifest(manifest),
        "assignment": lambda: device.offer_assignment(assignment),
        "command": lambda: device.offer_command(command),
    }


@pytest.mark.parametrize("name", ["manifest", "assignment", "command"])
def test_fewer_signatures_than_the_threshold(tmp_path: Path, name: str) -> None:
    """A2."""
    fleet, device = two_of_three(tmp_path)
    one, foreign = fleet.keys.deployment[:1], ed25519(1)
    assert device.refused(offers(fleet, device, [])[name]) == "signature"
    assert device.refused(offers(fleet, device, foreign)[name]) == "signature"
    assert device.refused(offers(fleet, device, one)[name]) == "threshold"
    assert device.refused(offers(fleet, device, one + foreign)[name]) == "threshold"
    still_obeys(fleet, device)


@pytest.mark.parametrize("name", ["manifest", "assignment", "command"])
def test_one_signature_counted_twice(tmp_path: Path, name: str) -> None:
    """A3: twice, many times, and under another or no key id."""
    fleet, device = two_of_three(tmp_path)
    key = fleet.keys.deployment[0]
    assert device.refused(offers(fleet, device, [key, key])[name]) == "threshold"
    assert device.refused(offers(fleet, device, [key] * 16)[name]) == "threshold"
    assert device.refused(offers(fleet, device, [key] * 17)[name]) == "envelope"
    still_obeys(fleet, device)


@pytest.mark.parametrize("keyids", [["", ""], ["own", ""], ["own", "other"], ["other", "other"], ["", "other"]])
def test_one_signature_under_borrowed_key_ids(tmp_path: Path, keyids: list[str]) -> None:
    """A3: a key id is a hint, and never a vote."""
    fleet, device = two_of_three(tmp_path)
    key, other = fleet.keys.deployment[:2]
    names = {"": "", "own": key.public_key.keyid, "other": other.public_key.keyid}
    document = json.loads(fleet.manifest(fleet.deployment(), signers=[key]))
    sig = document["signatures"][0]["sig"]
    document["signatures"] = [{"keyid": names[name], "sig": sig} for name in keyids]
    data = json.dumps(document).encode()
    assert device.refused(lambda: device.offer_manifest(data)) in ("threshold", "signature")
    still_obeys(fleet, device)


def test_signatures_without_key_ids_are_tried_under_every_key(tmp_path: Path) -> None:
    fleet, device = two_of_three(tmp_path)
    document = json.loads(fleet.manifest(fleet.deployment()))
    for row in document["signatures"]:
        del row["keyid"]
    assert device.offer_manifest(json.dumps(document).encode())["sequence"] == fleet.sequence


def spellings(signer: CryptoSigner) -> list[str]:
    """Other ways to write an ed25519 public key."""
    public = signer.public_key.keyval["public"]
    return [public, public.upper(), " ".join(public[i : i + 2] for i in range(0, 64, 2)), public + "\n"]


@pytest.mark.parametrize("spelling", range(4))
@pytest.mark.parametrize("role", ["deployment", "root", "targets", "snapshot", "timestamp"])
def test_one_public_key_under_two_key_ids(tmp_path: Path, role: str, spelling: int) -> None:
    """A4, for every role and every spelling of the key: such a root never becomes the newest."""
    fleet, device = enrolled(tmp_path)
    twin = SSlibKey("f" * 64, "ed25519", "ed25519", {"public": spellings(fleet.keys.of(role)[0])[spelling]})
    root = fleet.make_root(2)
    if role == "deployment":
        keys = {key.keyid: key.to_dict() for key in (fleet.keys.deployment[0].public_key, twin)}
        root.unrecognized_fields[FLEET_MEMBER] = format_fleet_role(fleet.fleet, 1, keys)
    else:
        root.add_key(twin, role)
    refuse_root(fleet, device, root, {"threshold"})


def test_one_elliptic_key_in_two_encodings(tmp_path: Path) -> None:
    """A4: a compressed point is the same key."""
    fleet, device = enrolled(tmp_path)
    public = generate_private_key(SECP256R1()).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    point = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    prefix = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    squeezed = SSlibKey.from_crypto(public).keyval["public"].replace("\n", "\r\n")
    compressed = f"-----BEGIN PUBLIC KEY-----\n{encodebytes(prefix + point).decode()}-----END PUBLIC KEY-----\n"
    for other in (squeezed, compressed):
        root = fleet.make_root(2)
        pair = {
            name: {"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": text}}
            for name, text in (("a" * 64, pem), ("b" * 64, other))
        }
        root.unrecognized_fields[FLEET_MEMBER] = format_fleet_role(fleet.fleet, 2, pair)
        refuse_root(fleet, device, root, {"threshold"})


@pytest.mark.parametrize("threshold", [0, -1, True, False, "1", 1.0, 1.5, None, [1], {}, 2**60])
@pytest.mark.parametrize("role", ["deployment", "root", "targets", "timestamp"])
def test_a_threshold_that_is_no_positive_integer(tmp_path: Path, role: str, threshold: Any) -> None:
    """A5."""
    fleet, device = enrolled(tmp_path)
    root = fleet.make_root(2)
    raw = json.loads(fleet.sign_metadata(root, fleet.keys.root))
    place = raw["signed"]["x-fleet"]["roles"] if role == "deployment" else raw["signed"]["roles"]
    place[role]["threshold"] = threshold
    refuse_root_bytes(fleet, device, sign_raw(raw["signed"], fleet.keys.root), {"root", "parse"})


@pytest.mark.parametrize("role", ["deployment", "root"])
def test_a_threshold_of_more_than_there_are_keys(tmp_path: Path, role: str) -> None:
    """A5. (A root that makes another role impossible is followed, as TUF asks, and then nothing verifies.)"""
    fleet, device = enrolled(tmp_path)
    root = fleet.make_root(2)
    if role == "deployment":
        root.unrecognized_fields[FLEET_MEMBER]["roles"]["deployment"]["threshold"] = 2
    else:
        root.roles[role].threshold = 4
    refuse_root(fleet, device, root, {"root"})


def test_an_impossible_online_role_verifies_nothing(tmp_path: Path) -> None:
    """A5: the root is validly signed and leads on to its own repair; until then the device stays where it is."""
    fleet, device = enrolled(tmp_path)
    root = fleet.make_root(2)
    root.roles["timestamp"].threshold = 2
    fleet.published[fleet.topic(ROOT, version=2)] = fleet.sign_metadata(root, fleet.keys.root)
    fleet.publish()
    assert device.refused_metadata(b"") == "threshold"
    fleet.roots.append(b"")
    fleet.rotate()
    assert device.refresh() == {"root": 3, "timestamp": 2, "snapshot": 2, "targets": 2}
    still_obeys(fleet, device)


TYPES = [
    envelope.MANIFEST_TYPE,
    envelope.ASSIGNMENT_TYPE,
    envelope.COMMAND_TYPE,
    envelope.REPORT_TYPE,
    "",
    "text/plain",
]


@pytest.mark.parametrize("payload_type", TYPES)
def test_a_document_in_the_place_of_another(tmp_path: Path, payload_type: str) -> None:
    """A6: payloadType, `_type` and `v` are each compared."""
    fleet, device = enrolled(tmp_path)
    payloads = {
        envelope.MANIFEST_TYPE: envelope.decode(fleet.manifest(fleet.deployment()), max_size=10_000).payload,
        envelope.ASSIGNMENT_TYPE: envelope.decode(fleet.assignment(), max_size=10_000).payload,
        envelope.COMMAND_TYPE: envelope.decode(fleet.command(), max_size=10_000).payload,
    }
    places = {
        envelope.MANIFEST_TYPE: device.offer_manifest,
        envelope.ASSIGNMENT_TYPE: device.offer_assignment,
        envelope.COMMAND_TYPE: device.offer_command,
    }
    for place, offer in places.items():
        for kind, payload in payloads.items():
            if (place, kind) == (payload_type, payload_type):
                continue
            data = fleet.sign_payload(payload, payload_type)
            assert device.refused(lambda offer=offer, data=data: offer(data)) == "type"
    for wrong in (b'"v":2', b'"v":true', b'"v":1.0', b'"v":"1"'):
        payload = payloads[envelope.MANIFEST_TYPE].replace(b'"v":1', wrong)
        data = fleet.sign_payload(payload, envelope.MANIFEST_TYPE)
        assert device.refused(lambda data=data: device.offer_manifest(data)) == "type"
    still_obeys(fleet, device)


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp", "device"])
def test_a_manifest_signed_by_a_key_of_another_role(tmp_path: Path, role: str) -> None:
    """A6: being trusted for something is not being trusted for this."""
    fleet, device = enrolled(tmp_path)
    signers = [fleet.keys.device] if role == "device" else fleet.keys.of(role)
    for offer in offers(fleet, device, signers).values():
        assert device.refused(offer) == "signature"
    still_obeys(fleet, device)


@pytest.mark.parametrize("role", ["deployment", "timestamp", "snapshot", "device"])
def test_metadata_signed_by_a_key_of_another_role(tmp_path: Path, role: str) -> None:
    """A6 for the catalogue."""
    fleet, device = enrolled(tmp_path)
    signers = [fleet.keys.device] if role == "device" else fleet.keys.of(role)
    fleet.versions = dict.fromkeys(fleet.versions, 2)
    targets = fleet.sign_metadata(fleet.make_targets(2), signers)
    fleet.put_targets(targets, version=2)
    assert device.refused_metadata(targets) == "signature"
    still_obeys(republished(fleet), device)


@pytest.mark.parametrize("name", ["timestamp", "targets"])
def test_metadata_in_the_place_of_another(tmp_path: Path, name: str) -> None:
    """A6: each metadata file in each other's place."""
    fleet, device = enrolled(tmp_path)
    kept = fleet.retained()
    fleet.publish()
    place = fleet.topic(TIMESTAMP) if name == "timestamp" else fleet.topic(TARGETS, version=2)
    for other, data in kept.items():
        if not other.startswith(fleet.topic(TIMESTAMP)[:-9]) or other.split("/")[-2:] == place.split("/")[-2:]:
            continue
        device.documents = {**fleet.published, place: data}
        wanted = {"type"} if name not in other else {"type", "mismatch", "replay", "signature"}
        assert device.refused_metadata(b"") in wanted, other
    device.documents = None
    still_obeys(fleet, device)


@pytest.mark.parametrize(
    ("keytype", "scheme"),
    [("ed25519", "ecdsa-sha2-nistp256"), ("rsa", "ed25519"), ("gpg", "pgp+rsa-pkcsv1.5"), ("none", "none"), ("", "")],
)
def test_a_deployment_key_of_another_algorithm(tmp_path: Path, keytype: str, scheme: str) -> None:
    """A6."""
    fleet, device = enrolled(tmp_path)
    root = fleet.make_root(2)
    public = fleet.keys.deployment[0].public_key.keyval
    keys = {"a" * 64: {"keytype": keytype, "scheme": scheme, "keyval": public}}
    root.unrecognized_fields[FLEET_MEMBER] = format_fleet_role(fleet.fleet, 1, keys)
    refuse_root(fleet, device, root, {"root"})


def republished(fleet: Fleet) -> Fleet:
    fleet.publish()
    return fleet


def refuse_root(fleet: Fleet, device: TrustDevice, root: Root, codes: set[str]) -> None:
    refuse_root_bytes(fleet, device, fleet.sign_metadata(root, fleet.keys.root), codes)


def refuse_root_bytes(fleet: Fleet, device: TrustDevice, data: bytes, codes: set[str]) -> None:
    """The root is refused wherever it may come in, and a good one in its place is taken."""
    topic = fleet.topic(ROOT, version=2)
    device.documents = {**fleet.published, topic: data}
    device.refill()
    assert device.refused(device.refresh) in codes
    device.documents = None
    still_obeys(fleet, device)


def sign_raw(signed: dict[str, Any], signers: list[CryptoSigner]) -> bytes:
    """Metadata that the library's own types would not carry."""
    try:
        data = str(encode_canonical(signed)).encode()
    except FormatError:  # floats have no canonical form; no signature can be right then
        data = b""
    signatures = [{"keyid": s.public_key.keyid, "sig": s.sign(data).signature} for s in signers]
    return json.dumps({"signed": signed, "signatures": signatures}).encode()


def test_the_raw_signer_makes_roots_that_verify(tmp_path: Path) -> None:
    """Or else the refusals above would prove nothing."""
    fleet, device = enrolled(tmp_path)
    raw = json.loads(fleet.sign_metadata(fleet.make_root(2), []))
    data = sign_raw(raw["signed"], fleet.keys.root)
    assert Metadata[Root].from_bytes(data).signed.version == 2
    fleet.published[fleet.topic(ROOT, version=2)] = data
    assert device.refresh()["root"] == 2
