"""The two acts: a good release that everyone gets, and a bad one that stops at the first device."""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from server.cli.demo.desk import Desk
from server.cli.demo.follow import FINAL_STATES, Follower, until
from server.cli.demo.narrator import Narrator
from server.cli.demo.places import GROUP, NODES, PACKAGE, Places
from server.cli.demo.processes import Processes
from server.client import Client, ClientError

_ACT_S: Final = 150.0
"""An act that has not ended by then has not gone as told."""
_ASK_S: Final = 0.25
_PROBATION_S: Final = 5
_SOAK_S: Final = 3
_ROLLOUT: Final = {
    "waves": [{"share": 0, "devices": [NODES[0]]}, {"share": 100}],
    "soak_s": _SOAK_S,
    "failure_limit": 0,
    "probation_s": _PROBATION_S,
    "silence_s": 60,
}
_SERVICE: Final = Path(__file__).with_name("service") / "web.py"


class Play:
    """Plays the acts on a fleet that is up. Every wait also tends the processes."""

    def __init__(self, places: Places, processes: Processes, client: Client, desk: Desk, narrator: Narrator) -> None:
        self._places = places
        self._processes = processes
        self._client = client
        self._desk = desk
        self._narrator = narrator

    def first_act(self) -> bool:
        """A good release in two waves; True once all three devices run it."""
        self._narrator.act("First act: a good release, in two waves")
        job = self._release("1.0.0", counter=1, health=200)
        if job["state"] != "complete":
            return self._not_as_told(f"the rollout ended {job['state']}: {job['reason']}")
        return self._all_answer("1.0.0")

    def second_act(self) -> bool:
        """A release that starts and then fails its health check; True once it was stopped at the first device."""
        self._narrator.act("Second act: a release that starts, and then fails its health check")
        job = self._release("1.1.0", counter=2, health=500)
        if job["state"] != "recalled":
            return self._not_as_told(f"the rollout ended {job['state']}: {job['reason']}")
        self._narrator.good(f"recalled, because {job['reason']}")
        if not self._all_answer("1.0.0"):
            return False
        for name in NODES[1:]:
            if any(a["deployment"] == job["job_id"] for a in self._node(name)["attempts"]):
                return self._not_as_told(f"{name} tried the bad release")
            self._narrator.good(f"{name} never tried 1.1.0")
        return True

    def _release(self, version: str, *, counter: int, health: int) -> Mapping[str, Any]:
        """Pack, sign, upload and publish; return the job as it ended."""
        self._desk.release(self._tree(version, health), version=version, counter=counter)
        self._patiently(lambda: self._desk.upload(self._client))
        body = {
            "update_id": f"{PACKAGE}-{version.replace('.', '-')}",
            "update_type": "service",
            "package_name": PACKAGE,
            "package_version": version,
            "group": GROUP,
            "description": f"demo release {version}",
            **_ROLLOUT,
        }
        job: Mapping[str, Any] = self._patiently(lambda: self._client.post("/api/updates", body))
        self._narrator.say(f"server  published {PACKAGE} {version} to group {GROUP} as {job['job_id']}")
        return self._followed(job)

    def _followed(self, job: Mapping[str, Any]) -> Mapping[str, Any]:
        follower = Follower(self._narrator)
        latest = dict(job)

        def ended() -> bool:
            try:
                latest.update(self._client.get(f"/api/updates/{job['job_id']}"))
                for name in NODES:
                    follower.node(self._node(name), job["job_id"])
            except ClientError:
                return False  # the server was killed: it comes back, and the story goes on
            follower.job(latest)
            return latest["state"] in FINAL_STATES

        self._wait(ended)
        return latest

    def _node(self, name: str) -> Mapping[str, Any]:
        node: Mapping[str, Any] = self._client.get(f"/api/nodes/{name}")
        return node

    def _all_answer(self, version: str) -> bool:
        return all(self._answers(node.name, node.service_url, version) for node in self._places.nodes)

    def _answers(self, name: str, url: str, version: str) -> bool:
        """Wait until the device's own service says the version that it should run."""
        said = ""

        def right() -> bool:
            nonlocal said
            try:
                said = str(httpx.get(url, timeout=2).json()["version"])
            except (httpx.HTTPError, ValueError, KeyError) as error:
                said = f"nothing ({type(error).__name__})"
            return said == version

        if self._wait(right):
            self._narrator.good(f"{name} answers with version {version} at {url}")
            return True
        return self._not_as_told(f"{name} answers {said} at {url}, expected {version}")

    def _patiently(self, ask: Any) -> Any:
        """Ask the server again while it is being started anew; what it refuses is raised."""
        answer: list[Any] = []

        def answered() -> bool:
            try:
                answer.append(ask())
            except ClientError as error:
                if error.status is not None and error.status < 500:
                    raise
                return False
            return True

        if not self._wait(answered):
            raise ClientError("timeout", "the server did not come back", status=None)
        return answer[0]

    def _tree(self, version: str, health: int) -> Path:
        tree = self._places.release_desk / "trees" / f"{PACKAGE}-{version}"
        tree.mkdir(parents=True)
        shutil.copyfile(_SERVICE, tree / "web.py")
        (tree / "about.json").write_text(json.dumps({"version": version, "health": health}), encoding="utf-8")
        return tree

    def _wait(self, condition: Any) -> bool:
        end_s = time.monotonic() + _ACT_S

        def pause() -> None:
            self._processes.wait(_ASK_S)

        return until(condition, pause=pause, expired=lambda: time.monotonic() > end_s)

    def _not_as_told(self, text: str) -> bool:
        self._narrator.bad(text)
        print(f"demo: {text}", file=sys.stderr)  # noqa: T201 - the one line that a failed run leaves
        return False
