"""Whether the broker takes this device, found out by connecting as the device once."""

import select
import time
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from device_agent.adapters.mqtt_connection import BoundedClient, connect
from device_agent.settings import AgentSettings

_ANSWER_S: Final = 5.0
_VERSIONS: Final = (5, 4)
"""Of MQTT, as the agent tries them."""


def refusal(settings: AgentSettings) -> str | None:
    """Why the broker does not take this device, or None where it does.

    A broker lets a device use no name but its own, so an agent that is connected would lose its connection by this:
    call it where there is none. The session at the broker stays, with all that waits in it. Raises OSError where the
    broker can not be reached, or is not the one that the device trusts.
    """
    why = None
    for version in _VERSIONS:
        trial = _Trial(settings, version)
        why = trial.run()
        if trial.decided:
            return why
    return why


class _Trial:
    """One CONNECT in one version of MQTT."""

    def __init__(self, settings: AgentSettings, version: int) -> None:
        self._broker = settings.broker
        self._client = BoundedClient(settings.device, version, lambda _topic, _size: None)
        self._client.connect_timeout = _ANSWER_S
        self._client.on_connect = self._on_connect
        self._why: str | None = "the broker does not answer CONNECT"
        self.decided = False
        """Another version of MQTT would change nothing."""

    def run(self) -> str | None:
        """As `refusal`."""
        connect(self._client, self._broker)
        sock: Any = self._client.wire
        try:
            self._wait(sock)
        finally:
            sock.close()
        if sock.alert:
            self.decided, self._why = True, f"TLS: {sock.alert.replace('_', ' ').lower()}"
        return self._why

    def _wait(self, sock: Any) -> None:
        """Until the broker has answered. Nothing is read beyond: paho would acknowledge what waits for the agent."""
        until_s = time.monotonic() + _ANSWER_S
        poll = select.poll()
        while not self.decided and self._holds(sock) and (left_s := until_s - time.monotonic()) > 0:
            poll.register(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
            for _, ready in poll.poll(left_s * 1000):
                if ready & select.POLLOUT:
                    self._client.loop_write()
                if ready & ~select.POLLOUT:
                    self._client.loop_read(1)
        if self.decided and self._holds(sock):
            self._client.disconnect()

    def _holds(self, sock: Any) -> bool:
        """Whether paho still has the socket: it lets go of one that is lost."""
        return self._client.socket() is sock

    def _on_connect(
        self, _client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._why = f"the broker refused the connection: {reason}" if reason.is_failure else None
        self.decided = "protocol version" not in str(reason).lower()
