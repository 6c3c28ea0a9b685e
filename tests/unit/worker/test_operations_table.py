"""Who carries out which operation is a table, and every operation stands in it."""

import pkgutil

import device_agent.installers.ops
import device_agent.trust.ops
from device_agent.worker.answers import RESULTS
from device_agent.worker.operations import OPERATIONS

PRIVILEGED = {"stage", "activate", "check", "commit", "revert", "discard"}
"""These write what runs on the device, or run it."""
UNPRIVILEGED = {"assignment", "manifest", "refresh", "command", "sign", "fetch"}
"""These read what strangers wrote, and need nothing of the device but their own two folders and the device key."""


def _modules() -> set[str]:
    packages = (device_agent.trust.ops, device_agent.installers.ops)
    return {
        f"{package.__name__}.{found.name}" for package in packages for found in pkgutil.iter_modules(package.__path__)
    }


def test_every_operation_is_in_the_table() -> None:
    assert {operation.module for operation in OPERATIONS.values()} == _modules()
    for name, operation in OPERATIONS.items():
        assert operation.module.endswith(f".{name}")


def test_who_carries_out_what() -> None:
    assert {name for name, operation in OPERATIONS.items() if operation.privileged} == PRIVILEGED
    assert {name for name, operation in OPERATIONS.items() if not operation.privileged} == UNPRIVILEGED


def test_no_operation_on_documents_has_privileges() -> None:
    for operation in OPERATIONS.values():
        assert not (operation.privileged and operation.module.startswith(device_agent.trust.ops.__name__))


def test_the_resident_knows_the_form_of_every_answer_that_it_looks_into() -> None:
    """`refresh` and `fetch` tell nothing but that they are done."""
    assert RESULTS.keys() == UNPRIVILEGED - {"refresh", "fetch"}
