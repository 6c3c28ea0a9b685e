"""The server's use cases with one release in the catalogue and four devices."""

from pathlib import Path

import pytest

from tests.fakes.server_stack import ServerStack

NODES = ("node-1", "node-2", "node-3", "node-4")


@pytest.fixture
def empty(tmp_path: Path) -> ServerStack:
    return ServerStack(tmp_path)


@pytest.fixture
def stack(empty: ServerStack) -> ServerStack:
    empty.release("web", "1.0.0", 1)
    empty.enrol(*NODES)
    return empty
