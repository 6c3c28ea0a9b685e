"""The address of the broker, as an operator writes it."""

from pathlib import Path

import pytest

from fleet_protocol.errors import PolicyError
from fleet_protocol.topics import Topics
from server.adapters.mqtt import LinkSettings
from server.adapters.mqtt.link import subscriptions


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("mqtt://127.0.0.1:1884", (False, "127.0.0.1", 1884)),
        ("mqtt://broker.example", (False, "broker.example", 1883)),
        ("mqtts://broker.example/", (True, "broker.example", 8883)),
        ("mqtts://[::1]:9", (True, "::1", 9)),
    ],
)
def test_an_address_is_read(url: str, parts: tuple[bool, str, int]) -> None:
    settings = LinkSettings(url=url)
    assert (settings.tls, settings.host, settings.port) == parts


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:1883", "http://x", "mqtt://", "mqtt://x:y", "mqtt://x:99999", "mqtt://u:p@x", "mqtt://x/a?b"],
)
def test_another_address_gets_one_clear_line(url: str) -> None:
    with pytest.raises(PolicyError) as caught:
        LinkSettings(url=url)
    assert caught.value.code == "setup"
    assert "\n" not in str(caught.value)


def test_the_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("pass word\nnot this\n")
    assert LinkSettings(url="mqtt://x", password_file=path).password() == "pass word"
    assert LinkSettings(url="mqtt://x").password() is None


def test_a_password_that_can_not_be_read_gets_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        LinkSettings(url="mqtt://x", password_file=tmp_path / "none").password()
    assert caught.value.code == "setup"


def test_retained_topics_are_read_at_qos_0_and_events_at_their_own() -> None:
    wanted = dict(subscriptions(Topics("f")))
    assert wanted == {
        "f/devices/+/availability": 0,
        "f/devices/+/state": 0,
        "f/devices/+/heartbeat": 0,
        "f/devices/+/telemetry": 0,
        "f/devices/+/health": 1,
        "f/devices/+/report": 1,
        "f/devices/+/reply": 1,
        "f/trust/root/+": 0,
        "f/trust/timestamp": 0,
        "f/trust/snapshot/+": 0,
        "f/trust/targets/+": 0,
        "f/trust/delegated/+/+": 0,
        "f/groups/+/manifest": 0,
        "f/devices/+/assignment": 0,
    }
