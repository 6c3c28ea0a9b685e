"""What is shown of a whole fleet costs as many questions to the database as what is shown of one device."""

from pathlib import Path

import pytest
from sqlalchemy import event

from server.adapters.sql.store import SqlStore
from server.ports import Reading
from server.services import node_view
from tests.fakes.reporting import ReportingDevice


@pytest.mark.parametrize("count", [1, 50])
def test_devices_are_listed_with_their_readings_in_two(tmp_path: Path, count: int) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/fairlead.db")
    names = [f"node-{number:02}" for number in range(count)]
    with store.begin() as work:
        work.put_devices([ReportingDevice(name).enrolled() for name in names])
        rows = [
            Reading(device=name, kind=kind, at_s=1.0, payload=payload)
            for name in names
            for kind, payload in (("telemetry", b'{"cpu_percent":3}'), ("health", b"[]"), ("state", b"{}"))
        ]
        work.put_readings(rows)
    questions: list[str] = []
    event.listen(store._reading, "before_cursor_execute", lambda *given: questions.append(given[2]))
    with store.read() as reads:
        shown = node_view.views(reads, None)
        assert [view.device.id for view in shown] == names
        assert all(view.readings == {"telemetry": {"cpu_percent": 3}} for view in shown)
        assert node_view.view(reads, shown[0].device) == shown[0]
    assert len([text for text in questions if text.startswith("SELECT")]) == 3
    store.close()
