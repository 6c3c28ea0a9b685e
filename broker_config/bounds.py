"""Bounds on what a broker may be given, derived from the topic types."""

from typing import Final

from fleet_protocol.topics import TOPIC_TYPES

PAYLOAD_MOST: Final = max(kind.max_size for kind in TOPIC_TYPES)
"""Bytes of the largest payload that any topic allows."""
PACKET_MOST: Final = PAYLOAD_MOST + 1_024
"""Bytes of the largest packet body: the payload, its topic and its packet id."""
