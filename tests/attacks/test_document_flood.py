"""M12: a flood of bad signatures, through real worker processes."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from device_agent.adapters.worker_process import WAITING_MOST, WorkerProcess
from device_agent.trust.allowance import MOST, REFILL_S, Allowance
from fleet_protocol.topics import ROOT
from tests.fakes.trust_device import TrustDevice, enrolled, still_obeys
from tests.fakes.trust_fleet import ed25519
from tests.fakes.waiting import until


class Documents:
    """A retained reader that counts, and answers once it may."""

    def __init__(self, documents: Mapping[str, bytes]) -> None:
        self.documents, self.asked = documents, list[str]()
        self.may_answer = threading.Event()

    def read(self, topic: str, *, timeout_s: float) -> bytes | None:
        self.asked.append(topic)
        assert self.may_answer.wait(timeout_s)
        return self.documents.get(topic)


def test_a_flood_leaves_the_resident_free_and_the_next_good_document_in_time(tmp_path: Path) -> None:
    """Handing in never blocks, what waits is bounded, and each answer comes once."""
    fleet, device = enrolled(tmp_path / "state")
    config = tmp_path / "agent.toml"
    config.write_text(f'device = "node-1"\nfleet = "acme"\nclass = "x86_64"\nstate_dir = "{tmp_path}/state"\n')
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.write_bytes(fleet.manifest(fleet.deployment(), sequence=9, signers=ed25519(1)))
    good.write_bytes(fleet.manifest(fleet.deployment("my-service", "1.1.0"), sequence=2))
    before = device.trusted()
    reader = Documents(fleet.retained())
    worker = WorkerProcess(config, reader)
    answers: list[Mapping[str, Any]] = []
    try:
        for _ in range(WAITING_MOST * 10):
            worker.submit("manifest", {"path": str(bad), "group": "line-1"}, answers.append)
        overflow = [answer["code"] for answer in list(answers)]
        assert len(overflow) in (WAITING_MOST * 9, WAITING_MOST * 9 - 1), "one may have begun, and can not end yet"
        reader.may_answer.set()
        until(lambda: len([row for row in list(answers) if row["code"] == "signature"]) >= 6, deadline_s=120)
        worker.cancel()
        refused = [row["code"] for row in list(answers) if row["code"] != "busy"]
        assert set(refused) == {"signature"}
        assert device.trusted() == before
        answers.clear()
        worker.submit("manifest", {"path": str(good), "group": "line-1"}, answers.append)
        until(lambda: answers, deadline_s=120)
        assert answers[0]["result"]["sequence"] == 2
    finally:
        worker.close()
    newer_roots = [topic for topic in reader.asked if topic == fleet.topic(ROOT, version=2)]
    assert len(newer_roots) <= MOST + 1, "only so many looks for newer keys, and the good document's own"


def test_a_flood_makes_the_device_ask_for_newer_roots_only_so_often(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    foreign = ed25519(1)
    asked = len(device.asked)
    for _ in range(100):
        data = fleet.manifest(fleet.deployment(), signers=foreign)
        assert device.refused(lambda data=data: device.offer_manifest(data)) == "signature"
    looks = device.asked[asked:].count(fleet.topic(ROOT, version=2))
    assert looks == MOST
    still_obeys(fleet, device)


def test_newer_keys_are_found_again_once_the_flood_is_over(tmp_path: Path) -> None:
    """The refusal says when the document may be offered again, and a refresh finds the keys in any case."""
    fleet, device = enrolled(tmp_path)
    for _ in range(10):
        data = fleet.manifest(fleet.deployment(), signers=ed25519(1))
        device.attempt(lambda data=data: device.offer_manifest(data))
    fleet.rotate(deployment=ed25519(1))
    data = fleet.manifest(fleet.deployment())
    with pytest.raises(Exception, match="signature") as caught:
        device.offer_manifest(data)
    assert getattr(caught.value, "retry_after_s", None) == REFILL_S
    device.refill()
    assert device.offer_manifest(data)["root"] == 2
    still_obeys(fleet, device)


def test_keys_found_by_a_refresh_count_at_once(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    for _ in range(10):
        data = fleet.manifest(fleet.deployment(), signers=ed25519(1))
        device.attempt(lambda data=data: device.offer_manifest(data))
    fleet.rotate(deployment=ed25519(1))
    device.refresh()
    still_obeys(fleet, device)


def test_the_allowance_refills_with_time_and_with_a_boot(tmp_path: Path) -> None:
    now = [1_000.0]
    path = tmp_path / "allowance.json"
    allowance = Allowance(path, lambda: now[0])
    assert [allowance.take() for _ in range(6)] == [True] * 4 + [False] * 2
    now[0] += REFILL_S
    assert [allowance.take() for _ in range(2)] == [True, False]
    now[0] += 1_000 * REFILL_S
    assert [allowance.take() for _ in range(5)] == [True] * 4 + [False]
    now[0] = 0.0
    assert not allowance.take(), "a clock that went back gives nothing"
    path.write_text(path.read_text().replace('"boot": "', '"boot": "another-'))
    assert allowance.take()


@pytest.mark.parametrize("torn", ["", "{", "[]", "null"])
def test_an_allowance_that_cannot_be_read_is_empty(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "allowance.json"
    path.write_text(torn)
    now = [0.0]
    allowance = Allowance(path, lambda: now[0])
    assert not allowance.take()
    now[0] += REFILL_S
    assert allowance.take()


def test_a_device_of_its_own(tmp_path: Path) -> None:
    """The allowance is the device's, not the process's: it is on disk beside the floors and is none of them."""
    fleet, device = enrolled(tmp_path)
    device.attempt(lambda: device.offer_manifest(fleet.manifest(fleet.deployment(), signers=ed25519(1))))
    assert (tmp_path / "trust" / "allowance.json").exists()
    again = TrustDevice(fleet, tmp_path)
    again.offer_assignment(fleet.assignment())
    still_obeys(fleet, again)
