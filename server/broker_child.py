"""The embedded broker as the server's child: started again when it dies, always on the same port."""

import threading
import time
from pathlib import Path
from typing import Final

from loguru import logger

from broker_config.child import EmbeddedBroker
from fleet_protocol.errors import FleetError, PolicyError

_LEAST_S: Final = 0.5
_MOST_S: Final = 30.0


class BrokerChild:
    """Owns the child process between `start` and `stop`."""

    def __init__(self, *, host: str, port: int, data_dir: Path) -> None:
        self._host = host
        self._port = port
        self._data_dir = data_dir
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._broker: EmbeddedBroker | None = None
        self._thread: threading.Thread | None = None
        self.restarts = 0

    def start(self, *, patience_s: float = 0.0) -> tuple[str, int]:
        """Its host and port once it accepts connections; raises PolicyError `setup` where it can not start.

        `patience_s` is for the broker of a server that was killed here: it ends by itself, but not at once.
        """
        broker = self._first(time.monotonic() + patience_s)
        self._port = broker.port
        self._thread = threading.Thread(target=self._tend, name="broker-child", daemon=True)
        self._thread.start()
        return broker.host, broker.port

    @property
    def pid(self) -> int | None:
        """The running child's process id."""
        broker = self._broker
        return None if broker is None or broker.process.poll() is not None else broker.process.pid

    def stop(self) -> None:
        """End the child and the thread that tends it."""
        self._stop.set()
        with self._lock:
            if self._broker is not None:
                self._broker.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _first(self, end_s: float) -> EmbeddedBroker:
        while True:
            try:
                return self._spawn()
            except FleetError as error:
                if time.monotonic() >= end_s or self._stop.is_set():
                    raise
                logger.warning("{}; tried again", error.detail)
                self._stop.wait(_LEAST_S)

    def _spawn(self) -> EmbeddedBroker:
        with self._lock:
            if self._stop.is_set():
                raise PolicyError("setup", "the server is stopping: its broker is not started again")
            self._broker = EmbeddedBroker.start(host=self._host, port=self._port, data_dir=self._data_dir)
            return self._broker

    def _tend(self) -> None:
        wait_s = _LEAST_S
        while self._broker is not None:
            status = self._broker.process.wait()
            if self._stop.is_set():
                return
            logger.error("the embedded broker ended with status {}; starting it again", status)
            while not self._stop.wait(wait_s):
                wait_s = min(wait_s * 2, _MOST_S)
                if self._restarted():
                    wait_s = _LEAST_S
                    break

    def _restarted(self) -> bool:
        try:
            self._spawn()
        except FleetError as error:
            logger.error("{}; tried again", error.detail)
            return False
        except Exception:  # noqa: BLE001 - a machine that is out of memory now may have some a little later
            logger.exception("the embedded broker could not be started; tried again")
            return False
        self.restarts += 1
        return True
