"""Rules D1 to D3 of server.services.nodes."""

from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from fleet_protocol.acceptance import open_assignment
from fleet_protocol.errors import FleetError
from fleet_protocol.topics import ASSIGNMENT
from tests.fakes.server_stack import CLASS, FLEET, GROUP, ServerStack


def assignment(stack: ServerStack, device: str) -> Any:
    data = stack.link.retained[stack.topics.of(ASSIGNMENT, device=device)]
    role = stack.catalogue.require().root.roles["deployment"]
    return open_assignment(data, role=role, fleet=FLEET, device=device).document


def test_enrolment_makes_the_group_its_manifest_and_the_assignment(stack: ServerStack) -> None:
    stack.enrol("new-1", group="line-9")
    assert (assignment(stack, "new-1").group, assignment(stack, "new-1").sequence) == ("line-9", 1)
    assert stack.manifest("line-9").deployments == ()


def test_d1_the_same_key_again_changes_nothing(stack: ServerStack) -> None:
    key = stack.enrol("new-1")["new-1"].public_key.to_dict()
    stack.nodes.move("new-1", "line-2")
    sent = len(stack.link.sent)
    assert not stack.nodes.register("new-1", GROUP, CLASS, key)
    assert len(stack.link.sent) == sent
    with stack.store.read() as reads:
        device = reads.device("new-1")
    assert device is not None and device.group == "line-2", "enrolling again does not move it back"


def test_d1_another_key_is_a_conflict(stack: ServerStack) -> None:
    with pytest.raises(FleetError) as caught:
        stack.nodes.register("node-1", GROUP, CLASS, CryptoSigner.generate_ed25519().public_key.to_dict())
    assert caught.value.code == "conflict"


def test_the_key_id_is_computed_and_not_believed(stack: ServerStack) -> None:
    key = CryptoSigner.generate_ed25519().public_key
    stack.nodes.register("new-1", GROUP, CLASS, key.to_dict())
    with stack.store.read() as reads:
        device = reads.device("new-1")
    assert device is not None and device.key_id == key.keyid


@pytest.mark.parametrize(
    "key",
    [
        {},
        {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00"}},
        {"keytype": "ed25519", "scheme": "ed25519", "keyval": {}},
        CryptoSigner.generate_rsa(size=2_048).public_key.to_dict(),
    ],
)
def test_another_kind_of_key_is_refused(stack: ServerStack, key: dict[str, Any]) -> None:
    with pytest.raises(FleetError) as caught:
        stack.nodes.register("new-1", GROUP, CLASS, key)
    assert caught.value.code == "bad-request"


def test_d2_d3_moving_issues_a_newer_assignment(stack: ServerStack) -> None:
    stack.nodes.move("node-1", "line-2")
    assert (assignment(stack, "node-1").group, assignment(stack, "node-1").sequence) == ("line-2", 2)
    stack.nodes.move("node-1", "line-2")
    assert assignment(stack, "node-1").sequence == 2
    stack.nodes.move("node-1", GROUP)
    assert assignment(stack, "node-1").sequence == 3
    with pytest.raises(FleetError) as caught:
        stack.nodes.move("nobody", GROUP)
    assert caught.value.code == "unknown-node"


def test_nothing_can_be_enrolled_before_there_is_a_catalogue(empty: ServerStack) -> None:
    with pytest.raises(FleetError) as caught:
        empty.enrol("node-1")
    assert caught.value.code == "setup"
    assert "POST /api/catalogue" in caught.value.detail
