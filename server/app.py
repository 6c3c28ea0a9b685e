"""The composition root: one server, from its settings to its last thread.

Start: data directory, HTTP socket, database, embedded broker, catalogue and manifests, ingest, link, guardian, tick,
HTTP. Each step that fails undoes those before it and ends in one line. Stop is the reverse, but that ingest stops
before the link: it takes no more, commits what it has, and the link acknowledges that before it disconnects.
"""

import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from types import FrameType
from typing import Final

from loguru import logger
from prometheus_client import CollectorRegistry

from fleet_protocol.errors import FleetError, PolicyError
from fleet_protocol.topics import Topics
from server.adapters.clock import SystemClock
from server.adapters.mqtt import LinkSettings, MqttLink
from server.adapters.sql.store import SqlStore
from server.api.application import create_application
from server.api.use_cases import UseCases
from server.broker_child import BrokerChild
from server.data_dir import DataDir
from server.http_server import HttpServer, bind
from server.log import start_logging
from server.ports import Clock
from server.services.artifacts import Artifacts
from server.services.catalogue import Catalogue, Lifetimes
from server.services.catalogue_files import CatalogueFiles
from server.services.commands import Commands
from server.services.complaints import Complaints
from server.services.decommissioning import Decommissioning
from server.services.devices_asked import DevicesAsked
from server.services.evidence import Evidence
from server.services.guardian import Guardian
from server.services.ingest import Ingest, IngestSettings
from server.services.ingest_metrics import IngestMetrics
from server.services.keyring import KeyDirectory
from server.services.manifests import ManifestRules, Manifests
from server.services.nodes import Nodes
from server.services.publication import Publication
from server.services.publishing import Publishing
from server.services.release_desk import ReleaseDesk
from server.services.retrying import Retrying
from server.services.rollout_tick import RolloutTick
from server.services.sequences import set_floor
from server.services.status import StatusDesk
from server.services.steering import Steering
from server.services.uploading import Uploading
from server.services.witness import Witness
from server.settings import Settings
from server.tokens import API, ENROL
from server.variables import unread

_DAY_S: Final = 86_400
_WILDCARDS: Final = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, never bound by default
_RENEW_S: Final = 3_600
_PATIENCE_S: Final = 15.0


class Server:
    """One running server. `start` may be called once; `stop` any number of times."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = ""
        """`http://host:port`, known after `start`."""
        self.broker_url = ""
        self.token = ""
        self.broker: BrokerChild | None = None
        """The embedded broker, where no address of another one was given."""
        self._undo = ExitStack()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Return once requests are answered. Raises FleetError with one line, and then nothing is left running."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything that `start` began, in reverse order."""
        self._stopping.set()
        self._undo.close()

    def _start(self) -> None:
        settings, undo = self.settings, self._undo
        if settings.host in _WILDCARDS and settings.public_url is None:
            raise PolicyError("setup", f"host {settings.host} is every address: set FAIRLEAD_PUBLIC_URL for devices")
        data = DataDir(settings.data_dir)
        data.open()
        undo.callback(data.close)
        fleet = data.fleet(settings.fleet)
        tokens = data.tokens()
        self.token = tokens.api
        listener = bind(settings.host, settings.port)
        undo.callback(listener.close)
        self.url = f"http://{_host(settings.host)}:{listener.getsockname()[1]}"
        store = SqlStore(settings.database)
        undo.callback(store.close)
        self.broker_url = self._start_broker(data)
        parts = _Parts(settings, self, store, SystemClock(), fleet=fleet)
        parts.start(undo)
        self._start_threads(parts)
        http = HttpServer(create_application(parts.use_cases(), settings, tokens), listener)
        http.start()
        undo.callback(http.stop)
        ready = "server {} is ready, fleet {}, broker {}, signing {}"
        logger.info(ready, self.url, fleet, self.broker_url, settings.signing)

    def _start_broker(self, data: DataDir) -> str:
        settings = self.settings
        if settings.broker_url is not None:
            return settings.broker_url
        last = _last_broker_port(data)
        port = settings.broker_port or last
        broker = BrokerChild(host=settings.broker_host, port=port, data_dir=settings.data_dir / "broker")
        host, port = broker.start(patience_s=_PATIENCE_S if port and port == last else 0.0)
        self._undo.callback(broker.stop)
        self.broker = broker
        data.write_private("broker.port", f"{port}\n")
        return f"mqtt://{_host(host)}:{port}"

    def _start_threads(self, parts: "_Parts") -> None:
        for name, target in (
            ("guardian", partial(parts.guardian.run, self._stopping)),
            ("tick", partial(parts.run_ticks, self._stopping)),
        ):
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            self._undo.callback(thread.join)
        # Undone first, so that the two threads see it before they are joined.
        self._undo.callback(self._stopping.set)


