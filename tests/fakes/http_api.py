"""The REST API on a real socket, with a client that has its token."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from server.api.application import create_application
from server.http_server import HttpServer, bind
from server.settings import Settings
from server.tokens import Tokens
from tests.fakes.server_stack import ServerStack

TOKEN = "a-token-of-some-length"
ENROL_TOKEN = "another-token-for-devices"


@contextmanager
def serving(stack: ServerStack, *, token: bool = True) -> Iterator[httpx.Client]:
    """Serve the stack's use cases with small caps until the block ends."""
    settings = Settings(body_most_bytes=4_096, catalogue_most_bytes=100_000, artifact_most_bytes=1_000_000)
    listener = bind("127.0.0.1", 0)
    server = HttpServer(create_application(stack.use_cases(), settings, Tokens(api=TOKEN, enrol=ENROL_TOKEN)), listener)
    server.start()
    headers = {"authorization": f"Bearer {TOKEN}"} if token else {}
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
            yield client
    finally:
        server.stop()
