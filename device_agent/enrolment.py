"""Makes a device one of a fleet: its key, the root that it trusts, and its place in a group."""

import hashlib
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from device_agent.adapters.state_folders import lay_out, make_state_dir, state_mode
from device_agent.identity import worker_user
from device_agent.settings import AgentSettings
from device_agent.trust import device_key, store
from device_agent.trust.device_key import DeviceKey
from device_agent.trust.trusted_root import read_root
from device_agent.worker.privileges import become
from fleet_protocol import limits, strict_json
from fleet_protocol.errors import CODES, Fault, PolicyError, ProtocolError, TransportError
from fleet_protocol.ids import check_id, is_id, shown

_TIMEOUT_S: Final = 30.0
_TOKEN_MOST: Final = 4_096


@dataclass(frozen=True, slots=True)
class Enrolment:
    """How to reach the server, and what is asked of it."""

    server: str
    token: str
    """The token, or `@` and the file that holds it."""
    group: str
    root_sha256: str | None


def init(settings: AgentSettings, root: Path, *, replace_store: bool) -> int:
    """Lay down `root` and make the device key; prints the public key as JSON. Twice is once.

    Raises PolicyError `setup`, `conflict` or `keys`, ProtocolError for a root that does not verify.
    """
    data = _read(root, limits.ROOT_SIZE)
    key = _move_in(settings)
    try:
        _lay_down(settings, data, replace_store=replace_store)
    except ProtocolError as error:
        if error.code == "untrusted":
            raise ProtocolError("untrusted", f"{error.detail}; --replace begins again with {root}") from None
        raise ProtocolError(error.code, f"{root}: {error.detail}") from None
    sys.stdout.write(json.dumps(key.public_key) + "\n")
    return 0


def enroll(settings: AgentSettings, enrolment: Enrolment) -> int:
    """Register the device's public key and lay down the root that the server answers with.

    Prints the group that the device is in, which for one that was enrolled before is the one that it was in, and the
    root's digest, which a person should compare with the one that the release engineer has: whoever could
    forge the answer could otherwise make the fleet's root his own.
    """
    group, server, token = check_id(enrolment.group, "group"), _checked(enrolment.server), _token(enrolment.token)
    key = _move_in(settings)
    answer = _register(
        server,
        token,
        {
            "id": settings.device,
            "group": group,
            "class": settings.device_class,
            "public_key": dict(key.public_key),
        },
    )
    root = answer.get("root")
    if not isinstance(root, dict):
        raise PolicyError("setup", "the server's answer has no root: is this a Fairlead server?")
    data = strict_json.dumps(root)
    digest = hashlib.sha256(data).hexdigest()
    if enrolment.root_sha256 is not None and enrolment.root_sha256.lower() != digest:
        raise PolicyError("conflict", f"the server's root has sha256 {digest}, not the one that was given")
    new = _lay_down(settings, data, replace_store=False)
    placed = answer.get("group")
    found = placed if isinstance(placed, str) and is_id(placed) else group
    sys.stdout.write(f"enrolled {settings.device} in group {found}\n")
    if found != group:
        sys.stdout.write(f"it was there already and stays: `fairlead move {settings.device} {group}` moves it\n")
    sys.stdout.write(f"root version {root['signed']['version']} {'laid down' if new else 'was there already'}\n")
    sys.stdout.write(f"root sha256 {digest}\n")
    sys.stdout.write("compare it with `sha256sum` of the root where the fleet was made; do not go on if it differs\n")
    return 0


def _move_in(settings: AgentSettings) -> DeviceKey:
    """Make the device key and the state directory's folders; from then on this process is the worker user, if any.

    Whatever comes next handles a stranger's bytes, or writes where the worker user does.
    """
    user = worker_user(settings)
    make_state_dir(settings.state_dir)
    settings.state_dir.chmod(state_mode(user, settings.state_dir.stat().st_mode))
    device_key.make(settings.state_dir)
    lay_out(settings.state_dir, user)
    if user is not None:
        become(user)
    return device_key.load(settings.state_dir)


def _lay_down(settings: AgentSettings, data: bytes, *, replace_store: bool) -> bool:
    check_first_root(data, settings.fleet)
    return store.initialise(settings.state_dir, data, replace_store=replace_store)


def check_first_root(data: bytes, fleet: str) -> None:
    """A root that is trusted because a person says so must still be whole: of this fleet and signed by itself."""
    read_root(data, fleet)
    try:
        root: Metadata[Root] = Metadata.from_bytes(data)
        root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    except RepositoryError as error:
        raise ProtocolError("root", f"the root does not verify by its own keys: {error}") from None


def _register(server: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
    url = server + "/api/nodes/register"
    request = urllib.request.Request(  # noqa: S310 - the scheme was just checked
        url,
        data=strict_json.dumps(body),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
            data: bytes = response.read(limits.ROOT_SIZE * 2)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error.status, error.read(8_192)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TransportError("unreachable", f"{url}: {reason}") from None
    return _object(data)


def _refusal(status: int | None, data: bytes) -> PolicyError:
    """The server's own code and words, where it gave them."""
    try:
        value = _object(data)
    except PolicyError:
        value = {}
    code = value.get("code")
    known = isinstance(code, str) and code in CODES and CODES[code].fault is Fault.POLICY
    return PolicyError(
        code if known and isinstance(code, str) else "bad-request", str(value.get("detail") or f"HTTP {status}")
    )


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = strict_json.loads(data, max_size=limits.ROOT_SIZE * 2)
    except ProtocolError as error:
        raise PolicyError("setup", f"the server's answer is not JSON: {error.detail}") from None
    if not isinstance(value, dict):
        raise PolicyError("setup", "the server's answer is not a JSON object")
    return value


def _checked(server: str) -> str:
    try:
        parts = urllib.parse.urlsplit(server)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise PolicyError("setup", f"--server {shown(server)} is not http(s)://host:port")
    return server.rstrip("/")


def _token(given: str) -> str:
    token = _read(Path(given[1:]), _TOKEN_MOST).decode("utf-8", "replace").strip() if given.startswith("@") else given
    if not token or len(token) > _TOKEN_MOST or not token.isascii() or not token.isprintable() or " " in token:
        raise PolicyError("unauthorized", "a token is one word of printable ASCII; --token @FILE reads it from a file")
    return token


def _read(path: Path, most: int) -> bytes:
    """The file, or one byte more than `most` of it."""
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise PolicyError("setup", f"{path}: {error.strerror}") from None
