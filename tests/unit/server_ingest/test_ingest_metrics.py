"""When a line is logged about what repeats."""

from collections.abc import Iterator

import pytest
from loguru import logger
from prometheus_client import CollectorRegistry

from server.services.ingest_metrics import Bursts, IngestMetrics


@pytest.fixture
def lines() -> Iterator[list[str]]:
    lines: list[str] = []
    number = logger.add(lambda line: lines.append(str(line)), format="{message}")
    yield lines
    logger.remove(number)


def test_a_burst_is_spoken_of_once_and_then_with_its_number() -> None:
    now = [0.0]
    bursts = Bursts(lambda: now[0])
    assert [bursts.note("a"), bursts.note("a"), bursts.note("b"), bursts.note("a", 5)] == [1, 0, 1, 0]
    now[0] = 59.9
    assert bursts.note("a") == 0
    now[0] = 60.0
    assert bursts.note("a") == 8


def test_a_flood_is_counted_in_full_and_logged_in_one_line(lines: list[str]) -> None:
    registry = CollectorRegistry()
    metrics = IngestMetrics(registry, clock=lambda: 0.0)
    for _ in range(1_000):
        metrics.drop("report", "signature", "node-1: no signature")
    assert lines == ["dropped 1 report message(s), signature: node-1: no signature\n"]
    labels = {"kind": "report", "code": "signature"}
    assert registry.get_sample_value("fairlead_ingest_dropped_total", labels) == 1_000
