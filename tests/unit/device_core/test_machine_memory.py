"""What the machine does at a start, on commands, and with reports: rules R19 to R24; and the tables."""

from dataclasses import replace
from typing import get_args

import pytest

from device_agent.core import history, reports
from device_agent.core.commands import REMEMBERED
from device_agent.core.effects import Activate, Cancel, Commit, Discard, Fetch, Reply, Report, Revert, Stage
from device_agent.core.events import (
    Accepted,
    Activated,
    Assigned,
    Checked,
    Event,
    Failed,
    Refused,
    ReportQueued,
    Reverted,
    Tidied,
)
from device_agent.core.machine import EVENTS, TRANSITIONS
from device_agent.core.memory import from_memory, to_memory
from device_agent.core.record import PackageSlots
from device_agent.core.reports import installed
from device_agent.core.resume import RESUME
from fleet_protocol.messages import STAGES
from tests.unit.device_core.plans import PACKAGE, Bench, deployment, plan, release


def test_the_transition_table_is_exhaustive() -> None:
    assert set(TRANSITIONS) == set(STAGES)
    for row in TRANSITIONS.values():
        assert set(row) == set(get_args(Event)) == set(EVENTS)


def test_the_resume_table_is_exhaustive() -> None:
    assert set(RESUME) == set(STAGES)


@pytest.mark.parametrize(
    ("stage", "effect"),
    [("downloading", Fetch()), ("installing", Stage()), ("switching", Activate()), ("rolling_back", Revert())],
)
def test_r19_each_stage_is_resumed(stage: str, effect: object) -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    if stage == "rolling_back":
        bench.to("switching")
        bench.fail("start")
    else:
        bench.to(stage)
    for _ in range(3):
        assert bench.restart() == (effect,)
        assert bench.record.stage == stage


def test_r19_probation_is_begun_anew() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.to("probation")
    bench.wait(50)
    assert bench.restart() == ()
    assert bench.record.probation_until_s == bench.mono_s + 60
    assert bench.record.check_s == bench.mono_s + 10


@pytest.mark.parametrize("stage", ["switching", "probation"])
def test_r19_the_fourth_start_in_a_stage_turns_back(stage: str) -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.to(stage)
    for _ in range(3):
        bench.restart()
        assert bench.record.stage == stage
    assert bench.restart() == (Cancel(), Revert())
    assert bench.attempt.code == "interrupted"


def test_r19_an_installation_that_kills_the_agent_fails_and_a_download_does_not() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    for _ in range(10):
        assert bench.restart() == (Fetch(),)
    bench.to("installing")
    for _ in range(3):
        assert bench.restart() == (Stage(),)
    assert bench.restart() == (Discard(package=PACKAGE, slot="a"),)
    assert bench.record.failures[deployment(12).id].code == "interrupted"


def test_r19_an_unknown_stage_is_rolled_back() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.to("switching")
    bench.record = replace(bench.record, stage="flashing")  # type: ignore[arg-type]  # of a newer agent
    assert bench.end(Activated) == ()
    assert bench.restart() == (Cancel(), Revert())
    assert bench.record.stage == "rolling_back"


def test_r19_an_unknown_stage_in_the_journal_is_rolled_back() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.to("switching")
    bench.record = from_memory(to_memory(bench.record) | {"stage": "flashing"})
    assert bench.restart() == (Revert(),)
    bench.end(Reverted)
    assert bench.record.failures[deployment(12).id].code == "interrupted"


def test_r19_a_stage_without_an_attempt_is_idle() -> None:
    bench = Bench()
    bench.record = replace(bench.record, stage="probation")
    assert bench.accept(1, deployment(12)) == ()
    bench.restart()
    assert bench.record.stage == "idle"


def test_r19_a_download_that_is_no_longer_wanted_is_not_resumed() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.mono_s += 8 * 86_400
    assert Cancel() in bench.restart()
    assert bench.record.stage == "idle"


