"""The main job as a person sees it: `fairlead demo` with real processes, on real sockets."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.demo_run import DemoRun

FIRST_ACT = (
    r"node-1 +committed 1\.0\.0",
    r"server +wave 2 of 2 opens",
    r"node-2 +committed 1\.0\.0",
    r"node-3 +committed 1\.0\.0",
    r"node-3 answers with version 1\.0\.0",
)
SECOND_ACT = (
    r"node-1 +rolled back 1\.1\.0: unhealthy",
    r"server +the rollout is recalled: .*node-1: unhealthy",
    r"node-1 answers with version 1\.0\.0",
    r"node-2 never tried 1\.1\.0",
    r"node-3 never tried 1\.1\.0",
    r"Both acts went as told",
)


def test_both_acts_go_as_told_and_ctrl_c_leaves_nothing(tmp_path):
    with DemoRun(tmp_path / "demo") as demo:
        for line in (*FIRST_ACT, *SECOND_ACT, r"stays up until Ctrl-C"):
            demo.wait_for(line)
        server, token = demo.place("server"), demo.place("token")
        assert httpx.get(f"{server}/health", timeout=10).json()["status"] == "ok"
        _docs_need_no_internet(server)
        assert httpx.get(f"{server}/api/nodes", timeout=10).status_code == 401
        nodes = httpx.get(f"{server}/api/nodes", headers={"Authorization": f"Bearer {token}"}, timeout=10).json()[
            "nodes"
        ]
        assert [(n["id"], n["installed"][0]["version"]) for n in nodes] == [(f"node-{i}", "1.0.0") for i in (1, 2, 3)]
        for name in ("node-1", "node-2", "node-3"):
            assert httpx.get(f"{demo.place(name)}/health", timeout=10).status_code == 200
        _ask_with_the_command_line(demo.wait_for(r"^export (.+)$")[1])
        _look_with_mosquitto_sub(demo.wait_for(r"^mosquitto_sub (.+)$")[1])
        for name, port in (("broker", 1883), ("server", 8080), ("node-1", 8081)):
            moved = not demo.place(name).endswith(f":{port}")
            assert (f"{name}  port {port} is taken by another program" in demo.story) == moved
        assert demo.interrupt() == 0
        assert demo.processes() == []


def test_both_acts_go_as_told_though_everything_is_killed_once(tmp_path):
    kills = (
        (r"node-1 +(downloading|installing|probation) 1\.0\.0", ("device_agent", "node-1/agent.toml"), "node-1"),
        (r"wave 2 of 2 opens", ("broker_config.embedded",), "broker"),
        (r"node-1 +\w+ 1\.1\.0", ("fairlead", "serve"), "server"),
    )
    with DemoRun(tmp_path / "demo", "--exit") as demo:
        for moment, victim, name in kills:
            demo.wait_for(moment)
            demo.kill(*victim)
            demo.wait_for(rf"{name} +was killed by SIGKILL; starting it again")
        for line in (*FIRST_ACT, *SECOND_ACT):
            demo.wait_for(line)
        assert demo.wait() == 0
        assert demo.processes() == []


def test_a_folder_that_is_not_empty_is_refused_in_one_line(tmp_path):
    (tmp_path / "something").touch()
    with DemoRun(tmp_path, "--exit") as demo:
        assert demo.wait() == 1
    assert demo.story.count("\n") == 0
    assert "is not empty" in demo.story


def _docs_need_no_internet(server: str) -> None:
    page = httpx.get(f"{server}/docs", timeout=10).text
    assert "://" not in page
    scripts = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert scripts
    assert all(httpx.get(f"{server}{path}", timeout=10).status_code == 200 for path in scripts)


def _ask_with_the_command_line(exported: str) -> None:
    """Every command that asks a device something gets the device's own answer, with what the demo has one export."""
    variables = dict(word.split("=", 1) for word in shlex.split(exported))
    assert set(variables) == {"FAIRLEAD_SERVER", "FAIRLEAD_TOKEN"}

    def fairlead(*words: str, statuses: tuple[int, ...] = (0,)) -> dict[str, Any]:
        argv = [str(Path(sys.executable).with_name("fairlead")), *words, "--json"]
        environment = {**os.environ, **variables}
        done = subprocess.run(argv, env=environment, capture_output=True, check=False)
        assert done.returncode in statuses, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    (service,) = fairlead("services", "node-1")["services"]
    assert (service["name"], service["running"], service["version"]) == ("hello-web", True, "1.0.0")
    assert any("hello-web 1.0.0 listens" in line for line in fairlead("logs", "node-2", "hello-web")["lines"])
    # A busy machine is a finding, and status 1.
    results = fairlead("health", "--group", "demo", statuses=(0, 1))["results"]
    assert {check["name"] for check in results["node-3"]["checks"]} >= {"cpu", "memory", "disk"}


def _look_with_mosquitto_sub(printed: str) -> None:
    """What a dashboard author sees, with no client code of ours."""
    tool = shutil.which("mosquitto_sub")
    if tool is None:
        return
    *connect, _, everything = shlex.split(printed)
    assert everything == "fleet/v1/#"

    def read(topic: str) -> tuple[str, bytes]:
        argv = [tool, *connect, "-t", f"fleet/v1/{topic}", "-C", "1", "-W", "30", "-F", "%t %p"]
        topic_read, _, payload = subprocess.run(argv, capture_output=True, check=True).stdout.strip().partition(b" ")
        return topic_read.decode(), payload

    manifest = json.loads(read("groups/+/manifest")[1])
    assert set(manifest) == {"payload", "payloadType", "signatures"}
    telemetry = json.loads(read("devices/+/telemetry")[1])
    assert all(type(value) in (int, float) for value in telemetry.values()), telemetry
    assert read("devices/node-1/availability")[1] == b"online"