class _Parts:
    """The services of one server, wired to its adapters."""

    def __init__(self, settings: Settings, server: Server, store: SqlStore, clock: Clock, *, fleet: str) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        topics = Topics(settings.topic_prefix)
        self._public_url = settings.public_url or server.url
        self._registry = CollectorRegistry()
        self._link = MqttLink(_link_settings(settings, server.broker_url), topics, clock)
        self._publication = Publication(store, self._link, topics)
        keyring = KeyDirectory(settings.data_dir / "keys")
        self._artifacts = Artifacts(settings.data_dir / "artifacts", most_bytes=settings.artifact_most_bytes)
        self._catalogue = Catalogue(
            CatalogueFiles(settings.data_dir / "catalogue"),
            keyring,
            topics,
            fleet=fleet,
            lifetimes=_lifetimes(settings),
        )
        self._manifests = Manifests(
            self._catalogue, keyring, topics, rules=_manifest_rules(settings, fleet), artifact_urls=self._artifact_urls
        )
        self._complaints = Complaints()
        self._evidence = Evidence(self._catalogue)
        self._tick = RolloutTick(
            store,
            self._publication,
            self._catalogue,
            self._manifests,
            observe=self._evidence.observe,
            clock=clock,
        )
        self._commands = Commands(
            self._link,
            self._catalogue,
            keyring,
            topics,
            fleet=fleet,
            timeout_s=settings.command_timeout_s,
            clock=clock,
        )
        self._uploading = Uploading(
            self._publication, self._catalogue, self._artifacts, refresh=self._tick.start, clock=clock
        )
        self._nodes = Nodes(
            self._publication, self._catalogue, self._manifests, keyring, topics, fleet=fleet, clock=clock
        )
        self._witness = Witness(
            self._publication, self._catalogue, self._manifests, self._nodes, topics, fleet=fleet, clock=clock
        )
        self.guardian = Guardian(store, self._publication, self._witness, clock=clock, ask_again=self._tick.ask_again)
        self._decommissioning = Decommissioning(self._publication, self._catalogue, topics, clock=clock)
        self._desk = self._release_desk(fleet)
        self._ingest = Ingest(
            store,
            IngestSettings(fleet=fleet),
            IngestMetrics(self._registry),
            on_reply=self._commands.answered,
        )
        self._status = self._status_desk(server.broker_url)
        self._export()

    def start(self, undo: ExitStack) -> None:
        """Bring the store, the disk and the broker in step, and start what listens to devices."""
        self._artifacts.recover()
        self._publication.load()
        with self._publication.begin() as change:
            if self._settings.sequence_floor:
                set_floor(change.work, self._settings.sequence_floor)
            self._catalogue.load(change, self._clock.now_s())
        if self._desk is not None:
            self._desk.start(self._settings.data_dir / "artifacts")
        self._tick.start()
        if self._settings.sequence_floor:
            self._nodes.refresh()
        # Undone last: what ingest still commits at its end is acknowledged over the link.
        undo.callback(self._link.stop)
        self._ingest.start()
        undo.callback(self._ingest.stop)
        self._link.start(self._ingest, on_connected=self.guardian.on_connected, on_retained=self.guardian.on_retained)

    def run_ticks(self, stop: threading.Event) -> None:
        """The tick thread, until told to stop."""
        renewed_s = time.monotonic()
        while not stop.wait(self._settings.tick_s):
            self._complaints.guard("tick", self._tick.tick)
            if self._desk is not None and time.monotonic() - renewed_s >= _RENEW_S:
                renewed_s = time.monotonic()
                self._complaints.guard("release desk", self._desk.renew)

    def use_cases(self) -> UseCases:
        """What the API may call."""
        store, clock, publication = self._store, self._clock, self._publication
        asked = DevicesAsked(store, self._commands, clock=clock)
        return UseCases(
            store=store,
            clock=clock,
            catalogue=self._catalogue,
            artifacts=self._artifacts,
            publishing=Publishing(publication, self._catalogue, self._manifests, self._artifacts, clock=clock),
            steering=Steering(publication, self._manifests, self._evidence.observe, clock=clock),
            retrying=Retrying(store, asked, clock=clock),
            nodes=self._nodes,
            decommissioning=self._decommissioning,
            asked=asked,
            uploading=self._uploading,
            release_desk=self._desk,
            registry=self._registry,
            status=self._status,
        )

    def _release_desk(self, fleet: str) -> ReleaseDesk | None:
        settings = self._settings
        if settings.signing != "server":
            return None
        return ReleaseDesk(settings.data_dir / "keys", self._catalogue, self._uploading, fleet=fleet, clock=self._clock)

    def _status_desk(self, broker_url: str) -> StatusDesk:
        problems = [
            lambda: self._catalogue.problems(self._clock.now_s()),
            self._tick.problems,
            self.guardian.problems,
            self._complaints.problems,
        ]
        signing = self._settings.signing
        return StatusDesk(self._store, self._link, broker_url=broker_url, signing=signing, problems=problems)

    def _artifact_urls(self, sha256: str) -> tuple[str, ...]:
        stored = self._artifacts.size(sha256) is not None
        return (f"{self._public_url}/artifacts/{sha256}",) if stored else ()

    def _export(self) -> None:
        self._status.export(self._registry)
        self.guardian.export(self._registry)
        self._commands.export(self._registry)