DONE = Commit(package=PACKAGE, slot="a", release=release(12))


def test_r28_tidying_that_a_power_cut_undid_is_done_again() -> None:
    bench = Bench(tidies=False)
    bench.install(1, deployment(12))
    assert bench.restart() == (DONE,)
    bench.send(Tidied, package=PACKAGE, op="commit")
    assert bench.restart() == ()


def test_r28_a_commit_that_was_lost_comes_before_the_next_attempt() -> None:
    """Else what it would have dropped were taken for the way back from that one."""
    bench = Bench(tidies=False)
    bench.install(1, deployment(12))
    assert bench.accept(2, deployment(13)) == (DONE, Fetch())


def test_r28_what_a_cancel_may_have_ended_is_asked_for_again() -> None:
    bench = Bench(tidies=False)
    bench.install(1, deployment(12))
    bench.accept(2, deployment(12), deployment(5, package="driver"))
    ended = bench.accept(3, deployment(12))
    assert ended == (Cancel(), DONE, Discard(package="driver", slot="a"))


def test_r28_one_of_two_that_is_done_leaves_the_other() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    bench.tidies = False
    bench.accept(3, deployment(12, state="recalled", fallback=release(11)))
    bench.to("probation")
    bench.prove()
    bench.send(Tidied, package=PACKAGE, op="commit")
    assert bench.restart() == (Discard(package=PACKAGE, slot="b"),)


def test_r28_tidying_keeps_the_slot_to_go_back_to() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    bench.tidies = False
    bench.accept(3, deployment(13))
    bench.fail("digest")
    assert bench.restart() == (Discard(package=PACKAGE, slot=None),)


def test_r17_a_transient_failures_pause_survives_a_start() -> None:
    bench = Bench(tidies=False)
    bench.accept(1, deployment(12))
    bench.fail("io")
    assert bench.restart() == (Discard(package=PACKAGE, slot="a"),)
    assert bench.record.stage == "idle"
    assert Fetch() in bench.wait(60)


def test_r20_rollback_switches_to_the_other_slot() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    assert bench.command("rollback") == (Reply(id="c-1", code=None, detail="rolling back my-service"),)
    assert bench.wait(0) == (Activate(),)
    assert (bench.attempt.purpose, bench.attempt.command) == ("rollback", "c-1")
    bench.to("probation")
    bench.prove()
    report = bench.reports[0]
    assert report is not None
    assert (report.version, report.outcome, report.detail) == ("1.12.0", "rolled_back", "rolled back by operator")
    bench.wait(0)
    assert bench.record.why == "failed before: withdrawn (rolled back by operator)"
    assert bench.command("retry", id="c-2") == (Reply(id="c-2", code=None, detail="1 deployments may be tried again"),)
    assert bench.wait(0) == (Fetch(),)


def test_r20_a_rollback_that_fails_returns_to_what_ran() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    bench.command("rollback", PACKAGE)
    bench.wait(0)
    bench.roll_back()
    assert bench.record.packages[PACKAGE].active == "b"
    assert bench.record.failures == {}
    report = bench.reports[0]
    assert report is not None
    assert (report.deployment, report.version) == ("d-my-service-12", "1.12.0")
    assert (report.outcome, report.code) == ("committed", "unhealthy"), "no vote against the release that runs again"
    bench.wait(0)
    assert bench.record.why == "up to date"


def test_r20_rollback_of_all_packages_goes_one_by_one() -> None:
    bench = Bench()
    for sequence, counter in enumerate((1, 2), start=1):
        bench.accept(sequence, deployment(counter), deployment(counter, package="driver"))
        for _ in range(2):
            bench.to("probation")
            bench.prove()
            bench.wait(0)
    bench.command("rollback")
    bench.wait(0)
    packages = set()
    for _ in range(2):
        packages.add(bench.attempt.release.package)
        bench.to("probation")
        bench.prove()
        bench.wait(0)
    assert packages == {PACKAGE, "driver"}
    assert [row.version for row in installed(bench.record)] == ["1.1.0", "1.1.0"]


