"""The REST API from the outside: what the CLI and the demo speak."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

_TIMEOUT_S: Final = 30.0
_BLOCK: Final = 1024 * 1024


class ClientError(Exception):
    """The server said no, or could not be asked. `status` is None where there was no answer at all."""

    def __init__(self, code: str, detail: str, *, status: int | None) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.detail = detail
        self.status = status


class Client:
    """One server and one token. Every call returns the answer's JSON or raises ClientError."""

    def __init__(self, url: str, token: str | None, *, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=_TIMEOUT_S, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int | None) -> Any:
        """Read a resource."""
        return self._ask("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask for a change; `body` travels as JSON."""
        return self._ask("POST", path, json=dict(body or {}))

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """Set a resource; `body` travels as JSON."""
        return self._ask("PUT", path, json=dict(body))

    def put_file(self, path: str, file: Path) -> Any:
        """Upload a file as it is, in blocks of 1 MiB."""
        headers = {"Content-Length": str(file.stat().st_size), "Content-Type": "application/octet-stream"}
        return self._ask("PUT", path, content=_blocks(file), headers=headers)

    def has(self, path: str) -> bool:
        """Whether a resource exists."""
        try:
            self._ask("HEAD", path)
        except ClientError as error:
            if error.status == 404:
                return False
            raise
        return True

    def _ask(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.TimeoutException:
            raise ClientError("timeout", f"the server at {self.url} did not answer in time", status=None) from None
        except httpx.TransportError as error:
            detail = f"no server answers at {self.url}: {error}. Is `fairlead serve` running?"
            raise ClientError("unreachable", detail, status=None) from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise ClientError("bad-request", f"{self.url} is not an http:// address", status=None) from None
        if answer.is_success:
            return answer.json() if answer.content else {}
        raise _refusal(answer)


def _refusal(answer: httpx.Response) -> ClientError:
    try:
        body = answer.json()
        return ClientError(str(body["code"]), str(body["detail"]), status=answer.status_code)
    except (ValueError, KeyError, TypeError):
        detail = f"the server answered {answer.status_code} {answer.reason_phrase}; is it a Fairlead server?"
        return ClientError("refused", detail, status=answer.status_code)


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block
