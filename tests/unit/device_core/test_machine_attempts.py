"""How an attempt goes and ends: rules R1, R2, R7 to R16, R18."""

from dataclasses import replace

import pytest

from device_agent.core.effects import Activate, Cancel, Check, Commit, Discard, Fetch, Reply, Revert, Stage
from device_agent.core.events import Accepted, Activated, Checked, Failed, Fetched, Reverted, Staged, Ticked
from device_agent.core.machine import REVERTS, step
from fleet_protocol.messages import AttemptReport
from tests.unit.device_core.plans import PACKAGE, Bench, deployment, plan, release, sha256

TREE = sha256("tree 12")


def _outcome(report: AttemptReport | None) -> tuple[str | None, str | None]:
    assert report is not None
    return report.outcome, report.code


def test_an_installation_from_the_plan_to_the_commit() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    assert bench.accept(2, deployment(12)) == (Fetch(),)
    assert bench.end(Fetched) == (Stage(),)
    assert bench.end(Staged, tree=TREE) == (Activate(),)
    assert bench.end(Activated) == ()
    assert bench.wait(10) == (Check(),)
    for _ in range(5):
        assert bench.end(Checked, code=None, detail="") == ()
        assert bench.wait(10) in ((Check(),), (Commit(package=PACKAGE, slot="b", release=release(12)),))
    assert bench.work == (Commit(package=PACKAGE, slot="b", release=release(12)),)
    assert [_outcome(report) for report in bench.reports] == [("committed", None)]
    slots = bench.record.packages[PACKAGE]
    assert slots.active == "b"
    assert slots.a is not None and slots.b is not None
    assert (slots.a.standing, slots.b.standing, slots.b.tree) == ("good", "good", TREE)


def test_every_stage_is_reported() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    seen = [bench.reports[0]]
    for kind, members in ((Fetched, {}), (Staged, {"tree": TREE}), (Activated, {})):
        bench.end(kind, **members)
        seen += bench.reports
    assert [report.stage for report in seen if report is not None] == [
        "downloading",
        "installing",
        "switching",
        "probation",
    ]


def test_r2_an_event_of_another_deployment_changes_nothing() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    for kind, members in (
        (Fetched, {}),
        (Failed, {"code": "digest", "detail": ""}),
        (Staged, {"tree": TREE}),
        (Activated, {}),
        (Checked, {"code": None, "detail": ""}),
        (Reverted, {}),
    ):
        before = bench.record
        bench.send(kind, deployment="d-other", **members)
        assert (bench.record, bench.effects) == (before, ())


def test_r2_an_event_that_the_stage_does_not_expect_changes_nothing() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    before = bench.record
    assert bench.end(Activated) == ()
    assert bench.end(Reverted) == ()
    assert bench.end(Staged, tree=TREE) == ()
    assert bench.record == before


@pytest.mark.parametrize("stage", ["downloading", "installing"])
@pytest.mark.parametrize(
    ("change", "code", "detail"),
    [
        ({"state": "held"}, None, "held"),
        ({"state": "recalled"}, "withdrawn", "recalled"),
        ({"refusal": "unlisted"}, "unlisted", "refused"),
        ({"share_bp": 0}, None, "no longer taking part"),
        ({"release": replace(release(12), version="1.12.1")}, None, "the release has changed"),
    ],
)
def test_r7_before_the_switch_an_unwanted_attempt_is_abandoned(
    stage: str, change: dict[str, object], code: str | None, detail: str
) -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.accept(2, deployment(12))
    bench.to(stage)
    assert bench.accept(3, deployment(12, **change)) == (Cancel(), Discard(package=PACKAGE, slot="b"))
    ended = [report for report in bench.reports if report is not None and report.outcome == "abandoned"]
    assert [(report.code, report.detail) for report in ended] == [(code, detail)]
    assert (bench.record.stage, bench.record.failures) == ("idle", {})


def test_r7_an_attempt_whose_deployment_is_gone_is_abandoned() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    assert bench.accept(2) == (Cancel(), Discard(package=PACKAGE, slot="a"))


