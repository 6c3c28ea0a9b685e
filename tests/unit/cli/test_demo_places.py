"""Where the demo says that things are."""

import shlex
from pathlib import Path

from server.cli.demo.places import NODES, NodePlace, Places, chosen


def places(home: Path, broker: int, server: int, *nodes: int) -> Places:
    made = (
        NodePlace(name=name, folder=home / name, http_port=port, service_port=1)
        for name, port in zip(NODES, nodes, strict=True)
    )
    return Places(home=home, broker_port=broker, server_port=server, nodes=tuple(made))


def test_who_has_another_port_than_usual_is_named(tmp_path: Path) -> None:
    assert places(tmp_path, 1883, 8080, 8081, 8082, 8083).moved == []
    assert places(tmp_path, 40_001, 40_002, 8081, 40_003, 8083).moved == [
        ("broker", 1883, "mqtt://127.0.0.1:40001"),
        ("server", 8080, "http://127.0.0.1:40002"),
        ("node-2", 8082, "http://127.0.0.1:40003"),
    ]


def test_the_lines_to_copy_are_whole(tmp_path: Path) -> None:
    made = places(tmp_path, 40_001, 40_002, 8081, 8082, 8083)
    made.server_data.mkdir()
    (made.server_data / "token").write_text("a-token\n")
    assert made.ready_lines["export"] == "FAIRLEAD_SERVER=http://127.0.0.1:40002 FAIRLEAD_TOKEN=a-token"
    words = shlex.split(made.ready_lines["mosquitto_sub"])
    assert words == ["-h", "127.0.0.1", "-p", "40001", "-v", "-t", "fleet/v1/#"]


def test_two_demos_that_begin_at_the_same_moment_have_ports_of_their_own(tmp_path: Path) -> None:
    """Nobody listens yet: neither broker nor server has been started."""
    with chosen(tmp_path / "one") as one, chosen(tmp_path / "two") as two:
        assert not _ports(one) & _ports(two)


def _ports(places: Places) -> set[int]:
    nodes = {port for node in places.nodes for port in (node.http_port, node.service_port)}
    return {places.broker_port, places.server_port, *nodes}
