"""Envelopes: DSSE as published, k of n distinct keys, and no byte can be altered unnoticed."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as OtherEnvelope
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from fleet_protocol import envelope, limits
from fleet_protocol.envelope import Envelope, KeySet
from fleet_protocol.errors import ProtocolError

KIND = envelope.MANIFEST_TYPE
SIGNERS = [CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number in range(1, 5)]


def role(threshold: int, count: int = 3) -> KeySet:
    return KeySet(threshold, {signer.public_key.keyid: signer.public_key for signer in SIGNERS[:count]})


def code(signed: Envelope, keys: KeySet, kind: str = KIND) -> str:
    with pytest.raises(ProtocolError) as caught:
        envelope.verify(signed, kind, keys)
    return caught.value.code


def test_the_published_example_of_dsse() -> None:
    """protocol.md of DSSE v1: PAE of ("http://example.com/HelloWorld", "hello world")."""
    assert envelope.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(st.text(max_size=20), st.binary(max_size=50), st.text(max_size=20), st.binary(max_size=50))
def test_pae_is_injective(kind: str, payload: bytes, other_kind: str, other: bytes) -> None:
    same = (kind, payload) == (other_kind, other)
    kind, other_kind = kind.replace("\ud800", ""), other_kind.replace("\ud800", "")
    assert (envelope.pae(kind, payload) == envelope.pae(other_kind, other)) == same


@given(st.binary(max_size=200), st.integers(1, 3))
def test_what_is_signed_verifies_and_survives(payload: bytes, count: int) -> None:
    signed = envelope.sign(payload, KIND, SIGNERS[:count])
    again = envelope.decode(signed.encode(), max_size=10_000)
    assert again == signed
    assert envelope.verify(again, KIND, role(count)) == payload


def test_another_implementation_agrees() -> None:
    """securesystemslib reads ours, and we read securesystemslib's."""
    ours = envelope.sign(b"payload", KIND, SIGNERS[:2])
    theirs = OtherEnvelope.from_dict(json.loads(ours.encode()))
    assert set(theirs.verify([signer.public_key for signer in SIGNERS[:2]], 2)) == {
        signer.public_key.keyid for signer in SIGNERS[:2]
    }
    made = OtherEnvelope(b"payload", KIND, {})
    made.sign(SIGNERS[0])
    assert envelope.verify(envelope.decode(json.dumps(made.to_dict()).encode(), max_size=9_999), KIND, role(1))


@given(st.lists(st.integers(0, 3), max_size=6), st.integers(1, 3))
def test_k_of_n_distinct_listed_keys(signers: list[int], threshold: int) -> None:
    """Signer 3 is not listed; one that signs twice counts once."""
    signed = envelope.sign(b"x", KIND, [SIGNERS[number] for number in signers])
    votes = len(set(signers) - {3})
    if votes >= threshold:
        assert envelope.verify(signed, KIND, role(threshold)) == b"x"
    else:
        assert code(signed, role(threshold)) == ("threshold" if votes else "signature")


GOOD = envelope.sign(b'{"sequence":57}', KIND, SIGNERS[:2]).encode()


