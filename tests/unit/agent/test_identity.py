"""Whom workers become: an account that is there, without privileges, or nobody else."""

import os
import pwd
from pathlib import Path

import pytest

from device_agent.identity import WorkerUser, worker_user
from device_agent.settings import AgentSettings
from fleet_protocol.errors import PolicyError
from tests.fakes.worker_account import NAME, account


def settings(name: str | None) -> AgentSettings:
    return AgentSettings(
        device="node-1",
        fleet="acme",
        device_class="x86_64",
        state_dir=Path("/nonexistent"),
        path=Path("/etc/agent.toml"),
        worker_user=name,
    )


def refusal(name: str) -> str:
    with pytest.raises(PolicyError) as caught:
        worker_user(settings(name))
    assert caught.value.code == "setup"
    assert "\n" not in str(caught.value)
    assert "/etc/agent.toml" in str(caught.value)
    return caught.value.detail


def test_without_a_name_workers_are_who_the_agent_is() -> None:
    assert worker_user(settings(None)) is None


@pytest.mark.parametrize("name", ["no-such-user-here", "", "a\nb", "ü", "x" * 5_000, "/etc/passwd", "0"])
def test_a_user_that_is_not_there(name: str) -> None:
    assert "is no user of this machine" in refusal(name)


def test_root_is_no_worker() -> None:
    assert "without privileges" in refusal("root")


def test_root_can_have_other_workers_and_others_only_themselves() -> None:
    if os.geteuid() == 0:
        assert worker_user(settings(NAME)) == account()
        assert isinstance(account(), WorkerUser)
    else:
        assert "runs as root" in refusal(NAME)
        assert worker_user(settings(pwd.getpwuid(os.geteuid()).pw_name)) is None
