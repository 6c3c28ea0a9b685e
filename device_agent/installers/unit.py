"""Releases that run as systemd units.

1. A unit that is quiet does not start, whoever asks, over power cuts too: the file that its drop-in forbids is on the
   disk before it is stopped, and is gone only once everything that it starts is of one release.
2. All that may change is kept before anything is changed: the unit file, our drop-in, the links that enable it.
3. Whether it is enabled is its owner's affair after the first installation. Only what its own [Install] section says
   differently is done differently. Drop-ins of others are never touched.
4. A unit that is masked is refused: its owner wants it never to start.
5. What one attempt has noted is no other attempt's: notes of one that was given up (rule R14) are not believed.
"""

from collections.abc import Mapping
from typing import Any, Final

from device_agent.installers.backup import Backup
from device_agent.installers.crash import crash_point
from device_agent.installers.managed_unit import ManagedUnit, files_of
from device_agent.installers.port import Device, Part, PartId, Verdict
from device_agent.installers.service_environment import service_environment
from device_agent.installers.unit_plan import UnitPlan, drop_in_of, plan_unit
from device_agent.systemd.systemctl import UnitState
from device_agent.systemd.unit_record import UnitPlace, UnitRecord, unit_records
from fleet_protocol.errors import InstallError
from fleet_protocol.unit_file import UnitFileError, read_unit_file

Facts = Mapping[str, Any]
_COMES_UP_S: Final = 30.0
"""How long one check waits for a unit that is starting: after a power cut it may have only just begun."""


