"""The rules of `broker_config.ca`, by their numbers. What a broker makes of the certificates is in tests/attacks."""

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker_config.ca import Authority, Kind
from fleet_protocol.errors import FleetError, PolicyError


@pytest.fixture
def devices(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "devices", Kind.DEVICE, "acme")


@pytest.fixture
def services(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "services", Kind.SERVICE, "acme")


def read(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *names: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def test_a_devices_certificate_is_a_clients_and_named_as_the_device(devices: Authority) -> None:
    """C1"""
    issued = devices.issue_device("node-1")
    certificate = read(issued.certificate)
    assert certificate.subject.rfc4514_string() == "CN=node-1"
    assert usages(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    authority = read(devices.ca_file.read_bytes())
    certificate.verify_directly_issued_by(authority)
    assert usages(authority) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_each_authority_signs_its_own_kind_only(devices: Authority, services: Authority) -> None:
    """C1, C2"""
    for wrong in (
        lambda: devices.issue_server(["broker.example"]),
        lambda: devices.issue_service("service.server"),
        lambda: services.issue_device("node-1"),
    ):
        with pytest.raises(PolicyError, match="authority"):
            wrong()


def test_the_brokers_certificate_names_hosts_and_addresses(services: Authority) -> None:
    """C2"""
    certificate = read(services.issue_server(["broker.example", "192.0.2.1", "::1"]).certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1", "::1"]
    assert usages(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]


@pytest.mark.parametrize("hosts", [[], [""], ["a b"], ["*.example"], ["-a"], ["a..b"], ["x" * 254], ["a/b"]])
def test_only_hosts_are_hosts(services: Authority, hosts: list[str]) -> None:
    with pytest.raises(PolicyError):
        services.issue_server(hosts)


@pytest.mark.parametrize("name", ["server", "service.", "service.A", "service.a/b", "Service.a", "node-1"])
def test_a_service_is_called_as_no_device_can_be(services: Authority, name: str) -> None:
    with pytest.raises(PolicyError):
        services.issue_service(name)


def test_private_keys_are_readable_by_their_owner_only(devices: Authority, tmp_path: Path) -> None:
    """C3"""
    _, key = devices.issue_device("node-1").write(tmp_path / "out", "node-1")
    assert key is not None
    for path in (key, devices.ca_file.with_name("ca.key")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_authority_may_be_locked_with_a_passphrase(tmp_path: Path) -> None:
    """C3"""
    Authority.create(tmp_path, Kind.DEVICE, "acme", passphrase=b"secret")
    assert b"ENCRYPTED" in (tmp_path / "ca.key").read_bytes()
    Authority.load(tmp_path, passphrase=b"secret").issue_device("node-1")
    for wrong in (None, b"other"):
        with pytest.raises(PolicyError, match="passphrase"):
            Authority.load(tmp_path, passphrase=wrong)


def test_a_devices_own_key_is_certified_without_leaving_it(devices: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    issued = devices.issue_device("node-1", request=request(key, "node-1"))
    assert issued.key is None
    assert read(issued.certificate).public_key() == key.public_key()


def test_a_request_for_another_name_or_of_another_key_is_refused(devices: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    good = request(key, "node-1")
    forged = x509.load_pem_x509_csr(good).public_bytes(serialization.Encoding.DER)
    forged = forged[:-1] + bytes([forged[-1] ^ 1])
    weak = request(rsa.generate_private_key(65_537, 1_024), "node-1")
    for bad in (request(key, "node-2"), request(key, "node-1", "node-2"), request(key), weak, b"", b"x", forged):
        with pytest.raises(FleetError):
            devices.issue_device("node-1", request=bad)
    assert devices.issued() == []


def test_a_revoked_name_stands_on_the_list_and_may_have_a_new_certificate(devices: Authority) -> None:
    """C4"""
    first, second = devices.issue_device("node-1"), devices.issue_device("node-1")
    assert devices.revoke("node-1") == 2
    third = devices.issue_device("node-1")
    crl = x509.load_pem_x509_crl(devices.crl_file.read_bytes())
    authority = read(devices.ca_file.read_bytes())
    assert crl.is_signature_valid(authority.public_key())
    listed = [crl.get_revoked_certificate_by_serial_number(read(i.certificate).serial_number) for i in (first, second)]
    assert None not in listed
    assert crl.get_revoked_certificate_by_serial_number(read(third.certificate).serial_number) is None
    assert crl.next_update_utc == authority.not_valid_after_utc
    with pytest.raises(PolicyError, match="no valid certificate"):
        devices.revoke("node-2")


def test_an_authority_is_not_overwritten(devices: Authority) -> None:
    before = devices.ca_file.read_bytes()
    with pytest.raises(PolicyError, match="already holds"):
        Authority.create(devices.ca_file.parent, Kind.SERVICE, "acme")
    assert devices.ca_file.read_bytes() == before


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="ca init"):
        Authority.load(tmp_path)
    authority = Authority.create(tmp_path, Kind.DEVICE, "acme")
    (tmp_path / "issued.json").write_text("{")
    with pytest.raises(PolicyError, match="cannot be read"):
        authority.issue_device("node-1")


def test_no_certificate_outlives_its_authority(devices: Authority) -> None:
    issued = read(devices.issue_device("node-1", days=100_000).certificate)
    assert issued.not_valid_after_utc == read(devices.ca_file.read_bytes()).not_valid_after_utc
