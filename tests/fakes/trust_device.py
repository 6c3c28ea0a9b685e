"""A device's trust path in this process: the real operations on a real state directory, documents from a fleet."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from device_agent.enrolment import check_first_root
from device_agent.settings import AgentSettings
from device_agent.trust import device_key
from device_agent.trust.desk import Desk
from device_agent.trust.floors import Floors
from device_agent.trust.ops import assignment, command, manifest, refresh, sign
from device_agent.trust.store import TrustStore, initialise
from device_agent.worker.context import WorkerContext
from fleet_protocol.errors import FleetError
from tests.fakes.trust_fleet import Fleet


class TrustDevice:
    """One device of a fleet. `offer_*` run an operation and return its result, or raise its FleetError.

    `documents` is what its broker retains; without it the fleet's present documents are.
    """

    def __init__(self, fleet: Fleet, state_dir: Path, *, device_class: str | None = None) -> None:
        self.fleet = fleet
        self.settings = AgentSettings(
            device=fleet.device,
            fleet=fleet.fleet,
            device_class=device_class or fleet.device_class,
            state_dir=state_dir,
            topic_prefix=fleet.topics.prefix,
        )
        self.documents: dict[str, bytes] | None = None
        self.asked: list[str] = []
        self.now_s: float | None = None
        self.want: Callable[[str], bytes | None] = self._want
        check_first_root(fleet.first_root, fleet.fleet)
        initialise(state_dir, fleet.first_root)
        self.key = device_key.create(state_dir)

    def offer_manifest(self, data: bytes, group: str | None = None) -> dict[str, Any]:
        return manifest.run({"path": self._spooled(data), "group": group or self.fleet.group}, self.context())

    def offer_assignment(self, data: bytes) -> dict[str, Any]:
        return assignment.run({"path": self._spooled(data)}, self.context())

    def offer_command(self, data: bytes) -> dict[str, Any]:
        return command.run({"path": self._spooled(data)}, self.context())

    def refresh(self) -> dict[str, Any]:
        return refresh.run({}, self.context())

    def sign(self, payload: Mapping[str, Any], payload_type: str) -> bytes:
        answer = sign.run({"payload": payload, "type": payload_type}, self.context())
        return str(answer["envelope"]).encode()

    def context(self) -> WorkerContext:
        """What the operations run in."""
        clock = self.fleet.now.timestamp if self.now_s is None else lambda: float(self.now_s or 0)
        return WorkerContext(settings=self.settings, want=self.want, clock=clock)

    @property
    def floors(self) -> Floors:
        with TrustStore.opened(self.settings.state_dir) as store:
            return store.floors

    def desk_time_s(self) -> float:
        """The device's trusted time."""
        context = self.context()
        with TrustStore.opened(self.settings.state_dir) as store:
            return Desk(store, self.settings, self.want, context.clock).now_s

    def trusted(self) -> dict[str, bytes]:
        """Every file that the device's trust rests on, by its path below the trust directory."""
        base = self.settings.state_dir / "trust"
        paths = [path for path in sorted(base.rglob("*")) if path.is_file()]
        ignored = {"lock", "allowance.json"}
        return {str(path.relative_to(base)): path.read_bytes() for path in paths if path.name not in ignored}

    def refill(self) -> None:
        """As if the device had waited long enough to be allowed another look for newer roots."""
        (self.settings.state_dir / "trust" / "allowance.json").unlink(missing_ok=True)

    def attempt(self, offer: Callable[[], object]) -> str | None:
        """The code for which `offer` is refused, or None where it is accepted."""
        try:
            offer()
        except FleetError as error:
            return error.code
        return None

    def refused(self, offer: Callable[[], object]) -> str:
        """The code for which `offer` is refused; the device's trust must be as it was before."""
        before = self.trusted()
        code = self.attempt(offer)
        assert code is not None, "nothing was refused"
        assert self.trusted() == before, f"refused ({code}), and yet something was written"
        return code

    def refused_metadata(self, bad: bytes) -> str | None:
        """As `refused`, for a refresh whose earlier documents were good and may have been adopted (None: it went well).

        The bad document itself must be in no file, and no floor of a signed document may have moved.
        """
        before = replace(self.floors, generation=0, files={})
        code = self.attempt(self.refresh)
        assert replace(self.floors, generation=0, files={}) == before
        assert code is None or bad not in self.trusted().values()
        return code

    def _want(self, topic: str) -> bytes | None:
        self.asked.append(topic)
        documents = self.fleet.published if self.documents is None else self.documents
        return documents.get(topic)

    def _spooled(self, data: bytes) -> str:
        path = self.settings.state_dir / "spool" / "document"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)


def enrolled(state_dir: Path, **fleet_options: Any) -> tuple[Fleet, TrustDevice]:
    """A fleet with two releases of one package, and its device, assigned and obeying a first manifest."""
    fleet = Fleet(**fleet_options)
    fleet.add_release("my-service", "1.0.0", 1)
    fleet.add_release("my-service", "1.1.0", 2)
    fleet.publish()
    device = TrustDevice(fleet, state_dir)
    device.offer_assignment(fleet.assignment())
    device.offer_manifest(fleet.manifest(fleet.deployment("my-service", "1.0.0")))
    return fleet, device


def still_obeys(fleet: Fleet, device: TrustDevice) -> None:
    """A valid manifest right after whatever happened is accepted, and its release is there to install."""
    plan = device.offer_manifest(fleet.manifest(fleet.deployment("my-service", "1.1.0")))
    assert plan["sequence"] == fleet.sequence
    assert [(row["refusal"], row["release"]["version"]) for row in plan["deployments"]] == [(None, "1.1.0")]