class UnitInstaller:
    """Kind `service` under systemd. A part without a unit of its own gets one that is called like it."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def stage(self, part: Part) -> None:
        """Refuse by all that is known before anything changes: the text, the programs, the manager, the mask."""
        plan = plan_unit(self._device, part)
        unit = ManagedUnit(self._device, plan.record)
        unit.control.bring_up()
        state = unit.state()
        _refuse_masked(unit, state)
        for name, other in unit_records(self._device.state_dir):
            if other.key == plan.record.key and other.package != plan.record.package:
                raise InstallError("occupied", f"{unit.name} is the service {name} of package {other.package}")
        known = self._place(part.id).record()
        ours = known is not None and known.key == plan.record.key
        if not plan.brought and state.exists and not ours:
            raise InstallError("occupied", f"there is a unit {unit.name} on this device, which is not of this package")

    def concerns(self, part: PartId) -> bool:
        """Whether there is anything of a unit of this part, or was when the attempt began."""
        place = self._place(part)
        return place.record() is not None or self._noted(part) is not None or place.is_quiet

    def was_unit(self, part: PartId, back: Part | None) -> bool:
        """Whether the part was a unit when the attempt began, whose way back leads to `back`."""
        return self._before(part, back) is not None

    def quiet(self, part: PartId) -> None:
        """Rule 1, for each unit that this part is, or was when the attempt began."""
        records = self._records(part)
        units = [self._ready(record) for record in records]
        if not units:
            return
        crash_point("unit.before_guard")
        self._place(part).quiet(active=not units[0].state().is_down)
        crash_point("unit.after_guard")
        for unit, record in zip(units, records, strict=True):
            unit.open_way(self._place(part).guard)
            if unit.state().exists and files_of(self._device, records).look(unit.files.drop_in) is None:
                self._write_drop_in(part, unit, record)
            unit.stop()

    def activate(self, part: Part) -> None:
        """The part's unit runs out of the active slot; one that does already is left alone."""
        plan, place = plan_unit(self._device, part), self._place(part.id)
        unit, old = self._ready(plan.record), place.record()
        if old == plan.record and not place.is_quiet:
            unit.start(anew=False)
            return
        facts = self._begin(part.id, plan)
        old = _record(facts, "old")
        place.quiet(active=bool(facts["active"]))
        crash_point("unit.after_hold")
        self._device.supervisor.directory(part.id.name).make()
        self._write_drop_in(part.id, unit, plan.record)
        unit.stop()
        files_of(self._device, [plan.record]).write(unit.files.file, plan.file.text.encode())
        crash_point("unit.after_file")
        if old is not None and old.key != plan.record.key:
            _take_out(self._ready(old))
        place.write(plan.record)
        crash_point("unit.after_record")
        unit.control.reload()
        crash_point("unit.after_reload")
        self._enable(part.id, plan, facts)
        crash_point("unit.after_enable")
        unit.open_way(place.guard)
        place.release()
        crash_point("unit.after_release")
        unit.start(anew=True)

    def retire(self, part: PartId) -> None:
        """There is no such unit of ours any more; one that the system itself has under the name comes to light."""
        if not self.concerns(part):
            return
        old = _record(self._begin(part, None), "old")
        if old is not None:
            _take_out(self._ready(old))
        self._place(part).forget()
        crash_point("unit.after_forget")
        self._place(part).release()

    def check(self, part: Part) -> Verdict:
        """`crashed` where it ended by itself since it was activated, even if it runs again by now."""
        plan = plan_unit(self._device, part)
        unit = self._ready(plan.record)
        state = unit.state()
        if not state.restarts and (state.is_coming_up or _was_off(state)):
            unit.control.come_up(unit.name, _COMES_UP_S)
            state = unit.state()
        if state.restarts or state.is_restarting or state["ActiveState"] == "failed":
            how = f"{state['Result']}, status {state['ExecMainStatus']}, {state.restarts} restarts"
            return _verdict("crashed", f"{unit.name} ended by itself ({how}); its last output: {unit.last_words()}")
        if not (state.is_active or state.has_done_its_work):
            return _verdict("unhealthy", f"{unit.name} is {state['ActiveState']} ({state['SubState']})")
        check = part.target.install.check
        if check is None:
            return Verdict(code=None)
        from device_agent.installers.health import run_check  # noqa: PLC0415 - no other operation needs HTTP

        slot = self._device.content(part)
        return run_check(check, slot, service_environment(self._device, part), self._device.variables)

    def prove_way_back(self, part: PartId) -> None:
        """Unit file, drop-in and links."""
        self._device.backup(part).prove()

    def commit(self, part: PartId) -> None:
        """What was kept for the way back is dropped."""
        self._backup(part).drop()

    def revert(self, part: PartId, back: Part | None) -> None:
        """Everything is as it was when the attempt began, and what ran then runs."""
        place, facts, old = self._place(part), self._facts(part, back), self._before(part, back)
        active = place.ran if facts is None else bool(facts["active"])
        if facts is not None:
            self._restore(part, facts)
        elif back is None and old is not None:
            _take_out(self._ready(old))
            place.forget()
            old = None
        place.release()
        crash_point("unit.after_let_go")
        ran = old or (None if facts is None else _record(facts, "new"))
        if active and ran is not None:
            unit = self._ready(ran)
            if not unit.state().is_masked:
                unit.start(anew=True)
        self._backup(part).drop()

    def _restore(self, part: PartId, facts: Facts) -> None:
        """The files as they were kept: those of an old unit, of the system's own, or none."""
        units, old = [self._ready(record) for record in self._records(part)], _record(facts, "old")
        self._backup(part).restore()
        crash_point("unit.after_restore")
        if old is None:
            self._place(part).forget()
        else:
            self._place(part).write(old)
        for unit in units:
            unit.files.tidy()
            unit.control.reload()
            unit.control.forgive(unit.name)
        crash_point("unit.after_reread")

    def _begin(self, part: PartId, plan: UnitPlan | None) -> Facts:
        """Rules 2, 4 and 5: how things are, on the disk; with `plan` None the unit is about to be taken away."""
        new, to = (None, "") if plan is None else (plan.record, plan.record.target)
        facts, old, place = self._noted(part), self._place(part).record(), self._place(part)
        if facts is not None and facts["to"] == to:
            return facts
        units = [self._ready(record) for record in (old, new) if record is not None]
        states = [unit.state() for unit in units]
        for unit, state in zip(units, states, strict=True):
            if plan is not None:
                _refuse_masked(unit, state)
        backup = self._backup(part, new)
        backup.drop()
        for unit in units:
            wanted = () if plan is None else sorted(plan.file.links(unit.name))
            for path in (*unit.files.links(), *(unit.files.link(name) for name in wanted)):
                backup.keep(path)
            backup.keep(unit.files.drop_in)
            backup.keep(unit.files.file)  # the last that is kept is the first that is put back: the drop-in forbids
        found = {
            "to": to,
            "old": None if old is None else old.to_json(),
            "new": None if new is None else new.to_json(),
            "active": place.ran if place.is_quiet else bool(states) and not states[0].is_down,
            "enablement": states[0]["UnitFileState"] if states else "",
        }
        return backup.note(found)

    def _enable(self, part: PartId, plan: UnitPlan, facts: Facts) -> None:
        """Rule 3. Links that somebody else has made stay."""
        unit, old, before = self._ready(plan.record), _record(facts, "old"), facts["enablement"]
        if old is None or before == "static":  # nobody has had a say yet
            if plan.enable and plan.file.install:
                unit.control.enable(unit.name)
            return
        if before != "enabled":
            return
        said = self._said(part, plan, unit) if old.key == plan.record.key else frozenset()
        wanted = plan.file.links(unit.name)
        for name in sorted(said - wanted):
            files_of(self._device, [plan.record]).remove(unit.files.link(name))
        if plan.file.install and said != wanted:
            unit.control.enable(unit.name)

    def _said(self, part: PartId, plan: UnitPlan, unit: ManagedUnit) -> frozenset[str]:
        """The links that the unit file of before has said; none where it was not one of ours."""
        try:
            kept = self._backup(part, plan.record).kept(unit.files.file)
            return frozenset() if kept is None else read_unit_file(kept).links(unit.name)
        except (UnitFileError, InstallError):  # or where the copy is not whole: there is no way back, only this way
            return frozenset()

    def _write_drop_in(self, part: PartId, unit: ManagedUnit, record: UnitRecord) -> None:
        running = not unit.state().is_down
        text = drop_in_of(self._device, part.name, record)
        files_of(self._device, [record]).write(unit.files.drop_in, text.encode())
        crash_point("unit.after_drop_in")
        if running:
            unit.control.reload()  # from here on it forbids what systemd has in its memory, too

    def _ready(self, record: UnitRecord) -> ManagedUnit:
        return ManagedUnit(self._device, record).ready()

    def _place(self, part: PartId) -> UnitPlace:
        return UnitPlace(self._device.state_dir, part.name)

    def _backup(self, part: PartId, *more: UnitRecord | None) -> Backup:
        records = [*self._records(part), *(record for record in more if record is not None)]
        return self._device.backup(part, files_of(self._device, records))

    def _noted(self, part: PartId) -> Facts | None:
        return self._device.backup(part).facts

    def _facts(self, part: PartId, back: Part | None) -> Facts | None:
        """Rule 5: an attempt whose end is what this way back leads to, is over."""
        facts = self._noted(part)
        return None if facts is not None and back is not None and facts["to"] == back.target.sha256 else facts

    def _before(self, part: PartId, back: Part | None) -> UnitRecord | None:
        facts = self._facts(part, back)
        return self._place(part).record() if facts is None else _record(facts, "old")

    def _records(self, part: PartId) -> list[UnitRecord]:
        """The units that the part is, was and was to be; the present one first."""
        noted = self._noted(part) or {}
        known: dict[tuple[str, str | None], UnitRecord] = {}
        for record in (self._place(part).record(), _record(noted, "old"), _record(noted, "new")):
            if record is not None:
                known.setdefault(record.key, record)
        return list(known.values())


def _record(facts: Facts, name: str) -> UnitRecord | None:
    value = facts.get(name)
    return None if value is None else UnitRecord.from_json(value)


def _take_out(unit: ManagedUnit) -> None:
    """The unit is no more; where the system has one of that name, what enables that one stays."""
    unit.files.remove()
    crash_point("unit.after_removal")
    unit.control.reload()
    unit.control.forgive(unit.name)
    if not unit.state().exists:
        unit.files.remove_links()


def _refuse_masked(unit: ManagedUnit, state: UnitState) -> None:
    if state.is_masked:
        raise InstallError("masked", f"{unit.name} is masked on this device")


def _was_off(state: UnitState) -> bool:
    """Whether nobody has started it since the device was: not the release's fault."""
    return state["ActiveState"] == "inactive" and not state["InvocationID"] and state["Type"] != "oneshot"


def _verdict(code: str, detail: str) -> Verdict:
    return Verdict(code=code, detail=detail[:300])
