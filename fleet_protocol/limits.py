"""Bounds on everything a peer may send. Sizes are bytes on the wire, before parsing."""

from typing import Final

MANIFEST_SIZE: Final = 256 * 1024
ASSIGNMENT_SIZE: Final = 8 * 1024
COMMAND_SIZE: Final = 8 * 1024
ROOT_SIZE: Final = 512 * 1024
TIMESTAMP_SIZE: Final = 16 * 1024
SNAPSHOT_SIZE: Final = 2 * 1024 * 1024
TARGETS_SIZE: Final = 5 * 1024 * 1024
REPORT_SIZE: Final = 64 * 1024
REPLY_SIZE: Final = 256 * 1024
STATE_SIZE: Final = 16 * 1024
HEALTH_SIZE: Final = 32 * 1024
SAMPLE_SIZE: Final = 8 * 1024
AVAILABILITY_SIZE: Final = 16

JSON_DEPTH: Final = 16
JSON_INTEGER: Final = 2**53 - 1
"""Integers beyond this lose digits in other languages (RFC 8259, section 6)."""
JSON_STRING: Final = 65_536

SIGNATURES: Final = 16
DEPLOYMENTS: Final = 256
TARGETS_PER_DEPLOYMENT: Final = 16
DEVICES_PER_DEPLOYMENT: Final = 2_000
SOURCES: Final = 64
SHARE_BP: Final = 10_000
PROBATION_S: Final = 7 * 24 * 3600
TEXT: Final = 4_096
ROOT_ROTATIONS: Final = 256