def test_r7_a_newer_release_supersedes_the_one_being_downloaded() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    assert Cancel() in bench.accept(2, deployment(12), deployment(13))
    assert bench.wait(0) == (Fetch(),)
    assert bench.attempt.release.counter == 13


def test_r7_a_recall_of_another_package_goes_first() -> None:
    bench = Bench()
    bench.install(1, deployment(5, package="driver"))
    bench.install(2, deployment(5, package="driver"), deployment(6, package="driver"))
    both = (deployment(6, package="driver"), deployment(12))
    bench.accept(3, *both)
    assert bench.record.stage == "downloading"
    recall = deployment(6, package="driver", state="recalled", fallback=release(5, "driver"))
    assert Cancel() in bench.accept(4, recall, deployment(12))
    assert bench.wait(0) == (Activate(),)
    assert bench.attempt.purpose == "recall"


def test_r7_new_mirrors_are_learnt_without_a_new_attempt() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    mirrored = release(12, urls=("https://mirror.example/x",))
    assert bench.accept(2, deployment(12, release=mirrored)) == ()
    assert (bench.record.stage, bench.attempt.release) == ("downloading", mirrored)


def test_r7_the_manifest_is_looked_at_again_before_the_installation_and_before_the_switch() -> None:
    for stage, kind, members in (("downloading", Fetched, {}), ("installing", Staged, {"tree": TREE})):
        bench = Bench()
        bench.accept(1, deployment(12))
        bench.to(stage)
        bench.mono_s += 8 * 86_400
        assert Cancel() in bench.end(kind, **members)
        assert bench.record.stage == "idle"


@pytest.mark.parametrize("stage", ["switching", "probation"])
def test_r8_from_the_switch_on_only_a_recall_turns_back(stage: str) -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.to(stage)
    assert bench.accept(2, deployment(12, state="held")) == ()
    assert bench.accept(3) == ()
    assert bench.record.stage == stage
    assert bench.accept(4, deployment(12, state="recalled")) == (Cancel(), Revert())
    bench.end(Reverted)
    assert [_outcome(report) for report in bench.reports] == [("rolled_back", "withdrawn")]


def test_r9_the_spare_slot_is_forgotten_before_it_is_written() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    bench.accept(3, deployment(13))
    assert bench.record.packages[PACKAGE].a is not None
    bench.end(Fetched)
    assert (bench.attempt.slot, bench.record.packages[PACKAGE].a) == ("a", None)


def test_r11_transport_failures_back_off_and_spend_no_attempt() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.luck = 0.999
    pauses = []
    for _ in range(12):
        assert bench.fail("unreachable") == ()
        assert bench.record.wake_s is not None
        pauses.append(bench.record.wake_s - bench.mono_s)
        assert bench.wait(pauses[-1] - 0.1) == ()
        assert bench.wait(0.1) == (Fetch(),)
    assert pauses == sorted(pauses)
    assert pauses[0] < 2.1 and 800 < pauses[-1] <= 900
    assert (bench.attempt.number, bench.record.failures) == (1, {})


def test_r11_full_jitter_and_the_peers_own_wish() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.luck = 0.0
    bench.fail("busy", retry_after_s=120.0)
    assert bench.record.wake_s == bench.mono_s + 121
    assert "busy, trying again in 121 s" in bench.record.why


def test_r11_a_failure_while_nothing_runs_is_stale() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.fail("timeout")
    before = bench.record
    bench.fail("timeout")
    assert bench.record == before


@pytest.mark.parametrize("stage", ["downloading", "installing"])
def test_r12_a_failure_before_the_switch_ends_the_attempt(stage: str) -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.accept(2, deployment(12))
    bench.to(stage)
    assert bench.fail("archive", "a link") == (Discard(package=PACKAGE, slot="b"),)
    assert [_outcome(report) for report in bench.reports] == [("failed", "archive")]
    kept = bench.record.packages[PACKAGE]
    assert (kept.active, kept.b) == ("a", None)
    assert bench.wait(0) == ()
    assert bench.record.why == "failed before: archive"


