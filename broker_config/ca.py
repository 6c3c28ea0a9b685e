"""Two small certificate authorities: one for devices, one for the broker and the services.

Rules:
 C1. the device authority signs client certificates only, and only for names of the id grammar; its own certificate
     says so (extended key usage), so that a server name that it signed does not verify;
 C2. the service authority signs the broker's server certificate and the client certificates of services;
 C3. private keys are written 0600, and an authority's key may be encrypted with a passphrase;
 C4. every certificate is listed with its serial, so that it can be revoked by name.
"""

import ipaddress
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, Self, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker_config.names import check_host, is_service_name
from broker_config.private_file import write_file
from fleet_protocol.errors import PolicyError
from fleet_protocol.ids import check_id, shown

AUTHORITY_DAYS: Final = 3_650
CERTIFICATE_DAYS: Final = 825
_RSA_LEAST: Final = 2_048
_BACKDATE: Final = timedelta(hours=1)
"""A device's clock may be a little behind the authority's."""
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


class Kind(StrEnum):
    """What an authority signs."""

    DEVICE = "device"
    SERVICE = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One certificate in an authority's list. `serial` is hexadecimal, `revoked` RFC 3339."""

    name: str
    serial: str
    not_after: str
    revoked: str | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """A signed certificate and its private key, PEM; the key is None where the holder made it."""

    certificate: bytes
    key: bytes | None

    def write(self, directory: Path, name: str) -> tuple[Path, Path | None]:
        """Write `<name>.pem` and, where there is one, `<name>.key` (0600); returns their paths."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        if self.key is not None:
            write_file(key, self.key, mode=0o600)
        write_file(certificate, self.certificate)
        return certificate, None if self.key is None else key


class Authority:
    """A certificate authority in a directory: ca.pem, ca.key, crl.pem, issued.json."""

    def __init__(self, directory: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._directory = directory
        self._certificate = certificate
        self._key = key
        self.kind = _kind_of(certificate)

    @classmethod
    def create(cls, directory: Path, kind: Kind, fleet: str, *, passphrase: bytes | None = None) -> Self:
        """Make a new authority; raises PolicyError `conflict` where the directory holds one already."""
        if (directory / "ca.pem").exists():
            raise PolicyError("conflict", f"{directory} already holds an authority; choose another directory")
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"{check_id(fleet, 'fleet')} {kind} authority")
        certificate = _authority_certificate(name, key, kind)
        encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        write_file(directory / "ca.key", _pem(key, encryption), mode=0o600)
        write_file(directory / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
        authority = cls(directory, certificate, key)
        authority._write_list([])
        return authority

    @classmethod
    def load(cls, directory: Path, *, passphrase: bytes | None = None) -> Self:
        """Read an authority; raises PolicyError `keys` where it is missing or the passphrase is wrong."""
        try:
            pem, locked = (directory / "ca.pem").read_bytes(), (directory / "ca.key").read_bytes()
        except OSError as error:
            raise PolicyError("keys", f"no authority in {directory}: {error.strerror}; make one with ca init") from None
        try:
            certificate = x509.load_pem_x509_certificate(pem)
        except ValueError:
            raise PolicyError("keys", f"{directory}/ca.pem is no certificate; restore it from a copy") from None
        try:
            key = serialization.load_pem_private_key(locked, passphrase)
        except (ValueError, TypeError):
            raise PolicyError("keys", f"{directory}/ca.key is no key, or needs its right passphrase") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise PolicyError("keys", f"{directory}/ca.key is not an elliptic curve key")
        return cls(directory, certificate, key)

    @property
    def ca_file(self) -> Path:
        """The authority's certificate."""
        return self._directory / "ca.pem"

    @property
    def crl_file(self) -> Path:
        """The list of revoked certificates, for the broker."""
        return self._directory / "crl.pem"

    def issue_device(self, device: str, *, request: bytes | None = None, days: int = CERTIFICATE_DAYS) -> Certificate:
        """A client certificate for one device (C1).

        With a PEM certificate signing `request` the device's key never leaves it; the request must be signed
        and name the device. Raises ProtocolError `schema` for a name that is no id, PolicyError otherwise.
        """
        self._must_be(Kind.DEVICE)
        check_id(device, "device")
        own = ec.generate_private_key(ec.SECP256R1()) if request is None else None
        public = own.public_key() if own is not None else _requested_key(request or b"", device)
        return self._issue(device, public, own, usage=ExtendedKeyUsageOID.CLIENT_AUTH, days=days)

    def issue_service(self, name: str, *, days: int = CERTIFICATE_DAYS) -> Certificate:
        """A client certificate for the server or a dashboard, `service.<id>` (C2)."""
        self._must_be(Kind.SERVICE)
        if not is_service_name(name):
            raise PolicyError("setup", f"a service is called service.<id>, not {shown(name)}")
        key = ec.generate_private_key(ec.SECP256R1())
        return self._issue(name, key.public_key(), key, usage=ExtendedKeyUsageOID.CLIENT_AUTH, days=days)

    def issue_server(self, hosts: Iterable[str], *, days: int = CERTIFICATE_DAYS) -> Certificate:
        """The broker's own certificate for these host names and addresses (C2)."""
        self._must_be(Kind.SERVICE)
        names = [_host(host) for host in hosts]
        if not names:
            raise PolicyError("setup", "a server certificate needs at least one host name or address")
        key = ec.generate_private_key(ec.SECP256R1())
        common = str(names[0].value)
        return self._issue(common, key.public_key(), key, usage=ExtendedKeyUsageOID.SERVER_AUTH, days=days, hosts=names)

    def revoke(self, name: str) -> int:
        """Revoke every valid certificate of that name and renew the list; returns how many there were."""
        now = datetime.now(UTC)
        rows = self.issued()
        hit = [row for row in rows if row.name == name and row.revoked is None]
        if not hit:
            raise PolicyError("setup", f"no valid certificate of {shown(name)} is listed in {self._directory}")
        self._write_list([replace(row, revoked=now.isoformat()) if row in hit else row for row in rows])
        return len(hit)

    def issued(self) -> list[Issued]:
        """Every certificate of this authority, oldest first."""
        try:
            return [Issued(**row) for row in json.loads((self._directory / "issued.json").read_bytes())]
        except (OSError, ValueError, TypeError) as error:
            raise PolicyError("keys", f"{self._directory}/issued.json cannot be read: {error}") from None

    def _must_be(self, kind: Kind) -> None:
        if self.kind is not kind:
            raise PolicyError("setup", f"{self._directory} holds the {self.kind} authority; this needs the {kind} one")

    def _issue(
        self,
        name: str,
        public: PublicKey,
        own: ec.EllipticCurvePrivateKey | None,
        *,
        usage: x509.ObjectIdentifier,
        days: int,
        hosts: Sequence[x509.GeneralName] = (),
    ) -> Certificate:
        now = datetime.now(UTC)
        not_after = min(now + timedelta(days=days), self._certificate.not_valid_after_utc)
        builder = _builder(_name(name), self._certificate.subject, public, now, not_after)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        builder = builder.add_extension(_key_usage(signs=True), critical=True)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(authority, critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        row = Issued(name=name, serial=f"{certificate.serial_number:x}", not_after=not_after.isoformat())
        self._write_list([*self.issued(), row])
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return Certificate(pem, None if own is None else _pem(own, serialization.NoEncryption()))

    def _write_list(self, rows: list[Issued]) -> None:
        """The revocation list first: one that revokes too much is safe, one that revokes too little is not."""
        # Valid as long as the authority: mosquitto refuses everybody once its list has expired, and a fleet
        # that stops because nobody renewed an empty list is the worse risk. The file's replacement revokes.
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._certificate.subject)
        builder = builder.last_update(now - _BACKDATE).next_update(self._certificate.not_valid_after_utc)
        for row in rows:
            if row.revoked is not None:
                entry = x509.RevokedCertificateBuilder().serial_number(int(row.serial, 16))
                builder = builder.add_revoked_certificate(
                    entry.revocation_date(datetime.fromisoformat(row.revoked)).build()
                )
        crl = builder.sign(self._key, hashes.SHA256())
        write_file(self.crl_file, crl.public_bytes(serialization.Encoding.PEM))
        listing = json.dumps([asdict(row) for row in rows], indent=1) + "\n"
        write_file(self._directory / "issued.json", listing.encode())


