"""docs/api.md asks only for what the server answers, with the defaults that the code has."""

import re
from pathlib import Path

import pytest

from server.api.application import create_application
from server.services.update_request import UpdateRequest
from server.settings import Settings
from server.tokens import Tokens
from tests.fakes.server_stack import ServerStack

GUIDE = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
CALLS = re.findall(r"^curl (.*?)\"\$S(/[^\"?]*)", GUIDE, re.MULTILINE)


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    stack = ServerStack(tmp_path_factory.mktemp("guide"))
    tokens = Tokens(api="a-token-of-some-length", enrol="another-for-devices")
    document = create_application(stack.use_cases(), Settings(), tokens).openapi()
    return {path: {method.upper() for method in methods} for path, methods in document["paths"].items()}


@pytest.mark.parametrize(("options", "path"), CALLS)
def test_every_call_is_a_route(routes: dict[str, set[str]], options: str, path: str) -> None:
    named = {re.sub(r"\{\w+\}", "[^/]+", route): methods for route, methods in routes.items()}
    found = set().union(*(methods for route, methods in named.items() if re.fullmatch(route, path)))
    assert found, path
    method = re.search(r"-X (\w+)", options)
    assert (method[1] if method else ("PUT" if "-T " in options else "")) in found | {""}


def test_there_are_calls() -> None:
    assert len(CALLS) > 20


@pytest.mark.parametrize("name", ["soak_s", "success_rate", "probation_s", "silence_s", "silence_limit"])
def test_defaults(name: str) -> None:
    row = next(line for line in GUIDE.splitlines() if line.startswith("| `") and f"`{name}`" in line)
    names, defaults = row.split("|")[1], row.split("|")[2]
    position = re.findall(r"`(\w+)`", names).index(name)
    assert float(defaults.split(",")[position]) == UpdateRequest.model_fields[name].default
