"""`fairlead-agent status`: asks the running agent over its local HTTP."""

import http.client
import json
import sys
from typing import Any, Final

from device_agent.adapters.files import read_optional
from device_agent.settings import AgentSettings
from fleet_protocol.errors import PolicyError

_TIMEOUT_S: Final = 15.0


def status(settings: AgentSettings, *, as_json: bool) -> int:
    """Print a small table, or the agent's JSON; 0 where the agent is well, 1 where it is degraded or not there."""
    value = ask(settings)
    sys.stdout.write(json.dumps(value, indent=2) + "\n" if as_json else table(value))
    return 0 if value.get("status") == "ok" else 1


def ask(settings: AgentSettings) -> dict[str, Any]:
    """The agent's `GET /health`. Raises PolicyError `setup` or `offline` with what to do."""
    if settings.http_port is None:
        remedy = "add the lines `[http]` and `port = 0`, and start the agent anew"
        raise PolicyError("setup", f"{settings.path} has no [http], so that the agent can not be asked: {remedy}")
    port = read_optional(settings.state_dir / "http.port", 16)
    if port is None:
        raise PolicyError("offline", f"no agent runs on {settings.state_dir}: start `fairlead-agent run`")
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        value = json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise PolicyError("offline", f"the agent does not answer on 127.0.0.1:{int(port)}: {error}") from None
    finally:
        connection.close()
    if not isinstance(value, dict) or "stage" not in value:
        raise PolicyError("offline", f"what answers on 127.0.0.1:{int(port)} is not this agent")
    return value


def table(value: dict[str, Any]) -> str:
    """A few lines for people."""
    broker = value["broker"]
    rows = [
        ("device", f"{value['device']} ({value['status']})"),
        ("group", value["group"] or "none yet"),
        ("broker", f"{broker['url']} {'connected' if broker['connected'] else 'not connected'}"),
        ("stage", value["stage"]),
        ("why", value["why"]),
        ("sequence", str(value["sequence"])),
        *((f"  {one['package']}", one["version"]) for one in value["installed"]),
        *((f"  refused {code}", str(count)) for code, count in sorted(value["attacks"].items())),
        *((f"  {one['name']}", f"{one['verdict']} {one['text']}") for one in value["checks"] if one["verdict"] != "ok"),
    ]
    width = max(len(name) for name, _ in rows) + 2
    return "".join(f"{name:<{width}}{text}\n" for name, text in rows)