@settings(max_examples=300)
@given(at=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_an_altered_byte_is_refused_or_changes_nothing(at: int, byte: int) -> None:
    data = GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    try:
        payload = envelope.verify(envelope.decode(data, max_size=10_000), KIND, role(2))
    except ProtocolError as error:
        assert error.code in ("parse", "envelope", "type", "signature", "threshold")
    else:
        assert payload == b'{"sequence":57}'
        assert byte == GOOD[at] or {chr(byte), chr(GOOD[at])} in ({"+", "-"}, {"/", "_"})


def test_a_key_id_of_another_key_is_no_vote() -> None:
    signed = envelope.sign(b"x", KIND, [SIGNERS[0]])
    ((_, raw),) = signed.signatures
    lying = Envelope(b"x", KIND, ((SIGNERS[1].public_key.keyid, raw),))
    assert code(lying, role(1)) == "signature"


def test_a_signature_over_another_type_is_no_vote() -> None:
    signed = envelope.sign(b"x", envelope.COMMAND_TYPE, SIGNERS[:2])
    assert code(signed, role(1)) == "type"
    assert code(Envelope(b"x", KIND, signed.signatures), role(1)) == "signature"


def test_a_raw_signature_of_the_payload_is_no_vote() -> None:
    raw = SIGNERS[0].sign(b"x")
    assert isinstance(raw, Signature)
    assert code(Envelope(b"x", KIND, ((raw.keyid, bytes.fromhex(raw.signature)),)), role(1)) == "signature"


@pytest.mark.parametrize("threshold", [0, -1, 4, True, 1.0, "1", None])
def test_an_impossible_threshold_is_refused(threshold: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        KeySet(threshold, role(1).keys)  # type: ignore[arg-type]
    assert caught.value.code == "root"


@pytest.mark.parametrize("spell", [str, str.upper, lambda text: text[:2] + " " + text[2:]])
def test_one_key_under_two_ids_is_refused(spell: object) -> None:
    key = SIGNERS[0].public_key.to_dict()
    twin = key | {"keyval": {"public": spell(key["keyval"]["public"])}}  # type: ignore[operator]
    with pytest.raises(ProtocolError) as caught:
        envelope.key_set(2, {"a": key, "b": twin})
    assert caught.value.code == "threshold"


@pytest.mark.parametrize(
    "key",
    [
        None,
        {},
        {"keytype": "ed25519"},
        {"keytype": "ed25519", "scheme": "ed25519", "keyval": {}},
        {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00"}},
        {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "zz" * 32}},
        {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": 7}},
        {"keytype": "ed25519", "scheme": "ed25519", "keyval": None},
        {"keytype": "hmac", "scheme": "hmac", "keyval": {"public": "00" * 32}},
        {"keytype": "rsa", "scheme": "rsassa-pss-sha256", "keyval": {"public": "-----BEGIN PUBLIC KEY-----"}},
        {"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": "no pem"}},
        {"keytype": "ed25519", "scheme": "rsassa-pss-sha256", "keyval": {"public": "00" * 32}},
    ],
)
def test_a_malformed_key_is_refused(key: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        envelope.key_set(1, {"a": key})
    assert caught.value.code == "root"


def _document(**changes: object) -> bytes:
    document = {"payload": "eA==", "payloadType": KIND, "signatures": [{"keyid": "a", "sig": "eA=="}]}
    return json.dumps(document | changes).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"1",
        b"[]",
        b"{}",
        _document(extra=1),
        _document(payload=None),
        _document(payload="eA"),
        _document(payload="eB=="),
        _document(payload="e A=="),
        _document(payload="eA==\n"),
        _document(payload="ä"),
        _document(payloadType=None),
        _document(signatures={}),
        _document(signatures=[1]),
        _document(signatures=[{}]),
        _document(signatures=[{"keyid": "a"}]),
        _document(signatures=[{"keyid": 1, "sig": "eA=="}]),
        _document(signatures=[{"keyid": "a" * 129, "sig": "eA=="}]),
        _document(signatures=[{"keyid": "a", "sig": "eA==", "cert": ""}]),
        _document(signatures=[{"keyid": "a", "sig": base64.b64encode(bytes(2_000)).decode()}]),
        _document(signatures=[{"keyid": "a", "sig": "eA=="}] * (limits.SIGNATURES + 1)),
    ],
)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        envelope.decode(data, max_size=100_000)
    assert caught.value.code == "envelope"


def test_a_manifest_of_full_size_fits() -> None:
    """256 KiB on the wire are allowed, so one base64 string in it may be longer than other strings."""
    data = envelope.sign(b"x" * 190_000, KIND, SIGNERS[:1]).encode()
    assert envelope.verify(envelope.decode(data, max_size=limits.MANIFEST_SIZE), KIND, role(1))
    with pytest.raises(ProtocolError) as caught:
        envelope.decode(data, max_size=len(data) - 1)
    assert caught.value.code == "size"


@given(st.binary(max_size=400))
def test_any_bytes_are_an_envelope_or_a_code(data: bytes) -> None:
    try:
        envelope.decode(data, max_size=300)
    except ProtocolError as error:
        assert error.code in ("size", "parse", "envelope")


@pytest.mark.parametrize(
    ("private", "scheme"),
    [
        (Ed25519PrivateKey.generate(), "ed25519"),
        (ec.generate_private_key(ec.SECP256R1()), "ecdsa-sha2-nistp256"),
        (ec.generate_private_key(ec.SECP384R1()), "ecdsa-sha2-nistp384"),
        (rsa.generate_private_key(65_537, 2_048), "rsassa-pss-sha256"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rule_4_every_key_type_on_the_list_signs_and_verifies(private: Any, scheme: str) -> None:
    signer = CryptoSigner(private, SSlibKey.from_crypto(private.public_key(), scheme=scheme))
    keys = KeySet(1, {signer.public_key.keyid: signer.public_key})
    assert envelope.verify(envelope.sign(b"x", KIND, [signer]), KIND, keys) == b"x"


def test_a_role_has_no_more_keys_than_anybody_could_use() -> None:
    signers = [CryptoSigner.generate_ed25519() for _ in range(65)]
    keys = {signer.public_key.keyid: signer.public_key for signer in signers}
    assert KeySet(1, dict(list(keys.items())[:64])).values
    with pytest.raises(ProtocolError) as caught:
        KeySet(1, keys)
    assert caught.value.code == "root"
