"""Raw documents from strangers: the numbered rules of the intake, and the token bucket."""

from device_agent.bucket import TokenBucket
from device_agent.intake import COMMANDS_MOST, Intake, digest_of
from fleet_protocol import limits, topics
from fleet_protocol.topics import Topics

NAMES = Topics()
MANIFEST = "fleet/v1/groups/line-1/manifest"
ASSIGNMENT = "fleet/v1/devices/node-1/assignment"
COMMAND = "fleet/v1/devices/node-1/command"
TIMESTAMP = "fleet/v1/trust/timestamp"


def _intake() -> tuple[Intake, list[int]]:
    told: list[int] = []
    return Intake(NAMES, lambda: told.append(1)), told


def _taken(intake: Intake) -> list[bytes]:
    taken = []
    while (waiting := intake.take()) is not None:
        taken.append(waiting.payload)
    return taken


def test_rule_1_too_large_and_empty() -> None:
    intake, told = _intake()
    intake.offer(MANIFEST, b"")
    assert not told
    intake.offer(MANIFEST, b"x" * (limits.MANIFEST_SIZE + 1))
    intake.offer(COMMAND, b"x" * (limits.COMMAND_SIZE + 1))
    assert told == [1]
    assert intake.take() is None
    assert intake.take_dropped() == {"size": COMMAND}
    assert intake.take_dropped() == {}
    intake.offer(MANIFEST, b"x" * limits.MANIFEST_SIZE)
    assert len(_taken(intake)[0]) == limits.MANIFEST_SIZE


def test_rule_2_only_the_newest_of_a_topic_waits() -> None:
    intake, _ = _intake()
    for number in range(1_000):
        intake.offer(MANIFEST, b"m%d" % number)
    intake.offer(ASSIGNMENT, b"a")
    assert _taken(intake) == [b"a", b"m999"]


def test_rule_2_commands_wait_in_order_and_bounded() -> None:
    intake, _ = _intake()
    for number in range(COMMANDS_MOST + 5):
        intake.offer(COMMAND, b"c%d" % number)
    assert _taken(intake) == [b"c%d" % number for number in range(COMMANDS_MOST)]


def test_rule_3_judged_bytes_are_no_news() -> None:
    intake, told = _intake()
    intake.judged(digest_of(MANIFEST, b"good"), good=True)
    intake.judged(digest_of(MANIFEST, b"bad"), good=False)
    intake.offer(MANIFEST, b"good")
    intake.offer(MANIFEST, b"bad")
    assert not told
    intake.look_again()
    intake.offer(MANIFEST, b"good")
    intake.offer(MANIFEST, b"bad")
    assert _taken(intake) == [b"bad"]
    intake.look_again(at_all=True)
    intake.offer(MANIFEST, b"good")
    assert _taken(intake) == [b"good"]


def test_rule_3_the_obeyed_document_again_replaces_a_newer_one_that_waits() -> None:
    intake, _ = _intake()
    intake.judged(digest_of(MANIFEST, b"good"), good=True)
    intake.offer(MANIFEST, b"forged")
    intake.offer(MANIFEST, b"good")
    assert intake.take() is None


def test_rule_4_verdicts_are_bounded() -> None:
    intake, _ = _intake()
    for number in range(1_000):
        intake.judged(digest_of(MANIFEST, b"%d" % number), good=False)
    assert intake.verdict(digest_of(MANIFEST, b"0")) is None
    assert intake.verdict(digest_of(MANIFEST, b"999")) is False


def test_rule_5_a_flood_of_one_kind_holds_up_no_other() -> None:
    intake, _ = _intake()
    taken = []
    for number in range(6):
        for _ in range(COMMANDS_MOST):
            intake.offer(COMMAND, b"c%d" % number)
        intake.offer(ASSIGNMENT, b"a%d" % number)
        intake.offer(MANIFEST, b"m")
        waiting = intake.take()
        assert waiting is not None
        taken.append(waiting.kind)
    assert taken == [topics.COMMAND, topics.ASSIGNMENT, topics.MANIFEST] * 2


def test_rule_5_a_kind_that_waits_on_gives_its_turn_away_and_keeps_its_place() -> None:
    intake, _ = _intake()
    for topic in (COMMAND, ASSIGNMENT, MANIFEST):
        intake.offer(topic, topic.encode())
    taken = [intake.take(later) for later in ([topics.COMMAND], [topics.COMMAND, topics.MANIFEST], [], [])]
    assert [one and one.topic for one in taken] == [ASSIGNMENT, None, COMMAND, MANIFEST]


def test_news_is_told_once_until_somebody_looks() -> None:
    intake, told = _intake()
    intake.offer(MANIFEST, b"1")
    intake.offer(MANIFEST, b"2")
    assert len(told) == 1
    intake.heard()
    intake.offer(MANIFEST, b"3")
    assert len(told) == 2


def test_trust_documents_are_news_once() -> None:
    intake, _ = _intake()
    intake.offer(TIMESTAMP, b"1")
    assert intake.take_trust_change()
    intake.offer(TIMESTAMP, b"1")
    assert not intake.take_trust_change()
    intake.offer("fleet/v1/trust/root/2", b"r")
    intake.offer("fleet/v1/trust/root/3", b"r")
    assert intake.take_trust_change()
    assert intake.take() is None


def test_rule_1_foreign_topics_are_counted_and_other_documents_are_not_for_us() -> None:
    intake, told = _intake()
    for topic in ("fleet/v1/devices/node-1/state", "fleet/v1/trust/snapshot/1"):
        intake.offer(topic, b"x")
    intake.offer("fleet/v1/trust/root/x", b"")
    assert not told
    for topic in ("x", "fleet/v1/groups/UP/manifest", "fleet/v1/trust/root/x"):
        intake.offer(topic, b"x")
    assert told == [1]
    assert intake.take() is None
    assert intake.take_dropped() == {"schema": "fleet/v1/trust/root/x"}


def test_what_is_put_back_yields_to_newer_bytes() -> None:
    intake, _ = _intake()
    intake.offer(MANIFEST, b"1")
    waiting = intake.take()
    assert waiting is not None
    intake.offer(MANIFEST, b"2")
    intake.put_back(waiting)
    assert _taken(intake) == [b"2"]
    intake.put_back(waiting)
    assert intake.kinds() == {topics.MANIFEST}
    assert intake.take(later=[topics.MANIFEST]) is None
    assert _taken(intake) == [b"1"]


def test_bucket() -> None:
    bucket = TokenBucket(0.0, capacity=2, refill_s=5.0)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert bucket.ready_s(0.0) == 5.0
    assert not bucket.take(4.9)
    assert bucket.take(5.0)
    bucket.give_back()
    assert bucket.ready_s(5.0) == 5.0
    assert [bucket.take(1_000.0) for _ in range(3)] == [True, True, False]
