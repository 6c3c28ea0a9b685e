"""Configuration of mosquitto 2.0 for a fleet, rendered from the topic types.

Rules:
 Q1. on the devices' listener the certificate alone names the client: its common name is the user name and the
     client id, whatever CONNECT says;
 Q2. services have a listener and a certificate authority of their own; their names hold a dot, which no device
     id can, so that no device's session can be taken for a service's;
 Q3. nobody is anonymous, but on the loopback variant, which is for tests and trials;
 Q4. a packet larger than any topic allows is refused by its header;
 Q5. queues are bounded, and long enough for what the server must get after a pause.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker_config.acl import device_acl, service_acl
from broker_config.bounds import PACKET_MOST
from broker_config.names import SERVER, is_service_name
from fleet_protocol.errors import PolicyError
from fleet_protocol.topics import Topics

CONF: Final = "mosquitto.conf"
DEVICE_ACL: Final = "devices.acl"
SERVICE_ACL: Final = "services.acl"
QUEUE_MESSAGES: Final = 200_000
"""What may wait for one absent client: two reports of each of 100,000 devices. mosquitto's default is 1,000."""
QUEUE_BYTES: Final = 256 * 1024 * 1024
INFLIGHT_MESSAGES: Final = 1_000
"""Unacknowledged at a time; the server acknowledges whole batches, after their commit. mosquitto's default is 20."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The files of a TLS listener, PEM. `crl_file` lists revoked client certificates of `ca_file`."""

    ca_file: Path
    cert_file: Path
    key_file: Path
    crl_file: Path | None = None

    def __post_init__(self) -> None:
        for path in (self.ca_file, self.cert_file, self.key_file, self.crl_file):
            check_path(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceListener:
    """Where devices connect with certificates of the device authority."""

    tls: Tls
    port: int = 8883
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceListener:
    """Where the server and dashboards connect: with certificates, or with passwords where `password_file` is set."""

    tls: Tls
    port: int = 8884
    address: str | None = None
    password_file: Path | None = None
    dashboards: tuple[str, ...] = ()
    """User names `service.<id>`, one for each dashboard: a name has one session at a time."""

    def __post_init__(self) -> None:
        check_path(self.password_file)
        for name in self.dashboards:
            if not is_service_name(name) or name == SERVER:
                raise PolicyError("setup", f"a dashboard is called service.<id>, and not {SERVER}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MosquittoSettings:
    """One broker. `home` is where the rendered files will stand, `data_dir` where mosquitto keeps its memory."""

    home: Path
    data_dir: Path
    devices: DeviceListener
    services: ServiceListener
    topics: Topics = field(default_factory=Topics)
    user: str | None = None
    """The account that mosquitto runs under when it is started as root; None is its own default."""
    log: str = "stderr"

    def __post_init__(self) -> None:
        check_path(self.home)
        check_path(self.data_dir)


def render(settings: MosquittoSettings) -> Mapping[str, str]:
    """The files of a production broker by name: mosquitto.conf and the access rules of its two listeners."""
    dashboards = settings.services.dashboards
    return {
        CONF: _text([*_general(settings.data_dir, settings.user, settings.log), *_listeners(settings)]),
        DEVICE_ACL: device_acl(settings.topics),
        SERVICE_ACL: service_acl(settings.topics, SERVER, dashboards),
    }


def render_loopback(*, port: int, data_dir: Path, user: str | None = None) -> Mapping[str, str]:
    """A broker for tests and trials: on 127.0.0.1, without names, with production's limits and queues."""
    listener = ["", f"listener {_place(port, '127.0.0.1')}", "allow_anonymous true"]
    return {CONF: _text([*_general(data_dir, user, "stderr"), *listener])}


def check_path(path: Path | None) -> None:
    """Raise PolicyError `setup` for a path that a line of mosquitto.conf cannot carry."""
    if path is not None and (not path.is_absolute() or not str(path).isprintable()):
        raise PolicyError("setup", f"mosquitto.conf needs an absolute, printable path, not {str(path)!r}")


def _general(data_dir: Path, user: str | None, log: str) -> list[str]:
    check_path(data_dir)
    return [
        *([] if user is None else [f"user {user}"]),
        "per_listener_settings true",
        "",
        f"log_dest {log}",
        *(f"log_type {kind}" for kind in ("error", "warning", "notice")),
        "connection_messages false",
        "",
        "# Retained documents and the queues of absent clients outlive a restart.",
        "persistence true",
        f"persistence_location {data_dir}/",
        "autosave_interval 60",
        "persistent_client_expiration 30d",
        "",
        "# No topic allows more than this; longer packets are refused by their header.",
        f"max_packet_size {PACKET_MOST}",
        "",
        "# The server gets every report of a pause.",
        f"max_queued_messages {QUEUE_MESSAGES}",
        f"max_queued_bytes {QUEUE_BYTES}",
        f"max_inflight_messages {INFLIGHT_MESSAGES}",
        "set_tcp_nodelay true",
    ]


def _listeners(settings: MosquittoSettings) -> list[str]:
    devices, services = settings.devices, settings.services
    by_certificate = ["require_certificate true", "use_identity_as_username true"]
    by_password = ["require_certificate false", f"password_file {services.password_file}"]
    return [
        "",
        "# Devices: the certificate names the client.",
        f"listener {_place(devices.port, devices.address)}",
        *_tls(devices.tls),
        *by_certificate,
        "use_username_as_clientid true",
        "allow_anonymous false",
        f"acl_file {settings.home / DEVICE_ACL}",
        "",
        "# Services: the server and dashboards.",
        f"listener {_place(services.port, services.address)}",
        *_tls(services.tls),
        *(by_certificate if services.password_file is None else by_password),
        "use_username_as_clientid true",
        "allow_anonymous false",
        f"acl_file {settings.home / SERVICE_ACL}",
    ]


def _tls(tls: Tls) -> list[str]:
    lines = [f"cafile {tls.ca_file}", f"certfile {tls.cert_file}", f"keyfile {tls.key_file}", "tls_version tlsv1.2"]
    return lines if tls.crl_file is None else [*lines, f"crlfile {tls.crl_file}"]


def _place(port: int, address: str | None) -> str:
    if not 1 <= port <= 65_535:
        raise PolicyError("setup", f"{port} is not a port to listen on")
    if address is not None and (not address or not address.isprintable() or " " in address):
        raise PolicyError("setup", f"{address!r} is not an address to listen on")
    return str(port) if address is None else f"{port} {address}"


def _text(lines: list[str]) -> str:
    return "\n".join(["# Rendered by Fairlead from its topic types and limits.", *lines]) + "\n"
