"""The agent: one small resident process that must never brick the device it runs on."""

from typing import Final

AGENT_VERSION: Final = "0.1.0"
