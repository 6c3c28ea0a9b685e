"""Puts the resident together: settings in, exit status out."""

import faulthandler
import os
import signal
from dataclasses import replace
from pathlib import Path

from device_agent.adapters.journal import TinyJournal
from device_agent.adapters.link_reader import LinkReader
from device_agent.adapters.local_http import LocalHttp
from device_agent.adapters.mqtt import MqttLink
from device_agent.adapters.outbox import DiskOutbox
from device_agent.adapters.overseer import SystemdOverseer
from device_agent.adapters.services import DeviceServices
from device_agent.adapters.spool import DocumentSpool
from device_agent.adapters.state_folders import lay_out
from device_agent.adapters.state_lock import state_lock
from device_agent.adapters.trusted_clock import TrustedClock
from device_agent.adapters.worker_process import WorkerProcess
from device_agent.agent import Agent, Ports
from device_agent.core.effects import Effect
from device_agent.core.events import Event
from device_agent.core.machine import step
from device_agent.core.record import Record
from device_agent.driver import Step
from device_agent.identity import worker_user
from device_agent.inbox import Inbox
from device_agent.intake import Intake
from device_agent.local_api import LocalApi
from device_agent.log import Log
from device_agent.log_file import LogFile
from device_agent.ports import Journal
from device_agent.probes.probes import DeviceProbes
from device_agent.settings import AgentSettings, LogSettings
from fleet_protocol.errors import FleetError, PolicyError


def run(settings: AgentSettings) -> int:
    """Be the agent of this device until SIGTERM or SIGINT. Raises PolicyError for what its owner must mend."""
    if settings.path is None:
        raise PolicyError("setup", "the agent needs a settings file, for its workers read it too")
    faulthandler.enable()  # what a watchdog's SIGABRT found it doing
    user = worker_user(settings)
    file = _log_file(settings.log)
    log = Log(file, level=settings.log.level)
    with state_lock(settings.state_dir):
        lay_out(settings.state_dir, user)
        _Resident(settings, settings.path, log, worker_user=user is not None).run()
    log.info("agent", "stopped in good order")  # noqa: PLE1205 - not the logging library
    if file is not None:
        file.close()
    return 0


def _log_file(settings: LogSettings) -> LogFile | None:
    if settings.file is None:
        return None
    try:
        return LogFile(settings.file, size_bytes=settings.size_bytes, files=settings.files)
    except OSError as error:
        raise PolicyError("setup", f"[log] file {settings.file}: {error.strerror}") from None


class _Ear:
    """device_agent.ports.LinkListener: the link's thread tells the intake, the readings and the loop."""

    def __init__(self, inbox: Inbox, intake: Intake) -> None:
        self._inbox, self._intake = inbox, intake
        self.reader: LinkReader | None = None
        self.agent: Agent | None = None

    def received(self, topic: str, payload: bytes) -> None:
        """See LinkListener."""
        if self.reader is not None:
            self.reader.offer(topic, payload)
        self._intake.offer(topic, payload)

    def oversized(self, topic: str, size: int) -> None:  # noqa: ARG002 - what is too large is too large
        """See LinkListener."""
        self._intake.note_oversized(topic)

    def connected(self) -> None:
        """See LinkListener."""
        if self.agent is not None:
            self._inbox.put(self.agent.connected)

    def lost(self, why: str) -> None:
        """See LinkListener."""
        if self.reader is not None:
            self.reader.lost()
        agent = self.agent
        if agent is not None:
            self._inbox.put(lambda: agent.lost(why))


class _Resident:
    """The real ports, wired."""

    def __init__(self, settings: AgentSettings, config: Path, log: Log, *, worker_user: bool) -> None:
        self._settings, self._log = settings, log
        self._inbox = inbox = Inbox()
        self._overseer = SystemdOverseer()
        intake = Intake(settings.topics, lambda: inbox.put(_nothing))
        ear = _Ear(inbox, intake)
        link = MqttLink(settings, ear, log)
        ear.reader = LinkReader(link, settings.topics)
        self._workers = tuple(
            WorkerProcess(config, ear.reader, progress=self._progress, worker_user=worker_user) for _ in range(2)
        )
        services = DeviceServices(settings.state_dir, settings.system_root, log)
        journal = TinyJournal(settings.state_dir, settings.device)
        record, take_step = _remember(journal, settings.device, log)
        ports = Ports(
            journal=journal,
            outbox=DiskOutbox(settings.state_dir),
            spool=DocumentSpool(settings.state_dir / "spool"),
            link=link,
            documents=self._workers[0],
            attempts=self._workers[1],
            services=services,
            probes=DeviceProbes(settings, services, lambda: link.connected),
            overseer=self._overseer,
            clock=TrustedClock(settings.state_dir),
            log=log,
            boot=Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip(),
            kernel=os.uname().release,
        )
        self._agent = ear.agent = Agent(settings, ports, record=record, step=take_step, inbox=inbox, intake=intake)

    def run(self) -> None:
        """Until a signal."""
        http = self._http()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._agent.stop())
        try:
            self._agent.run()
        finally:
            if http is not None:
                http.stop()
            for worker in self._workers:
                worker.close()
            self._overseer.close()

    def _http(self) -> LocalHttp | None:
        port = self._settings.http_port
        if port is None:
            return None
        api = LocalApi(self._inbox, self._agent.handlers)
        http = LocalHttp(port, self._settings.state_dir, api.answer, self._log)
        http.start()
        self._log.info("http", f"listening on http://127.0.0.1:{http.port}")
        return http

    def _progress(self, op: str, share: float) -> None:
        self._inbox.put(lambda: self._agent.progress(op, share))


def _nothing() -> None:
    """The loop looks at the intake after everything that happens."""


def _remember(journal: Journal, device: str, log: Log) -> tuple[Record, Step]:
    """The record of the last run. Where it can not be read, one that says so, and a machine that does nothing."""
    try:
        return replace(journal.load(), device=device), step
    except FleetError as error:
        log.error(error.code, f"this device does not update: {error.detail}")
        return Record(device=device, why=f"{error.code}: {error.detail}"[:1_000]), _stand_still


def _stand_still(record: Record, _event: Event) -> tuple[Record, tuple[Effect, ...]]:
    return record, ()
