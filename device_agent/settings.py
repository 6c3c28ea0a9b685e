"""The agent's settings: one frozen object per process, read once from `agent.toml`.

Every mistake in the file is a PolicyError `setup` of one line that names the file, the key and what it should be.
Unknown keys are mistakes, so that a misspelt limit is never silently the default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast
from urllib.parse import urlsplit

from device_agent.log import LEVELS, Level
from fleet_protocol.errors import PolicyError, ProtocolError
from fleet_protocol.ids import is_id
from fleet_protocol.topics import DEFAULT_PREFIX, Topics

ServiceManager = Literal["auto", "systemd", "supervisor"]
_SERVICE_MANAGERS: Final = ("auto", "systemd", "supervisor")
_PORTS: Final[Mapping[str, int]] = {"mqtt": 1883, "mqtts": 8883}
_MANY: Final = 2.0**53


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Where the broker is and how this device proves itself to it."""

    url: str = "mqtt://127.0.0.1:1883"
    host: str = "127.0.0.1"
    port: int = 1883
    tls: bool = False
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    """Certificates that the broker's must chain to; None means the system's."""
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadSettings:
    """Bounds on downloads. `*` in `allowed_hosts` is any public host; private ones must be named."""

    allowed_hosts: tuple[str, ...] = ("*",)
    rate_bytes_s: int = 0
    """Highest rate; 0 means no limit."""
    min_rate_bytes_s: int = 1024
    deadline_s: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """How often things happen, in seconds."""

    heartbeat_s: float = 60.0
    telemetry_s: float = 60.0
    health_s: float = 60.0
    reconnect_most_s: float = 120.0
    """Longest pause before the broker is tried again."""
    retry_most_s: float = 900.0
    """Longest pause before anything else is tried again, where no server asks for a longer one."""
    check_s: float | None = None
    """Least time between two checks on probation; None means what the release says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From where on a reading is critical. A reading above nine tenths of its threshold is a warning."""

    cpu_percent: float = 95.0
    memory_percent: float = 95.0
    disk_percent: float = 95.0
    load_per_cpu: float = 4.0
    temperature_celsius: float = 90.0
    log_errors_per_min: float = 30.0
    service_restarts: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Where the resident's log goes: standard error (under systemd that is the journal), or files of its own."""

    level: Level = "info"
    file: Path | None = None
    size_bytes: int = 1_000_000
    files: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """Checks that exist only where this device is told to make them."""

    dns_name: str | None = None
    """A name that must resolve. Without one it is the broker's, where the broker is not given by its address."""
    internet: str | None = None
    """`host:port` that must accept a TCP connection."""
    processes: tuple[str, ...] = ()
    """Names of processes that must run."""
    disks: tuple[Path, ...] = (Path("/"),)
    """File systems that must have room, beside the one that holds the agent's state."""
    log_files: tuple[Path, ...] = ()
    """Log files of other programs, whose error lines are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Everything the owner of a device decides about its agent."""

    device: str
    fleet: str
    device_class: str
    state_dir: Path
    topic_prefix: str = DEFAULT_PREFIX
    stop_services_on_exit: bool = False
    worker_user: str | None = None
    """Whom the workers that handle strangers' bytes run as, where the agent is root; None means as the agent."""
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    download: DownloadSettings = field(default_factory=DownloadSettings)
    http_port: int | None = None
    """Port of the local HTTP on 127.0.0.1; 0 is chosen by the kernel, None means no local HTTP."""
    intervals: Intervals = field(default_factory=Intervals)
    thresholds: Thresholds = field(default_factory=Thresholds)
    probes: ProbeSettings = field(default_factory=ProbeSettings)
    log: LogSettings = field(default_factory=LogSettings)
    variables: Mapping[str, str] = field(default_factory=dict)
    service_manager: ServiceManager = "auto"
    """Who runs services: `systemd`, the agent's own `supervisor`, or `auto`: systemd where this is root under it."""
    unit_user: str | None = None
    """Whose own service manager gets units of scope `user`, where the agent is root."""
    system_root: Path = Path("/")
    """Where the system's own files are; another place than / is for trials."""
    path: Path | None = None
    """The file that this was read from; handed to workers."""

    @property
    def topics(self) -> Topics:
        """The topics of this fleet."""
        return Topics(self.topic_prefix)


