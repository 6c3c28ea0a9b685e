"""Whether names resolve and the internet answers, where the owner wants that checked.

Both may hang for many seconds, so a round runs in a short-lived thread and its result is read at the next round.
"""

import socket
import threading
from typing import Final

from device_agent.settings import ProbeSettings
from fleet_protocol.ids import shown
from fleet_protocol.messages import CheckResult

_CONNECT_S: Final = 5.0


class NetworkProbe:
    """Remembers the newest results; `unknown` until the first round has ended."""

    def __init__(self, settings: ProbeSettings) -> None:
        self._settings = settings
        self._results: list[CheckResult] = []
        self._round: threading.Thread | None = None

    def results(self) -> list[CheckResult]:
        """The newest results; starts the next round unless one is still under way."""
        if self._settings.dns_name is None and self._settings.internet is None:
            return []
        if self._round is None or not self._round.is_alive():
            self._round = threading.Thread(target=self._run, name="network-probe", daemon=True)
            self._round.start()
        return self._results or [CheckResult(name="network", value=None, threshold=None, verdict="unknown", text="")]

    def _run(self) -> None:
        results = []
        if self._settings.dns_name is not None:
            results.append(check_dns(self._settings.dns_name))
        if self._settings.internet is not None:
            host, _, port = self._settings.internet.rpartition(":")
            results.append(check_internet(host, int(port)))
        self._results = results


def check_dns(name: str) -> CheckResult:
    """Whether `name` resolves."""
    try:
        socket.getaddrinfo(name, None)
    except (OSError, UnicodeError) as error:
        return _result("dns", f"{name}: {shown(str(error))}", ok=False)
    return _result("dns", f"{name} resolves", ok=True)


def check_internet(host: str, port: int) -> CheckResult:
    """Whether a TCP connection can be made."""
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S):
            return _result("internet", f"{host}:{port} answers", ok=True)
    except (OSError, UnicodeError) as error:
        return _result("internet", f"{host}:{port}: {shown(str(error))}", ok=False)


def _result(name: str, text: str, *, ok: bool) -> CheckResult:
    return CheckResult(name=name, value=float(ok), threshold=1.0, verdict="ok" if ok else "critical", text=text)