def test_r12_a_download_that_fails_leaves_the_other_slot_alone() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    before = bench.record.packages
    bench.accept(3, deployment(13))
    assert bench.fail("digest") == (Discard(package=PACKAGE, slot=None),)
    assert bench.record.packages == before


def test_r13_a_switch_that_fails_is_undone() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.accept(2, deployment(12))
    bench.to("switching")
    assert bench.fail("start", "exited at once") == (Cancel(), Revert())
    assert (bench.record.stage, bench.attempt.code) == ("rolling_back", "start")
    assert bench.end(Reverted) == (Discard(package=PACKAGE, slot="b"),)
    assert [_outcome(report) for report in bench.reports] == [("rolled_back", "start")]
    slots = bench.record.packages[PACKAGE]
    assert (slots.active, slots.b) == ("a", None)


def test_r13_a_first_installation_that_fails_leaves_nothing() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.roll_back()
    slots = bench.record.packages[PACKAGE]
    assert (slots.active, slots.a, slots.b) == (None, None, None)


def test_r14_going_back_is_tried_until_it_works() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.accept(2, deployment(12))
    bench.to("switching")
    bench.fail("start")
    for _ in range(20):
        assert bench.fail("io") == ()
        assert bench.record.stage == "rolling_back"
        assert bench.wait(900) == (Revert(),)
    bench.end(Reverted)
    assert bench.record.stage == "idle"


def test_r14_an_old_release_that_will_not_start_does_not_block_the_device() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.accept(2, deployment(12))
    bench.to("probation")
    bench.wait(10)
    bench.end(Checked, code="crashed", detail="")
    for _ in range(REVERTS - 1):
        assert bench.fail("start") == ()
        assert bench.wait(900) == (Revert(),)
    gone_back = (Commit(package=PACKAGE, slot="a", release=release(11)), Discard(package=PACKAGE, slot="b"))
    assert bench.fail("start") == gone_back, "what was kept for the way back is of no more use"
    assert (bench.record.stage, bench.record.packages[PACKAGE].active) == ("idle", "a")
    assert bench.accept(3, deployment(13)) == (Fetch(),)


def test_r14_what_an_old_release_needs_has_minutes_to_come_up() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.accept(2, deployment(12))
    bench.to("probation")
    bench.wait(10)
    bench.end(Checked, code="crashed", detail="")
    began_s = bench.mono_s
    while bench.record.stage == "rolling_back":
        bench.fail("start")
        if bench.record.wake_s is not None and bench.record.stage == "rolling_back":
            bench.wait(bench.record.wake_s - bench.mono_s)
    assert bench.mono_s - began_s >= 120


def test_r14_a_device_with_nothing_whole_to_go_back_to_stays() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.accept(2, deployment(12))
    bench.to("switching")
    bench.fail("start")
    stays = Commit(package=PACKAGE, slot="b", release=release(12))
    assert bench.fail("altered", "slot a") == (stays,), "a boot has to bring it up"
    assert [_outcome(report) for report in bench.reports] == [("failed", "altered")]
    slots = bench.record.packages[PACKAGE]
    assert slots.a is not None and slots.b is not None
    assert (slots.active, slots.a.standing, slots.b.standing) == ("b", "bad", "bad")
    bench.wait(0)
    assert bench.record.why == "running a release that failed: going back was not possible"
    assert bench.accept(3, deployment(13)) == (Fetch(),)
    assert bench.attempt.slot == "a"


def test_r15_one_failed_check_is_forgiven_and_two_in_a_row_are_not() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.to("probation")
    for code in ("unhealthy", None, "unhealthy"):
        assert bench.wait(10) == (Check(),)
        assert bench.end(Checked, code=code, detail="503") == ()
    bench.wait(10)
    assert bench.end(Checked, code="unhealthy", detail="503") == (Cancel(), Revert())
    assert (bench.attempt.code, bench.attempt.detail) == ("unhealthy", "503")


def test_r15_one_crash_is_enough() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.to("probation")
    bench.wait(10)
    assert bench.end(Checked, code="crashed", detail="signal 11") == (Cancel(), Revert())