def _authority_certificate(name: x509.Name, key: ec.EllipticCurvePrivateKey, kind: Kind) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = _builder(name, name, key.public_key(), now, now + timedelta(days=AUTHORITY_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs=False), critical=True)
    if kind is Kind.DEVICE:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
    return builder.sign(key, hashes.SHA256())


def _kind_of(certificate: x509.Certificate) -> Kind:
    try:
        certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return Kind.SERVICE
    return Kind.DEVICE


def _builder(
    subject: x509.Name, issuer: x509.Name, public: PublicKey, now: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _BACKDATE).not_valid_after(not_after)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signs,
        crl_sign=not signs,
        encipher_only=False,
        decipher_only=False,
    )


def _requested_key(pem: bytes, device: str) -> PublicKey:
    try:
        request = x509.load_pem_x509_csr(pem)
        valid, key = request.is_signature_valid, request.public_key()
    except (ValueError, TypeError):
        raise PolicyError("setup", "the signing request cannot be read; give a PEM file") from None
    names = [str(part.value) for part in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not valid or names != [device]:
        raise PolicyError("setup", f"the signing request is not one of {device}, signed by its own key")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_LEAST:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return key
    raise PolicyError("setup", "the signing request's key is not EC, Ed25519 or RSA of 2048 bits and more")


def _host(host: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(check_host(host))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
