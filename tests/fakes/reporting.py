"""Devices that report: keys, enrolled rows and signed reports, made by the real libraries."""

from dataclasses import replace
from typing import Any

from securesystemslib.signer import CryptoSigner

from fleet_protocol.envelope import REPORT_TYPE, sign
from fleet_protocol.messages import AttemptReport, Installed, Report
from fleet_protocol.payload import to_payload
from fleet_protocol.topics import Address, TopicType
from server.domain.fleet import Device
from server.ports import Incoming

FLEET = "acme"


class ReportingDevice:
    """One device with its key and its counter."""

    def __init__(self, name: str = "node-1", group: str = "line-1") -> None:
        self.name = name
        self.group = group
        self.signer = CryptoSigner.generate_ed25519()
        self.counter = 0

    def enrolled(self, **changes: Any) -> Device:
        """The row of a fresh enrolment."""
        key = self.signer.public_key
        plain = Device(
            id=self.name,
            group=self.group,
            device_class="x86_64",
            key_id=key.keyid,
            public_key=key.to_dict(),
            enrolled_s=1_000.0,
        )
        return replace(plain, **changes)

    def report(self, **changes: Any) -> bytes:
        """The next signed report; `counter` among the changes does not move the device's own."""
        self.counter += "counter" not in changes
        plain = Report(
            fleet=FLEET,
            device=self.name,
            boot="b-1",
            counter=self.counter or 1,
            time="2026-11-23T06:00:00Z",
            group=self.group,
            sequence=57,
            root=3,
            installed=(Installed(package="app", version="1.2.0", counter=12, deployment="d-1"),),
            attempt=None,
            attack=None,
            attacks={},
            why="up to date",
        )
        return sign(to_payload(replace(plain, **changes)), REPORT_TYPE, [self.signer]).encode()


def attempt(deployment: str = "d-1", **changes: Any) -> AttemptReport:
    """An attempt at `app` 1.2.0 that has committed."""
    plain = AttemptReport(
        deployment=deployment,
        package="app",
        version="1.2.0",
        counter=12,
        number=1,
        stage="idle",
        outcome="committed",
        code=None,
        detail="",
    )
    return replace(plain, **changes)


class Post:
    """Makes messages as the link hands them over, and notes which were acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[bytes] = []

    def message(self, kind: TopicType, payload: bytes, *, device: str = "node-1", at_s: float = 5_000.0) -> Incoming:
        """One message; its payload is its mark in `acknowledged`."""
        return Incoming(
            address=Address(kind, {"device": device}),
            payload=payload,
            at_s=at_s,
            ack=lambda: self.acknowledged.append(payload),
        )