@pytest.mark.parametrize("stage", ["downloading", "installing"])
def test_r20_rollback_gives_up_an_attempt_that_has_not_switched(stage: str) -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.to(stage)
    assert bench.command("rollback")[0] == Cancel()
    assert bench.wait(0) == ()
    assert bench.record.why == "failed before: withdrawn (rolled back by operator)"


def test_r8_rollback_turns_back_an_attempt_that_has_switched() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.to("probation")
    assert Revert() in bench.command("rollback", PACKAGE)
    assert bench.command("rollback", PACKAGE, id="c-2") == (
        Reply(id="c-2", code="conflict", detail="my-service is already going back"),
    )


def test_r20_rollback_without_a_good_slot_is_refused() -> None:
    bench = Bench()
    bench.install(1, deployment(12))
    assert bench.command("rollback", PACKAGE) == (
        Reply(id="c-1", code="no-fallback", detail="no other slot holds a good release"),
    )


def test_r20_rollback_of_a_package_that_is_not_there_says_so() -> None:
    bench = Bench()
    bench.install(1, deployment(12))
    (reply,) = bench.command("rollback", "nope")
    assert reply == Reply(id="c-1", code="no-fallback", detail="there is no package nope on this device")


def test_r6_no_rollback_below_the_floor() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    bench.accept(3, deployment(12), floors={PACKAGE: 12})
    replies = [effect for effect in bench.command("rollback") if isinstance(effect, Reply)]
    assert [reply.code for reply in replies] == ["floor"]


def test_r20_a_command_is_carried_out_once_and_answered_always() -> None:
    bench = Bench()
    bench.command("retry")
    before = bench.record
    assert bench.command("rollback") == (Reply(id="c-1", code="command", detail="already carried out"),)
    assert bench.record == before


def test_r20_retry_ends_the_pause_of_a_download() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.fail("unreachable")
    bench.command("retry")
    assert bench.wait(0) == (Fetch(),)


def test_r20_a_command_that_is_not_the_machines_is_refused() -> None:
    assert Bench().command("fetch-logs") == (
        Reply(id="c-1", code="command", detail="this command is not for the machine"),
    )


def test_r21_the_counter_strictly_rises_and_reports_wait_until_they_are_queued() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    counters = [pending.counter for pending in bench.record.pending]
    assert counters == sorted(set(counters))
    bench.restart()
    reissued = [effect.report.counter for effect in bench.effects if isinstance(effect, Report)]
    assert reissued == [*counters, counters[-1] + 1]
    for counter in reissued:
        bench.send(ReportQueued, counter=counter)
    assert bench.record.pending == ()
    bench.restart()
    assert [effect.report.counter for effect in bench.effects if isinstance(effect, Report)] == [counters[-1] + 2]


def test_r21_starts_plans_groups_and_commands_are_reported() -> None:
    bench = Bench(assigned=False)
    for act in (
        bench.restart,
        lambda: bench.send(Assigned, group="line-1"),
        lambda: bench.accept(1),
        lambda: bench.accept(2),
        lambda: bench.command("retry"),
    ):
        act()
        assert len(bench.reports) == 1


def test_r22_an_attack_is_counted_and_reported() -> None:
    bench = Bench()
    bench.send(Refused, code="signature")
    effect = bench.effects[0]
    assert isinstance(effect, Report)
    assert effect.report.attack == "signature"
    bench.send(Refused, code="signature")
    assert bench.effects == (), "one report waits per code"
    bench.send(ReportQueued, counter=effect.report.counter)
    bench.send(Refused, code="signature")
    assert len(bench.reports) == 1
    assert bench.record.attacks == {"signature": 3}


def test_r22_a_flood_during_an_attempt_is_one_report_too() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    told = 0
    for _ in range(20):
        bench.send(Refused, code="signature")
        told += len(bench.reports)
    assert (told, bench.record.attacks["signature"]) == (1, 20)


