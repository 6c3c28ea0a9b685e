"""Where the broker is and how to speak to it."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fleet_protocol.errors import PolicyError

_PORTS = {"mqtt": 1_883, "mqtts": 8_883}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """The server's connection; raises PolicyError `setup` for an address that is not `mqtt(s)://host[:port]`."""

    url: str
    client_id: str = "fairlead-server"
    username: str | None = None
    password_file: Path | None = None
    """Its first line is the password."""
    ca_file: Path | None = None
    """What a `mqtts` broker's certificate must chain to; None means the system's authorities."""
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = 30
    connect_s: float = 10.0
    """How long a connection may take, up to the broker's answer."""
    backoff_least_s: float = 0.5
    backoff_most_s: float = 10.0
    session_s: int = 24 * 3600
    """How long the broker keeps QoS 1 messages for a server that is away (MQTT 5)."""

    def __post_init__(self) -> None:
        self._parts()

    def _parts(self) -> tuple[str, str, int]:
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:
            raise PolicyError("setup", "the broker's address has no valid port") from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            raise PolicyError("setup", "the broker's address must be mqtt://host:port or mqtts://host:port")
        return parts.scheme, parts.hostname, port or _PORTS[parts.scheme]

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self._parts()[0] == "mqtts"

    @property
    def host(self) -> str:
        """The broker's name or address."""
        return self._parts()[1]

    @property
    def port(self) -> int:
        """The broker's TCP port."""
        return self._parts()[2]

    def password(self) -> str | None:
        """The password, read now; raises PolicyError `setup` where the file can not be read."""
        if self.password_file is None:
            return None
        try:
            lines = self.password_file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError("setup", f"the broker password can not be read: {error}") from None
        return lines[0] if lines else ""
