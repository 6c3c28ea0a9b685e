"""The server's settings: environment variables `FAIRLEAD_<NAME>`, read once, frozen."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker_config.site import Site
from fleet_protocol.errors import FleetError, PolicyError
from fleet_protocol.ids import check_id
from fleet_protocol.topics import DEFAULT_PREFIX, Topics
from server.variables import PREFIX

Signing = Literal["server", "online"]


def _fleet(value: str) -> str:
    try:
        return check_id(value, "fleet")
    except FleetError as error:
        raise ValueError(error.detail) from None


def _prefix(value: str) -> str:
    try:
        return Topics(value).prefix
    except FleetError as error:
        raise ValueError(error.detail) from None


def _url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return value.rstrip("/")


class Settings(BaseSettings):
    """Everything that an operator may choose about one server process. Durations carry their unit in the name."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    data_dir: Path = Path("fairlead-data")
    """Database, artifacts, catalogue, keys and token; made with mode 0700."""
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)
    """HTTP port; 0 lets the kernel choose."""
    public_url: Annotated[str, AfterValidator(_url)] | None = None
    """Base of the artifact addresses in manifests; None means this server's own host and port."""
    broker_dir: Path | None = None
    """What `fairlead broker setup` made: address, certificates, fleet and prefix come from there, unless given."""
    broker_url: str | None = None
    """`mqtt://host:port` or `mqtts://…`; None starts the embedded broker as a child process."""
    broker_host: str = "127.0.0.1"
    """Where the embedded broker listens."""
    broker_port: int = Field(1883, ge=0, le=65_535)
    """The embedded broker's port; 0 lets the kernel choose, and keeps that choice over restarts."""
    broker_username: str | None = None
    broker_password_file: Path | None = None
    broker_ca_file: Path | None = None
    broker_cert_file: Path | None = None
    broker_key_file: Path | None = None
    database_url: str | None = None
    """SQLAlchemy address; None means SQLite in the data directory."""
    fleet: Annotated[str, AfterValidator(_fleet)] | None = None
    """The fleet's name; None means that of the root in the data directory, and `fleet` before there is one."""
    topic_prefix: Annotated[str, AfterValidator(_prefix)] = DEFAULT_PREFIX
    signing: Signing = "online"
    """`online`: snapshot, timestamp and deployment keys only. `server`: all keys; for demos and small fleets."""
    tick_s: float = Field(1.0, gt=0, le=60)
    manifest_days: float = Field(7.0, gt=0, le=365)
    """How long a manifest is valid."""
    snapshot_days: float = Field(14.0, gt=0, le=365)
    timestamp_days: float = Field(3.0, gt=0, le=365)
    resign_hours: float = Field(24.0, gt=0, le=24 * 30)
    """The age at which manifests and the timestamp are signed anew."""
    grace_s: float = Field(900.0, ge=0)
    """How long replaced snapshot and targets documents stay on the broker for devices that are mid-refresh."""
    sequence_floor: int = Field(0, ge=0, le=2**52)
    """No manifest and no assignment gets this sequence or one below it, from this start on for good: for a server whose
    memory was lost. See docs/operations.md."""
    command_timeout_s: float = Field(10.0, gt=0, le=300)
    artifact_most_bytes: int = Field(8 * 1024**3, ge=1)
    catalogue_most_bytes: int = Field(32 * 1024**2, ge=1)
    body_most_bytes: int = Field(1024**2, ge=1_024)
    """Cap of every other request body."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def database(self) -> str:
        """The SQLAlchemy address in use."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'fairlead.db').resolve()}"


def load(**chosen: Any) -> Settings:
    """The settings from the environment, `chosen` values before it; raises PolicyError `setup` with one line."""
    try:
        settings = Settings(**chosen)
        if settings.broker_dir is None:
            return settings
        found = Site.known(settings.broker_dir).server_settings(settings.broker_dir)
        return Settings(**{name: v for name, v in found.items() if name not in settings.model_fields_set} | chosen)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"])
        raise PolicyError("setup", f"{PREFIX}{name.upper()}: {first['msg']}"[:300]) from None
