"""Rules of server/services/observing.py, cited by number, against a plain count over every device."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol.errors import PolicyError
from fleet_protocol.manifest import Target, bucket
from fleet_protocol.messages import OUTCOMES, Outcome
from server.domain import engine
from server.domain.fleet import AttemptSeen, Device
from server.domain.job import Job
from server.domain.rollout import Arm, FailureSeen, OpenWave, Policy, Rollout, Wave
from server.services.observing import Observer
from server.services.selection import Census, sizes
from tests.fakes.store import MemoryStore

SALT = "6f2c9e01"
NOW_S = 10_000.0
SILENCE_S = 300.0
NODES = [f"node-{number}" for number in range(40)]
FAILED = ("rolled_back", "failed", "refused")


def device(name: str, **changes: object) -> Device:
    plain = Device(
        id=name,
        group="line-1",
        device_class="x86_64",
        key_id="k",
        public_key={},
        enrolled_s=1.0,
        seen_s=NOW_S,
    )
    return replace(plain, **changes)


def rollout(*waves: Wave, wave: int = 0, opened_s: float | None = NOW_S - 1_000) -> Rollout:
    policy = Policy(
        waves=waves or (Wave(share_bp=2_500), Wave(share_bp=10_000)),
        soak_s=60,
        failure_limit=1,
        failure_rate=0.1,
        silence_s=SILENCE_S,
        silence_limit=1,
        on_failure="recall",
        probation_s=60,
    )
    return Rollout(
        id="d-1",
        group="line-1",
        package="app",
        version="1.2.0",
        counter=12,
        policy=policy,
        wave=wave,
        wave_opened_s=opened_s,
    )


JOB = Job(
    id="d-1",
    update_type="service",
    description="",
    targets=(Target(path="app/1", length=1, sha256="ab" * 32),),
    sources=(),
    salt=SALT,
    fallback=None,
    not_before=None,
    window=None,
    created_s=1.0,
    created_by="operator",
)


def attempt(name: str, outcome: Outcome | None, **changes: object) -> AttemptSeen:
    plain = AttemptSeen(
        deployment="d-1",
        device=name,
        version="1.2.0",
        number=1,
        stage="idle",
        outcome=outcome,
        code="unhealthy" if outcome in FAILED else None,
        detail=f"of {name}",
        at_s=1.0,
    )
    return replace(plain, **changes)


def filled(*devices: Device, attempts: list[AttemptSeen] | None = None) -> MemoryStore:
    store = MemoryStore()
    with store.begin() as work:
        work.put_job(JOB)
        work.put_devices(devices or [device(name) for name in NODES])
        work.put_attempts(attempts or [])
    return store


def observe(store: MemoryStore, which: Rollout, observer: Observer | None = None, classes: set[str] | None = None):
    with store.read() as reads:
        return (observer or Observer()).observe(reads, which, NOW_S, classes)


def below(share_bp: int) -> list[str]:
    return [name for name in NODES if bucket(SALT, name) < share_bp]


def test_rule_1_the_arms_are_those_that_the_devices_compute() -> None:
    first, second = len(below(2_500)), len(below(6_000))
    waves = (Wave(share_bp=2_500), Wave(share_bp=6_000), Wave(share_bp=10_000))
    store = filled()
    seen = observe(store, rollout(*waves, wave=0))
    assert seen.of_wave == 0
    assert (seen.wave.devices, seen.treated.devices, seen.control.devices) == (first, first, 40 - first)
    seen = observe(store, rollout(*waves, wave=1))
    assert (seen.wave.devices, seen.treated.devices, seen.control.devices) == (second - first, second, 40 - second)
    seen = observe(store, rollout(*waves, wave=2))
    assert (seen.wave.devices, seen.treated.devices, seen.control.devices) == (40 - second, 40, 0)


def test_rule_1_before_the_first_wave_everybody_is_control() -> None:
    seen = observe(filled(), rollout(wave=-1, opened_s=None))
    assert (seen.of_wave, seen.wave, seen.treated, seen.control) == (-1, Arm(), Arm(), Arm(devices=40))
    assert seen.lowest_left == min(bucket(SALT, name) for name in NODES)


def test_rule_1_named_devices_count_once_and_only_in_their_group() -> None:
    inside, outside = below(2_500)[0], next(name for name in NODES if bucket(SALT, name) >= 2_500)
    waves = (Wave(share_bp=0, devices=(outside, "stranger", "elsewhere")), Wave(share_bp=2_500, devices=(inside,)))
    store = filled(*(device(name) for name in NODES), device("elsewhere", group="line-2"))
    seen = observe(store, rollout(*waves, wave=0))
    assert (seen.wave.devices, seen.treated.devices, seen.control.devices) == (1, 1, 39)
    seen = observe(store, rollout(*waves, wave=1))
    expected = len(below(2_500))
    assert (seen.wave.devices, seen.treated.devices, seen.control.devices) == (expected, expected + 1, 39 - expected)


def test_rules_2_to_4_votes() -> None:
    selected = below(2_500)
    outcomes: list[Outcome | None] = ["committed", "rolled_back", "failed", "refused", "abandoned", None]
    votes = [attempt(name, outcome) for name, outcome in zip(selected, outcomes, strict=False)]
    assert len(votes) == 6
    seen = observe(filled(attempts=votes), rollout())
    assert seen.treated == seen.wave == Arm(devices=len(selected), committed=1, failed=3)
    assert seen.control == Arm(devices=40 - len(selected))


def test_rule_4_who_was_ordered_back_is_neither_committed_nor_failed_nor_silent() -> None:
    committed, failed, back, undone, given_up, held = below(2_500)[:6]
    votes = [
        attempt(committed, "committed"),
        attempt(failed, "rolled_back"),
        attempt(back, "rolled_back", code=None, detail="rolled back by operator"),
        attempt(undone, "rolled_back", code="withdrawn"),
        attempt(given_up, "abandoned", code="withdrawn"),
        attempt(held, "abandoned"),
    ]
    devices = [device(name, seen_s=None) for name in NODES]
    seen = observe(filled(*devices, attempts=votes), rollout())
    total = len(below(2_500))
    assert seen.treated == Arm(devices=total, committed=1, failed=1, silent=total - 5)
    assert [failure.device for failure in seen.failures] == [failed]


def test_rule_4_an_operators_rollback_takes_a_commit_back_and_a_new_commit_counts_again() -> None:
    name = below(2_500)[0]
    store, observer = filled(), Observer()
    counts = []
    for outcome, code in (("committed", None), (None, None), ("rolled_back", None), ("committed", "unhealthy")):
        with store.begin() as work:
            work.put_attempts([attempt(name, outcome, code=code)])
        treated = observe(store, rollout(), observer).treated
        counts.append((treated.committed, treated.failed))
    assert counts == [(1, 0), (0, 0), (0, 0), (1, 0)]


def test_rule_3_a_commit_of_another_version_is_none() -> None:
    votes = [attempt(below(2_500)[0], "committed", version="1.1.0")]
    assert observe(filled(attempts=votes), rollout()).treated.committed == 0


def test_rule_5_devices_that_are_not_selected_have_no_vote() -> None:
    outside = [name for name in NODES if bucket(SALT, name) >= 2_500]
    store = filled(attempts=[attempt(name, "rolled_back") for name in outside])
    seen = observe(store, rollout())
    assert seen.treated.failed == 0
    assert seen.control == Arm(devices=len(outside))
    assert seen.failures == ()


def test_rule_6_silence_is_counted_in_both_arms() -> None:
    quiet = {*below(2_500)[:3], *[name for name in NODES if bucket(SALT, name) >= 2_500][:2]}
    devices = [device(name, seen_s=NOW_S - SILENCE_S - 1 if name in quiet else NOW_S - SILENCE_S) for name in NODES]
    seen = observe(filled(*devices), rollout())
    assert (seen.treated.silent, seen.wave.silent, seen.control.silent) == (3, 3, 2)


def test_rule_6_who_was_never_seen_is_silent_and_who_finished_is_not() -> None:
    first, second, third = below(2_500)[:3]
    devices = [device(name, seen_s=None) for name in NODES]
    votes = [attempt(first, "committed"), attempt(second, "failed"), attempt(third, "abandoned")]
    seen = observe(filled(*devices, attempts=votes), rollout())
    assert seen.treated.silent == len(below(2_500)) - 2
    assert seen.control.silent == 40 - len(below(2_500))


def test_rule_6_nobody_is_silent_until_the_newest_wave_has_been_open_that_long() -> None:
    store = filled(*(device(name, seen_s=None) for name in NODES))
    assert observe(store, rollout(opened_s=NOW_S - SILENCE_S + 1)).treated.silent == 0
    assert observe(store, rollout(opened_s=NOW_S - SILENCE_S)).treated.silent == len(below(2_500))


def test_rule_7_hardware_that_the_release_does_not_fit_takes_no_part() -> None:
    devices = [device(name, device_class="armv7" if number % 2 else "x86_64") for number, name in enumerate(NODES)]
    store = filled(*devices, attempts=[attempt(name, "failed") for name in NODES])
    observer = Observer()
    seen = observe(store, rollout(Wave(share_bp=10_000)), observer, {"armv7"})
    assert seen.treated == Arm(devices=20, failed=20)
    assert observe(store, rollout(Wave(share_bp=10_000)), observer).treated.devices == 40


def test_the_newest_failures_are_shown_first() -> None:
    selected = below(10_000)[:8]
    votes = [attempt(name, "failed", at_s=float(number)) for number, name in enumerate(selected)]
    seen = observe(filled(attempts=votes), rollout(Wave(share_bp=10_000)))
    assert [failure.device for failure in seen.failures] == selected[:2:-1]
    assert seen.failures[0] == FailureSeen(device=selected[7], code="unhealthy", detail=f"of {selected[7]}")


def test_a_rollout_without_a_job_is_an_error() -> None:
    with pytest.raises(PolicyError) as caught:
        observe(MemoryStore(), rollout())
    assert caught.value.code == "unknown-update"


def test_devices_that_join_leave_or_move_are_noticed() -> None:
    store, observer = filled(device("node-1"), device("node-2")), Observer()
    everybody = rollout(Wave(share_bp=10_000))
    assert observe(store, everybody, observer).treated.devices == 2
    for change, expected in ((device("node-3"), 3), (device("node-2", group="line-2"), 2), (device("node-2"), 3)):
        with store.begin() as work:
            work.put_device(change)
        assert observe(store, everybody, observer).treated.devices == expected


def test_rule_2_a_newer_vote_of_a_device_replaces_its_older_one() -> None:
    name, other = below(2_500)[:2]
    store, observer = filled(attempts=[attempt(other, "committed")]), Observer()
    counts = []
    for outcome in ("committed", "failed", None, "rolled_back", "rolled_back", "abandoned", "committed"):
        with store.begin() as work:
            work.put_attempts([attempt(name, outcome)])
        seen = observe(store, rollout(), observer)
        assert seen.treated == seen.wave
        assert [failure.device for failure in seen.failures] == [name] * seen.treated.failed
        counts.append((seen.treated.committed, seen.treated.failed))
    assert counts == [(2, 0), (1, 1), (1, 0), (1, 1), (1, 1), (1, 0), (2, 0)]


def test_a_wider_wave_counts_the_old_votes_anew() -> None:
    store, observer = filled(attempts=[attempt(name, "committed") for name in NODES]), Observer()
    selected = len(below(2_500))
    assert observe(store, rollout(wave=0), observer).treated.committed == selected
    seen = observe(store, rollout(wave=1), observer)
    assert (seen.wave.committed, seen.treated.committed) == (40 - selected, 40)


def test_many_groups_do_not_fill_the_memory() -> None:
    observer = Observer()
    store = filled(*(device(f"node-{number}", group=f"line-{number}") for number in range(100)))
    for number in range(100):
        observe(store, replace(rollout(), group=f"line-{number}"), observer)
    assert len(observer._rosters) <= 16
    assert len(observer._censuses) <= 64


@settings(max_examples=60)
@given(st.data())
def test_the_count_equals_a_plain_count_over_every_device(data: st.DataObject) -> None:
    names = NODES[:12]
    shares = sorted(data.draw(st.lists(st.integers(0, 10_000), min_size=1, max_size=3)))
    named = st.sets(st.sampled_from(names), max_size=2)
    waves = [Wave(share_bp=share, devices=tuple(data.draw(named))) for share in shares]
    which = rollout(*waves, wave=data.draw(st.integers(-1, len(waves) - 1)))
    seen_s = {name: data.draw(st.sampled_from([None, NOW_S, NOW_S - 400])) for name in names}
    outcome = {name: data.draw(st.sampled_from([*OUTCOMES, None, "no attempt"])) for name in names}
    votes = [attempt(name, outcome[name]) for name in names if outcome[name] != "no attempt"]
    store = filled(*(device(name, seen_s=seen_s[name]) for name in names), attempts=votes)

    def selected(name: str, wave: int) -> bool:
        return any(name in w.devices or bucket(SALT, name) < w.share_bp for w in waves[: max(0, wave + 1)])

    def arm(members: list[str], *, votes: bool = True) -> Arm:
        committed = [name for name in members if outcome[name] == "committed"]
        failed = [name for name in members if outcome[name] in FAILED]
        finished = {*committed, *failed}
        silent = [n for n in members if n not in finished and (seen_s[n] is None or seen_s[n] < NOW_S - SILENCE_S)]
        return Arm(
            devices=len(members),
            committed=len(committed) * votes,
            failed=len(failed) * votes,
            silent=len(silent),
        )

    observer = Observer()
    observe(filled(*(device(name) for name in names)), which, observer)
    counted = observe(store, which, observer)
    treated = [name for name in names if selected(name, which.wave)]
    assert counted.treated == arm(treated)
    assert counted.wave == arm([name for name in treated if not selected(name, which.wave - 1)])
    left = [name for name in names if name not in treated]
    assert counted.control == arm(left, votes=False)
    assert counted.lowest_left == min((bucket(SALT, name) for name in left), default=None)
    following = waves[which.wave + 1].devices if which.wave + 1 < len(waves) else ()
    assert counted.next_named == len(set(left) & set(following))


@settings(max_examples=60)
@given(st.data())
def test_the_waves_are_sized_as_they_will_open(data: st.DataObject) -> None:
    """However small the shares and the group, and whoever is named."""
    names = NODES[: data.draw(st.integers(0, 5))]
    shares = sorted(data.draw(st.lists(st.integers(0, 10_000), min_size=1, max_size=4)))
    named = st.sets(st.sampled_from(["stranger", *NODES[:5]]), max_size=1)
    which = rollout(*(Wave(share_bp=s, devices=tuple(data.draw(named))) for s in shares), wave=-1, opened_s=None)
    store, observer = filled(device("elsewhere", group="line-2"), *(device(name) for name in names)), Observer()
    foreseen = sizes(which, Census.of(names, SALT, {}))
    opened = []
    for index, wave in enumerate(which.policy.waves):
        seen = observe(store, which, observer)
        share_bp = engine.next_share(which, seen.lowest_left, seen.next_named)
        which = engine.apply(which, OpenWave(index=index, share_bp=share_bp), NOW_S)
        arms = observe(store, which, observer)
        opened.append(arms.treated.devices)
        asked = wave.share_bp > (which.policy.waves[index - 1].share_bp if index else 0)
        assert arms.wave.devices or not asked or not seen.control.devices, "E11"
        assert sizes(which, Census.of(names, SALT, {})) == foreseen
    assert tuple(opened) == foreseen