def load(path: Path) -> AgentSettings:
    """Read and check `path`; relative paths in it are relative to its directory. Raises PolicyError `setup`."""
    import tomllib  # noqa: PLC0415 - only needed once per process, and not by tests that build settings

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyError("setup", f"{path}: {error.strerror}; --config names another file") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyError("setup", f"{path}: {error}") from None
    return parse(table, path)


def parse(table: Mapping[str, Any], path: Path) -> AgentSettings:
    """Settings of an already parsed file; `path` gives the directory and the name in messages."""
    top = _Section(table, "", path)
    broker = _broker(top.section("broker"))
    settings = AgentSettings(
        device=top.id("device"),
        fleet=top.id("fleet"),
        device_class=top.id("class"),
        state_dir=top.must_path("state_dir"),
        topic_prefix=top.prefix("topic_prefix", DEFAULT_PREFIX),
        stop_services_on_exit=top.flag("stop_services_on_exit", default=False),
        worker_user=top.maybe_text("worker_user"),
        broker=broker,
        download=_download(top.section("download")),
        http_port=_http_port(top),
        intervals=_intervals(top.section("intervals")),
        thresholds=_thresholds(top.section("thresholds")),
        probes=_probes(top.section("probes"), broker.host),
        log=_log(top.section("log")),
        variables=_variables(top.section("variables")),
        service_manager=cast(ServiceManager, top.one_of("service_manager", "auto", _SERVICE_MANAGERS)),
        unit_user=top.maybe_text("unit_user"),
        system_root=top.maybe_path("system_root") or Path("/"),
        path=path.resolve(),
    )
    top.end()
    return settings