def test_r22_a_code_of_nobody_is_counted_as_schema() -> None:
    bench = Bench()
    bench.send(Refused, code="surprise")
    assert bench.record.attacks == {"schema": 1}


def test_r22_a_refused_deployment_is_reported_once() -> None:
    bench = Bench()
    bench.accept(1, deployment(12, refusal="mismatch"))
    report = bench.reports[0]
    assert report is not None
    assert (report.outcome, report.code, bench.record.attacks) == ("refused", "mismatch", {"mismatch": 1})
    bench.accept(2, deployment(12, refusal="mismatch"))
    assert bench.record.attacks == {"mismatch": 1}
    bench.accept(3, deployment(12, refusal="mismatch", share_bp=0))
    bench.accept(4, deployment(12, refusal="mismatch"))
    assert bench.record.attacks == {"mismatch": 2}


def test_r22_an_artifact_that_is_not_what_was_signed_is_an_attack() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.fail("digest")
    effect = next(effect for effect in bench.effects if isinstance(effect, Report))
    assert (effect.report.attack, bench.record.attacks) == ("digest", {"digest": 1})
    bench.accept(2, deployment(13))
    bench.to("switching")
    bench.fail("digest")
    assert bench.record.attacks == {"digest": 2}


def test_r12_a_code_of_nobody_is_the_workers() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.fail("surprise", "x" * 10_000 + "\0")
    failure = bench.record.failures[deployment(12).id]
    assert (failure.code, len(failure.detail)) == ("worker", 1_000)


def test_r24_reports_are_bounded_and_outcomes_outlive_progress() -> None:
    bench = Bench()
    for sequence in range(1, 101):
        bench.accept(sequence, deployment(sequence))
        bench.fail("digest")
    outcomes = [pending.attempt.outcome for pending in bench.record.pending if pending.attempt is not None]
    assert len(bench.record.pending) == reports.PENDING
    assert outcomes == ["failed"] * reports.PENDING
    assert bench.record.pending[-1].counter == bench.record.report_counter


def test_r24_failures_are_bounded_and_the_plans_are_kept() -> None:
    bench = Bench()
    mine = deployment(1, package="driver")
    bench.accept(1, mine)
    bench.fail("digest")
    for sequence in range(2, history.KEPT + 20):
        bench.accept(sequence, mine, deployment(sequence))
        bench.fail("digest")
    assert len(bench.record.failures) == history.KEPT
    assert mine.id in bench.record.failures


def test_r24_commands_are_bounded() -> None:
    bench = Bench()
    for number in range(REMEMBERED + 10):
        bench.command("retry", id=f"c-{number}")
    assert len(bench.record.commands) == REMEMBERED
    assert bench.record.commands[-1] == f"c-{REMEMBERED + 9}"


def test_what_is_installed_is_what_is_committed() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.accept(2, deployment(12))
    bench.to("probation")
    assert [(row.version, row.deployment) for row in installed(bench.record)] == [("1.11.0", "d-my-service-11")]
    bench.prove()
    assert [row.version for row in installed(bench.record)] == ["1.12.0"]


def test_the_spare_slot_is_never_the_active_one() -> None:
    assert [PackageSlots(active=active).spare for active in (None, "a", "b")] == ["a", "b", "a"]


def test_a_crash_loses_nothing_that_the_record_does_not_ask_for_again() -> None:
    """Every stage survives the journal: the record read back is the record saved, and goes on the same way."""
    bench = Bench()
    bench.accept(1, deployment(12))
    for stage in ("downloading", "installing", "switching", "probation"):
        bench.to(stage)
        bench.record = from_memory(to_memory(bench.record))
    bench.wait(10)
    bench.end(Checked, code=None, detail="")
    assert bench.record.healthy == 1
    assert bench.send(Failed, deployment="d-other", code="io", detail="") == ()
    assert bench.send(Accepted, plan=plan(1, deployment(12))) == ()
