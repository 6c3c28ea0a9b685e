"""The server's connection to the broker."""

from server.adapters.mqtt.link import MqttLink
from server.adapters.mqtt.settings import LinkSettings

__all__ = ["LinkSettings", "MqttLink"]