def _broker(section: "_Section") -> BrokerSettings:
    default = BrokerSettings()
    url = section.text("url", default.url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise section.wrong("url", "mqtt://host:port or mqtts://host:port") from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/") or "@" in parts.netloc:
        raise section.wrong("url", "mqtt://host:port or mqtts://host:port (names and passwords have their own keys)")
    broker = BrokerSettings(
        url=url,
        host=parts.hostname,
        port=port if port is not None else _PORTS[parts.scheme],
        tls=parts.scheme == "mqtts",
        username=section.maybe_text("username"),
        password_file=section.maybe_path("password_file"),
        ca_file=section.maybe_path("ca_file"),
        cert_file=section.maybe_path("cert_file"),
        key_file=section.maybe_path("key_file"),
        keepalive_s=section.whole("keepalive_s", default.keepalive_s, 5, 3_600),
    )
    section.end()
    if (broker.cert_file is None) != (broker.key_file is None):
        raise section.wrong("cert_file", "given together with key_file")
    return broker


def _download(section: "_Section") -> DownloadSettings:
    default = DownloadSettings()
    download = DownloadSettings(
        allowed_hosts=section.texts("allowed_hosts", default.allowed_hosts),
        rate_bytes_s=section.whole("rate_bytes_s", default.rate_bytes_s, 0, 2**40),
        min_rate_bytes_s=section.whole("min_rate_bytes_s", default.min_rate_bytes_s, 0, 2**40),
        deadline_s=section.number("deadline_s", default.deadline_s, 1, _MANY),
    )
    section.end()
    return download


def _http_port(top: "_Section") -> int | None:
    if not top.has("http"):
        return None
    section = top.section("http")
    port = section.whole("port", 8081, 0, 65_535)
    section.end()
    return port


def _intervals(section: "_Section") -> Intervals:
    default = Intervals()
    intervals = Intervals(
        heartbeat_s=section.number("heartbeat_s", default.heartbeat_s, 0.2, 86_400),
        telemetry_s=section.number("telemetry_s", default.telemetry_s, 0.2, 86_400),
        health_s=section.number("health_s", default.health_s, 0.2, 86_400),
        reconnect_most_s=section.number("reconnect_most_s", default.reconnect_most_s, 0.1, 86_400),
        retry_most_s=section.number("retry_most_s", default.retry_most_s, 0.1, 86_400),
        check_s=section.number("check_s", 0, 0.1, 3_600) if section.has("check_s") else None,
    )
    section.end()
    return intervals


def _thresholds(section: "_Section") -> Thresholds:
    default = Thresholds()
    names = Thresholds.__dataclass_fields__
    values = {name: section.number(name, getattr(default, name), 0, _MANY) for name in names}
    section.end()
    return Thresholds(**values)


def _log(section: "_Section") -> LogSettings:
    default = LogSettings()
    log = LogSettings(
        level=cast(Level, section.one_of("level", default.level, LEVELS)),
        file=section.maybe_path("file"),
        size_bytes=section.whole("size_bytes", default.size_bytes, 10_000, 2**40),
        files=section.whole("files", default.files, 1, 100),
    )
    section.end()
    return log


def _probes(section: "_Section", broker_host: str) -> ProbeSettings:
    default = ProbeSettings()
    probes = ProbeSettings(
        dns_name=section.maybe_text("dns_name") or _name_to_resolve(broker_host),
        internet=section.maybe_text("internet"),
        processes=section.texts("processes", default.processes),
        disks=section.paths("disks", default.disks),
        log_files=section.paths("log_files", default.log_files),
    )
    section.end()
    if probes.internet is not None and not probes.internet.rpartition(":")[2].isdecimal():
        raise section.wrong("internet", "host:port")
    return probes


def _name_to_resolve(host: str) -> str | None:
    """The host where it is a name that a name server must know; an address or localhost needs none."""
    literal = ":" in host or host.replace(".", "").isdecimal()
    return None if literal or host == "localhost" else host


def _variables(section: "_Section") -> Mapping[str, str]:
    names = section.names()
    for name in names:
        if not name.isidentifier():
            raise section.wrong(name, "named with letters, digits and underscores")
    return {name: section.text(name, "") for name in names}


class _Section:
    """One table of the file, which knows which of its keys nobody has asked for."""

    def __init__(self, table: Mapping[str, Any], name: str, path: Path) -> None:
        self._table, self._name, self._path = table, name, path
        self._asked: set[str] = set()

    def wrong(self, key: str, wanted: str) -> PolicyError:
        """The error for a value that is not what it should be."""
        where = f"[{self._name}] {key}" if self._name else key
        return PolicyError("setup", f"{self._path}: {where} must be {wanted}")

    def end(self) -> None:
        """Refuse keys that were never asked for."""
        unknown = sorted(set(self._table) - self._asked)
        if unknown:
            where = f"[{self._name}] " if self._name else ""
            raise PolicyError("setup", f"{self._path}: unknown key {where}{unknown[0]}")

    def has(self, key: str) -> bool:
        self._asked.add(key)
        return key in self._table

    def names(self) -> list[str]:
        return sorted(self._table)

    def section(self, key: str) -> "_Section":
        self._asked.add(key)
        value = self._table.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, f"a table, [{key}]")
        return _Section(value, key, self._path)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if not isinstance(value, str) or "\0" in value:
            raise self.wrong(key, "a text in quotes")
        return value

    def maybe_text(self, key: str) -> str | None:
        return self.text(key) if self.has(key) else None

    def one_of(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        value = self.text(key, default)
        if value not in allowed:
            raise self.wrong(key, f"one of {', '.join(allowed)}")
        return value

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self._get(key, list(default))
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "a list of texts")
        return tuple(value)

    def paths(self, key: str, default: tuple[Path, ...]) -> tuple[Path, ...]:
        base = self._path.resolve().parent
        return tuple(base / text for text in self.texts(key, ())) if self.has(key) else default

    def id(self, key: str) -> str:
        value = self._get(key, None)
        if not is_id(value):
            raise self.wrong(key, "a name of the form [a-z0-9][a-z0-9_-]{0,63}")
        return str(value)

    def prefix(self, key: str, default: str) -> str:
        value = self.text(key, default)
        try:
            return Topics(value).prefix
        except ProtocolError:
            raise self.wrong(key, "plain words joined by /") from None

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        value = self._get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.wrong(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def must_path(self, key: str) -> Path:
        return self._path.resolve().parent / self.text(key)

    def maybe_path(self, key: str) -> Path | None:
        return self.must_path(key) if self.has(key) else None

    def _get(self, key: str, default: object) -> object:
        self._asked.add(key)
        value = self._table.get(key, default)
        if value is None:
            raise self.wrong(key, "given")
        return value
