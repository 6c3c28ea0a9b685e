"""Devices and groups."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from fleet_protocol import limits, strict_json
from fleet_protocol.errors import FleetError, PolicyError
from fleet_protocol.messages import Reply
from server.api.node_bodies import (
    AttemptAnswer,
    GroupAnswer,
    GroupBody,
    GroupsAnswer,
    HealthChecksBody,
    LogsAnswer,
    NodeAnswer,
    NodeDetailAnswer,
    NodesAnswer,
    PackageBody,
    RegisterBody,
    RegisteredAnswer,
    ReplyAnswer,
    ResultsAnswer,
    ServicesAnswer,
)
from server.api.use_cases import UseCases
from server.services import node_view
from server.services.commands import Ask
from server.services.devices_asked import health_of
from server.services.update_request import Id

Lines = Annotated[int, Query(ge=1, le=10_000, description="How many of the newest lines.")]
GroupName = Annotated[Id | None, Query(description="Only devices of this group.")]


def router(cases: UseCases) -> APIRouter:
    """The routes below /api/nodes, /api/groups and /api/health-checks."""
    routes = APIRouter(prefix="/api")
    _add_views(routes, cases)
    _add_enrolment(routes, cases)
    _add_questions(routes, cases)
    return routes


def _add_views(routes: APIRouter, cases: UseCases) -> None:
    @routes.get("/nodes", tags=["nodes"])
    def list_nodes(group: GroupName = None) -> NodesAnswer:
        """Every enrolled device, or those of one group."""
        with cases.store.read() as reads:
            if group is not None and reads.group(group) is None:
                raise PolicyError("unknown-group", f"no group {group}: GET /api/groups lists them")
            return NodesAnswer(nodes=[NodeAnswer.of(each) for each in node_view.views(reads, group)])

    @routes.get("/nodes/{node}", tags=["nodes"])
    def show_node(node: Id) -> NodeDetailAnswer:
        """One device, with what it reported about its deployments."""
        with cases.store.read() as reads:
            device = node_view.find(reads, node)
            attempts = [AttemptAnswer.of(each) for each in node_view.attempts(reads, device)]
            return NodeDetailAnswer.with_attempts(node_view.view(reads, device), attempts)

    @routes.get("/groups", tags=["groups"])
    def list_groups() -> GroupsAnswer:
        """Every group, with the sequence of its newest manifest."""
        with cases.store.read() as reads:
            sizes = {group.name: reads.roster_stamp(group.name)[0] for group in reads.groups()}
            return GroupsAnswer(groups=[GroupAnswer.of(group, sizes[group.name]) for group in reads.groups()])


def _add_enrolment(routes: APIRouter, cases: UseCases) -> None:
    @routes.post("/nodes/register", status_code=201, tags=["nodes"])
    def register(body: RegisterBody, response: Response) -> RegisteredAnswer:
        """Enrol a device; its group is made where there is none.

        The same device with the same key again (200) changes its class and nothing else: the group of the answer is the
        one that it was in. Another key is a conflict.
        """
        if not cases.nodes.register(body.id, body.group, body.device_class, body.public_key):
            response.status_code = 200
        root = strict_json.loads(cases.nodes.trusted_root(), max_size=limits.ROOT_SIZE)
        with cases.store.read() as reads:
            return RegisteredAnswer.with_root(node_view.view(reads, node_view.find(reads, body.id)), root)

    @routes.put("/nodes/{node}/group", tags=["nodes"])
    def move(node: Id, body: GroupBody) -> NodeAnswer:
        """Move a device to another group, which is made where there is none."""
        cases.nodes.move(node, body.group)
        with cases.store.read() as reads:
            return NodeAnswer.of(node_view.view(reads, node_view.find(reads, node)))

    @routes.delete("/nodes/{node}", tags=["nodes"])
    def remove(node: Id) -> NodeAnswer:
        """Forget a device: its key, its reports, its assignment; what was known of it is the answer.

        What it still sends is refused as a stranger's, and rollouts go on without it. It keeps running what it has; to
        keep it off the broker too, revoke its certificate.
        """
        with cases.store.read() as reads:
            known = NodeAnswer.of(node_view.view(reads, node_view.find(reads, node)))
        cases.decommissioning.remove(node)
        return known


def _add_questions(routes: APIRouter, cases: UseCases) -> None:
    @routes.post("/nodes/{node}/status", tags=["nodes"])
    def status(node: Id) -> dict[str, Any]:
        """Have the device run its health checks now, and return what it found."""
        return cases.asked.one(node, Ask(name="check-health")).result

    @routes.get("/nodes/{node}/services", tags=["nodes"])
    def services(node: Id) -> ServicesAnswer:
        """The services that run on the device, as it tells of them now."""
        return ServicesAnswer(services=_objects(cases.asked.one(node, Ask(name="list-services")), "services"))

    @routes.get("/nodes/{node}/logs/{service}", tags=["nodes"])
    def logs(node: Id, service: Id, lines: Lines = 100) -> LogsAnswer:
        """The newest lines of one service's log on the device."""
        reply = cases.asked.one(node, Ask(name="fetch-logs", service=service, lines=lines))
        found = reply.result.get("lines")
        if not isinstance(found, list):
            raise _strange(node)
        return LogsAnswer(service=service, lines=[str(line) for line in found])

    @routes.post("/nodes/{node}/rollback", tags=["nodes"])
    def roll_back(node: Id, body: PackageBody | None = None) -> ReplyAnswer:
        """Have the device switch to its other slot, where that is known to be good."""
        return _reply(cases.asked.one(node, Ask(name="rollback", package=body.package if body else None)))

    @routes.post("/nodes/{node}/retry", tags=["nodes"])
    def retry(node: Id, body: PackageBody | None = None) -> ReplyAnswer:
        """Have the device forget what failed on it, so that it tries again."""
        return _reply(cases.asked.one(node, Ask(name="retry", package=body.package if body else None)))

    @routes.post("/health-checks", tags=["nodes"])
    def health_checks(body: HealthChecksBody | None = None) -> ResultsAnswer:
        """Have many devices run their health checks at once; whoever does not answer is `offline`."""
        asked = body or HealthChecksBody()
        members = cases.asked.members(asked.group, asked.target_nodes)
        answers = cases.asked.many(members, Ask(name="check-health"))
        return ResultsAnswer(results={device: health_of(answer) for device, answer in answers.items()})


def _reply(reply: Reply) -> ReplyAnswer:
    return ReplyAnswer(id=reply.id, detail=reply.detail, result=reply.result)


def _objects(reply: Reply, member: str) -> list[dict[str, Any]]:
    found = reply.result.get(member)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise _strange("the device")
    return found


def _strange(node: str) -> FleetError:
    return PolicyError("offline", f"{node} answered, but not in the form asked for: is its agent of another version?")