def run(settings: Settings, *, stop: threading.Event | None = None) -> int:
    """Serve until SIGTERM, SIGINT or `stop`; 0 after an orderly end, 1 with one line where it can not start."""
    start_logging(settings.log_level)
    for line in unread(os.environ, Settings.model_fields):
        logger.warning(line)
    ending = stop or threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ending.set()

    handlers = [(number, signal.signal(number, end)) for number in (signal.SIGTERM, signal.SIGINT)]
    server = Server(settings)
    try:
        server.start()
        _say(f"broker {server.broker_url}")
        _say(f"server {server.url}")
        _say(f"token {settings.data_dir / API}")
        _say(f"enrol-token {settings.data_dir / ENROL}")
        ending.wait()
    except FleetError as error:
        sys.stderr.write(f"fairlead: {error.code}: {error.detail}\n")
        return 1
    finally:
        server.stop()
        for number, handler in handlers:
            signal.signal(number, handler)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _host(host: str) -> str:
    """The host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def _last_broker_port(data: DataDir) -> int:
    """Where the embedded broker was at the last start, so that devices find it again; 0 before the first."""
    file = data.path / "broker.port"
    text = file.read_text(encoding="ascii").strip() if file.is_file() else ""
    return int(text) if text.isdigit() else 0


def _link_settings(settings: Settings, url: str) -> LinkSettings:
    return LinkSettings(
        url=url,
        username=settings.broker_username,
        password_file=settings.broker_password_file,
        ca_file=settings.broker_ca_file,
        cert_file=settings.broker_cert_file,
        key_file=settings.broker_key_file,
    )


def _lifetimes(settings: Settings) -> Lifetimes:
    return Lifetimes(
        snapshot_days=settings.snapshot_days,
        timestamp_days=settings.timestamp_days,
        resign_s=settings.resign_hours * 3_600,
        grace_s=settings.grace_s,
    )


def _manifest_rules(settings: Settings, fleet: str) -> ManifestRules:
    return ManifestRules(fleet=fleet, life_s=settings.manifest_days * _DAY_S, reissue_s=settings.resign_hours * 3_600)