def test_r15_no_commit_while_the_last_check_failed() -> None:
    bench = Bench()
    bench.accept(1, deployment(12, probation_s=15))
    bench.to("probation")
    bench.wait(10)
    bench.end(Checked, code=None, detail="")
    bench.wait(5)
    assert bench.record.stage == "idle"
    bench = Bench()
    bench.accept(1, deployment(12, probation_s=15))
    bench.to("probation")
    bench.wait(10)
    bench.end(Checked, code="unhealthy", detail="")
    bench.wait(6)
    assert bench.record.stage == "probation"
    assert bench.wait(4) == (Check(),)
    bench.end(Checked, code=None, detail="")
    assert bench.record.stage == "idle"


def test_r15_a_release_without_a_check_is_still_looked_at() -> None:
    bench = Bench()
    bench.accept(1, deployment(12, release=release(12, check=False)))
    bench.to("probation")
    assert bench.wait(4.9) == ()
    assert bench.wait(0.1) == (Check(),)


def test_r15_probation_of_no_length_needs_one_passed_check() -> None:
    bench = Bench()
    bench.accept(1, deployment(12, probation_s=0))
    bench.to("probation")
    assert bench.wait(1) == (Check(),)
    bench.end(Checked, code=None, detail="")
    assert bench.record.stage == "idle"


def test_r15_a_check_that_was_not_asked_for_counts_for_nothing() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.to("probation")
    before = bench.record
    bench.end(Checked, code="crashed", detail="")
    assert bench.record == before


def test_r16_checks_that_never_answer_end_the_probation() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.to("probation")
    bench.wait(10)
    assert bench.wait(64) == ()
    assert bench.wait(1) == (Cancel(),)
    assert bench.wait(10) == (Check(),)
    assert bench.wait(65) == (Cancel(), Revert())
    assert bench.attempt.detail == "the check did not answer"


def test_r16_checks_that_can_not_be_made_end_the_probation() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.to("probation")
    bench.wait(10)
    assert bench.fail("worker", "killed") == ()
    bench.wait(10)
    assert bench.fail("worker", "killed") == (Cancel(), Revert())
    assert (bench.attempt.code, bench.attempt.detail) == ("unhealthy", "worker: killed")


def test_r18_a_finished_recall_drops_what_it_left() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    bench.accept(3, deployment(12, state="recalled", fallback=release(11)))
    bench.to("probation")
    bench.prove()
    assert bench.work == (
        Commit(package=PACKAGE, slot="a", release=release(11)),
        Discard(package=PACKAGE, slot="b"),
    )
    report = bench.reports[0]
    assert report is not None
    assert (report.deployment, report.version) == ("d-my-service-12", "1.12.0")
    assert (report.outcome, report.code) == ("rolled_back", "withdrawn")
    slots = bench.record.packages[PACKAGE]
    assert (slots.active, slots.b) == ("a", None)


def test_r18_what_was_recalled_does_not_come_back() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    bench.accept(3, deployment(12, state="recalled", fallback=release(11)))
    bench.to("probation")
    bench.prove()
    assert bench.accept(4, deployment(12)) == ()
    assert bench.record.why == "failed before: withdrawn"


def test_r25_a_tick_that_finds_nothing_due_changes_nothing() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    for stage in ("downloading", "installing", "switching", "probation"):
        bench.to(stage)
        before = bench.record
        assert bench.send(Ticked) == ()
        assert bench.record == before


def test_r1_effects_are_ordered_cancel_report_reply_work() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.command("rollback", PACKAGE)
    names = [type(effect).__name__ for effect in bench.effects]
    assert names == ["Cancel", "Report", "Reply", "Discard"]
    assert Reply(id="c-1", code=None, detail="going back from my-service 1.12.0") in bench.effects


def test_step_is_pure() -> None:
    bench = Bench()
    before = bench.record
    event = Accepted(at=bench.at, plan=plan(1, deployment(12)))
    assert step(before, event) == step(before, event)
    assert bench.record == before
