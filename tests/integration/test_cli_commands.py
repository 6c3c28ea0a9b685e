"""The operator's command line as a process, against an API that answers as the test says."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.command_line import CommandHere, CommandLine
from tests.fakes.ports import reserved_port
from tests.fakes.scripted_api import Answer, Asked, ScriptedApi, health, job, node, refusal, scripted_api
from tests.fakes.waiting import until


@pytest.fixture(scope="module")
def api() -> Iterator[ScriptedApi]:
    with scripted_api() as running:
        yield running


@pytest.fixture
def fairlead(api: ScriptedApi, tmp_path: Path) -> CommandLine:
    api.asked.clear()
    return CommandLine(tmp_path, {"FAIRLEAD_SERVER": api.url, "FAIRLEAD_TOKEN": "secret"})


@pytest.fixture
def here(fairlead: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandHere:
    return CommandHere(fairlead.home, fairlead.variables, monkeypatch, capsys)


ENTRY = {"at": 1_700_000_000.0, "who": "token", "verb": "publish", "subject": "d-1", "detail": "web 1.1.0"}
RELEASE = {"package": "web", "version": "1.0.0", "counter": 1, "kind": "service", "classes": ["x86_64"], "targets": [],
           "text": "first"}  # fmt: skip
SERVICE = {"name": "web", "running": True, "pid": 7, "restarts": 0, "version": "1.0.0"}
CHECKED = {"verdict": "ok", "checks": [{"name": "cpu", "verdict": "ok", "text": "3 %"}]}

COMMANDS = {
    "devices": (["devices"], "GET /api/nodes", {"nodes": [node()]}, None, "node-1"),
    "devices of a group": (["devices", "--group", "g"], "GET /api/nodes?group=g", {"nodes": []}, None, "no devices"),
    "groups": (["groups"], "GET /api/groups", {"groups": [{"name": "line-1", "sequence": 3, "devices": 2}]}, None,
               "line-1"),
    "rollouts": (["rollouts"], "GET /api/updates", {"updates": [job()]}, None, "1 of 4"),
    "rollouts by state": (["rollouts", "--state", "held"], "GET /api/updates?state=held", {"updates": []}, None,
                          "no rollouts"),
    "status of a job": (["status", "d-1"], "GET /api/updates/d-1", job(), None, "wave 1 of 2"),
    "releases": (["releases"], "GET /api/releases", {"releases": [RELEASE]}, None, "web"),
    "services": (["services", "node-1"], "GET /api/nodes/node-1/services", {"services": [SERVICE]}, None, "web"),
    "logs": (["logs", "node-1", "web", "--lines", "5"], "GET /api/nodes/node-1/logs/web?lines=5",
             {"service": "web", "lines": ["one", "two"]}, None, "two"),
    "audit": (["audit", "--most", "3"], "GET /api/audit?most=3", {"entries": [ENTRY]}, None, "publish"),
    "health": (["health"], "POST /api/health-checks", {"results": {"node-1": CHECKED}}, {}, "1 checks ok"),
    "health of some": (["health", "--nodes", "a,b"], "POST /api/health-checks", {"results": {}},
                       {"target_nodes": ["a", "b"]}, "no devices"),
    "hold": (["hold", "d-1", "--reason", "tea"], "POST /api/updates/d-1/hold", job("held"), {"reason": "tea"}, "held"),
    "resume": (["resume", "d-1"], "POST /api/updates/d-1/resume", job(), {}, "active"),
    "advance": (["advance", "d-1"], "POST /api/updates/d-1/advance", job(), {}, "active"),
    "recall": (["recall", "d-1"], "POST /api/updates/d-1/recall", job("recalled"), {}, "recalled"),
    "retry of a job": (["retry", "d-1"], "POST /api/updates/d-1/retry", job(), {}, "active"),
    "retry of a device": (["retry", "--device", "node-1"], "POST /api/nodes/node-1/retry",
                          {"id": "c", "detail": "", "result": {}}, {}, "accepted"),
    "rollback": (["rollback", "node-1", "--package", "web"], "POST /api/nodes/node-1/rollback",
                 {"id": "c", "detail": "", "result": {}}, {"package": "web"}, "accepted"),
    "remove": (["devices", "remove", "node-1"], "DELETE /api/nodes/node-1", node(group="line-2"), None, "line-2"),
    "move": (["move", "node-1", "line-2"], "PUT /api/nodes/node-1/group", node(group="line-2"), {"group": "line-2"},
             "line-2"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_asks_once_and_shows_a_table_or_the_very_json(api: ScriptedApi, here: CommandHere, name: str) -> None:
    words, request, body, sent, shown = COMMANDS[name]
    api.says(request, body)
    ran = here.run(*words)
    assert (ran.status, ran.err) == (0, "")
    assert shown in ran.out
    method, path = request.split(" ", 1)
    assert api.asked == [Asked(method, path, sent, "Bearer secret")]
    ran = here.run(*words, "--json")
    assert (ran.status, json.loads(ran.out)) == (0, body)


def test_status_shows_the_server_and_what_is_under_way(api: ScriptedApi, here: CommandHere) -> None:
    api.says("GET /health", health())
    api.says("GET /api/updates?state=active", {"updates": [job()]})
    assert "d-1" in here.run("status").out
    assert json.loads(here.run("status", "--json").out) == health() | {"updates": [job()]}


def test_an_option_in_front_of_a_verb_is_not_ignored(api: ScriptedApi, here: CommandHere) -> None:
    """`--server` there would remove the device from another server than the one that was named."""
    ran = here.run("devices", "--server", "http://127.0.0.1:1", "remove", "node-1")
    assert (ran.status, api.asked) == (1, [])
    assert "options go behind" in ran.err


def test_publish_sends_what_was_asked_for_and_nothing_else(api: ScriptedApi, here: CommandHere) -> None:
    api.says("POST /api/updates", job())
    words = "publish web 1.1.0 --group line-1 --waves 5,25,100 --soak 60 --failure-limit 0 --probation 60"
    more = "--window 22:00-04:30 --on-failure hold --expires 86400 --irreversible"
    ran = here.run(*words.split(), *more.split())
    assert (ran.status, ran.err) == (0, "")
    assert api.asked[0].body == {
        "package_name": "web",
        "package_version": "1.1.0",
        "description": "",
        "group": "line-1",
        "irreversible": True,
        "waves": [{"share": 5.0}, {"share": 25.0}, {"share": 100.0}],
        "soak_s": 60.0,
        "failure_limit": 0,
        "probation_s": 60,
        "window": "22:00-04:30",
        "on_failure": "hold",
        "expires_s": 86_400.0,
    }


@pytest.mark.parametrize(
    ("words", "waves"),
    [
        (["--waves", "0,100", "--canary", "node-1"], [{"share": 0.0, "devices": ["node-1"]}, {"share": 100.0}]),
        (
            ["--canary", "node-1", "--canary", "node-2"],
            [{"share": 5.0, "devices": ["node-1", "node-2"]}, {"share": 25.0}, {"share": 100.0}],
        ),
    ],
)
def test_canaries_are_in_the_first_wave_by_name(
    api: ScriptedApi, here: CommandHere, words: list[str], waves: list[dict[str, object]]
) -> None:
    api.says("POST /api/updates", job())
    assert here.run("publish", "web", "1.1.0", "--group", "line-1", *words).status == 0
    assert api.asked[0].body["waves"] == waves


def test_a_rollout_says_how_many_devices_each_wave_selects(api: ScriptedApi, here: CommandHere) -> None:
    api.says("GET /api/updates/d-1", job())
    told = here.run("status", "d-1").out
    assert "wave 1 of 2: 50 % and node-1, 2 devices, open" in told
    assert "wave 2 of 2: 100 %, 4 devices, not yet" in told
    assert "nobody takes part" not in told


def test_a_rollout_that_reaches_nobody_says_so(api: ScriptedApi, here: CommandHere) -> None:
    nobody = job("complete", waves=[{"share": 100.0, "devices": [], "open": True, "selected": 0}])
    api.says("GET /api/updates/d-1", nobody)
    for words in (["status", "d-1"], ["status", "d-1", "--watch"]):
        assert "nobody takes part" in here.run(*words).out


ATTEMPT = {
    "deployment": "d-1",
    "device": "node-1",
    "version": "1.1.0",
    "number": 1,
    "stage": "idle",
    "outcome": "rolled_back",
    "code": "unhealthy",
    "detail": "GET /health: 500",
    "at": 1_700_000_000.0,
}
SICK = node(attempts=[ATTEMPT], attacks={"parse": 2}, health={"verdict": "warning", "checks": []})


def test_one_device_is_shown_with_its_services_and_attempts(api: ScriptedApi, here: CommandHere) -> None:
    api.says("GET /api/nodes/node-1", SICK)
    api.says("GET /api/nodes/node-1/services", {"services": [{"name": "web", "running": True, "pid": 4711}]})
    for words in (["devices", "node-1"], ["devices", "show", "node-1"]):
        ran = here.run(*words)
        assert (ran.status, ran.err) == (0, "")
        for told in ("up to date", "parse 2", "warning", "web      1.0.0", "4711", "unhealthy  GET /health: 500"):
            assert told in ran.out, ran.out
    assert json.loads(here.run("devices", "node-1", "--json").out) == SICK


def test_a_device_that_is_away_is_not_asked_for_its_services(api: ScriptedApi, here: CommandHere) -> None:
    api.says("GET /api/nodes/node-1", SICK | {"available": False})
    assert "services: the device is offline" in here.run("devices", "node-1").out
    assert [asked.path for asked in api.asked] == ["/api/nodes/node-1"]
    api.says("GET /api/nodes/node-1", SICK)
    api.says("GET /api/nodes/node-1/services", refusal(504, "offline", "node-1 did not answer within 10 s"))
    assert "services: node-1 did not answer within 10 s (offline)" in here.run("devices", "node-1").out


def test_health_is_asked_of_devices_that_stand_behind_it(api: ScriptedApi, here: CommandHere) -> None:
    api.says("POST /api/health-checks", {"results": {"node-1": CHECKED}})
    for words in (["node-1", "node-2"], ["--nodes", "node-1,node-2"], ["node-1", "--nodes", "node-2"]):
        assert here.run("health", *words).status == 0
    assert [asked.body["target_nodes"] for asked in api.asked] == [["node-1", "node-2"]] * 3


@pytest.mark.parametrize(
    ("detail", "told"),
    [
        ("no update nope: GET /api/updates lists them", "no update nope: `fairlead rollouts` lists them"),
        (
            "no device x: GET /api/nodes lists them",
            "no device x: `fairlead devices` lists them",
        ),
        (
            f"web/1/x is not stored here: PUT /api/artifacts/{'ab' * 32}, or give package_url",
            "web/1/x is not stored here: `fairlead catalogue upload DIR`, or give --url",
        ),
        (
            "expires_s is over before not_before: no device could ever begin",
            "--expires is over before --not-before: no device could ever begin",
        ),
        ("failure_rate: Input should be less than 1", "--failure-rate: Input should be less than 1"),
    ],
)
def test_the_servers_advice_is_told_as_commands(api: ScriptedApi, here: CommandHere, detail: str, told: str) -> None:
    api.says("GET /api/updates/nope", refusal(404, "unknown-update", detail))
    assert told in here.fails("status", "nope")


def test_watch_tells_a_failure_that_is_the_reason_once(api: ScriptedApi, here: CommandHere) -> None:
    failed = [{"device": f"node-{number}", "code": "unhealthy", "detail": "500"} for number in (1, 2)]
    reason = "2 of 2 finished devices failed, 0 tolerated; node-1: unhealthy (500)"
    api.says("GET /api/updates/d-1", job("recalled", reason=reason, failures=failed))
    told = here.run("status", "d-1", "--watch").out
    assert (told.count("node-1: unhealthy (500)"), told.count("node-2: unhealthy (500)")) == (1, 1)


def test_an_update_says_when_no_device_begins_any_more(api: ScriptedApi, here: CommandHere) -> None:
    api.says("GET /api/updates/d-1", job() | {"expires": 1_700_086_400.0})
    assert "no device begins after 2023-11-1" in here.run("status", "d-1").out


def test_publish_uploads_a_catalogue_first_and_only_the_artifacts_that_lack(
    api: ScriptedApi, here: CommandHere, tmp_path: Path
) -> None:
    desk = tmp_path / "desk"
    (desk / "metadata").mkdir(parents=True)
    (desk / "artifacts").mkdir()
    for name in ("1.root.json", "2.root.json", "10.root.json", "1.targets.json", "2.targets.json"):
        (desk / "metadata" / name).write_text(json.dumps({"name": name}))
    there, lacks = "a" * 64, "b" * 64
    for name in (there, lacks, "notes.txt"):
        (desk / "artifacts" / name).write_text(name)
    api.says(f"HEAD /artifacts/{there}", Answer(b""))
    api.says(f"HEAD /artifacts/{lacks}", Answer(b"", 404))
    api.says(f"PUT /api/artifacts/{lacks}", Answer({}, 201))
    api.says("POST /api/catalogue", {"root": 10, "targets": 2, "releases": 1})
    api.says("POST /api/updates", job())
    ran = here.run("publish", "web", "1.1.0", "--group", "line-1", "--catalogue", str(desk))
    assert (ran.status, ran.err) == (0, "")
    assert [(asked.method, asked.path) for asked in api.asked] == [
        ("HEAD", f"/artifacts/{there}"),
        ("HEAD", f"/artifacts/{lacks}"),
        ("PUT", f"/api/artifacts/{lacks}"),
        ("POST", "/api/catalogue"),
        ("POST", "/api/updates"),
    ]
    roots = [{"name": f"{number}.root.json"} for number in (1, 2, 10)]
    assert api.asked[3].body == {"root": roots, "targets": {"name": "2.targets.json"}}
    assert "10 releases" not in here.run("catalogue", "upload", str(desk)).err


@pytest.mark.parametrize(
    ("end", "status"), [("complete", 0), ("held", 3), ("recalled", 4)], ids=["complete", "held", "recalled"]
)
def test_watch_tells_each_change_once_and_ends_with_the_rollout(
    api: ScriptedApi, fairlead: CommandLine, end: str, status: int
) -> None:
    failed = [{"device": "node-1", "code": "unhealthy", "detail": "GET /health: 500"}]
    last = job(end, reason="1 failed", failures=failed, counts={"failed": 1})
    api.says("GET /api/updates/d-1", job(), job(), job(counts={"committed": 2}), last)
    ran = fairlead.run("status", "d-1", "--watch")
    assert ran.status == status
    lines = ran.out.splitlines()
    assert len(lines) == 3
    assert "committed 2 of 4" in lines[1]
    assert "because 1 failed, node-1: unhealthy (GET /health: 500)" in lines[2]


def test_watch_prints_one_line_of_json_for_each_change(api: ScriptedApi, fairlead: CommandLine) -> None:
    api.says("GET /api/updates/d-1", job(), job(), job("complete"))
    ran = fairlead.run("status", "d-1", "--watch", "--json")
    assert [json.loads(line) for line in ran.out.splitlines()] == [job(), job("complete")]


def test_watch_without_a_job_follows_all_that_are_active(api: ScriptedApi, fairlead: CommandLine) -> None:
    first, second = job(), job(job_id="d-2")
    api.says("GET /api/updates?state=active", {"updates": [first, second]})
    api.says("GET /api/updates/d-1", first, job("complete"))
    api.says("GET /api/updates/d-2", second, second, job("recalled", job_id="d-2"))
    ran = fairlead.run("status", "--watch")
    assert ran.status == 4
    assert ran.out.count("\n") == 4


def test_watch_waits_for_a_server_that_is_away(api: ScriptedApi, fairlead: CommandLine) -> None:
    api.says("GET /api/updates/d-1", job(), Answer(b"<h1>Bad Gateway</h1>", 502), job("complete"))
    ran = fairlead.run("status", "d-1", "--watch")
    assert ran.status == 0
    assert ran.err.count("\n") == 1
    assert "502" in ran.err


def test_publish_and_watch_in_one(api: ScriptedApi, here: CommandHere) -> None:
    api.says("POST /api/updates", job())
    api.says("GET /api/updates/d-1", job("recalled", reason="2 failed"))
    assert here.run("publish", "web", "1.1.0", "--nodes", "node-1,node-2", "--watch").status == 4
    assert api.asked[0].body["target_nodes"] == ["node-1", "node-2"]


def test_health_says_by_its_exit_status_that_a_device_is_not_well(api: ScriptedApi, here: CommandHere) -> None:
    bad = {"verdict": "critical", "checks": [{"name": "disk", "verdict": "critical", "text": "99 % full"}]}
    away = {"code": "offline", "detail": "the device did not answer in time"}
    api.says("POST /api/health-checks", {"results": {"node-1": CHECKED, "node-2": bad, "node-3": away}})
    ran = here.run("health")
    assert ran.status == 1
    assert "disk: 99 % full" in ran.out
    assert "did not answer" in ran.out


MISTAKES = {
    "percent that is none": (["publish", "w", "1", "--group", "g", "--waves", "5,x"], "5,25,100 (bad-request)"),
    "percent over 100": (["publish", "w", "1", "--group", "g", "--waves", "50,101"], "(bad-request)"),
    "percent not a number": (["publish", "w", "1", "--group", "g", "--waves", "nan"], "(bad-request)"),
    "waves that shrink": (["publish", "w", "1", "--group", "g", "--waves", "50,5"], "narrower"),
    "nobody gets it": (["publish", "w", "1"], "--group NAME or --nodes"),
    "both get it": (["publish", "w", "1", "--group", "g", "--nodes", "a"], "--group NAME or --nodes"),
    "canaries without a group": (["publish", "w", "1", "--nodes", "a", "--canary", "a"], "--canary goes with --group"),
    "no canary's name": (["publish", "w", "1", "--group", "g", "--canary", "B/c"], "(schema)"),
    "no node's name": (["publish", "w", "1", "--nodes", "a,B/c"], "(schema)"),
    "no nodes at all": (["publish", "w", "1", "--nodes", ","], "names no device"),
    "a job's name": (["status", "../health"], "is no name"),
    "a device's name": (["services", "Node 1"], "is no name"),
    "an empty name": (["services", ""], "is no name"),
    "what to retry": (["retry"], "a JOB, or --device"),
    "a package of a job": (["retry", "d-1", "--package", "web"], "--package goes with --device"),
    "a state": (["rollouts", "--state", "done"], "active, held, recalled, complete"),
    "no catalogue": (["catalogue", "upload", "/nowhere"], "no signed catalogue"),
    "no key file": (["enrol", "n", "--group", "g", "--class", "c", "--key", "/nowhere"], "/nowhere"),
    "another server": (["devices", "--server", "ftp://x"], "is not a server's address"),
    "no address": (["devices", "--server", "http://[::1"], "is not a server's address"),
    "a token of words": (["devices", "--token", "a b"], "one word of printable ASCII"),
    "a token of others": (["devices", "--token", "t\u00f6ken"], "one word of printable ASCII"),
    "a token file": (["devices", "--token", "@/nowhere"], "/nowhere: No such file"),
    "a number that is none": (["publish", "w", "1", "--group", "g", "--soak", "nan"], "can not be asked in JSON"),
    "no prefix": (["doctor", "--prefix", "a/#"], "topic prefix"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_do(here: CommandHere, api: ScriptedApi, name: str) -> None:
    words, said = MISTAKES[name]
    assert said in here.fails(*words)
    assert api.asked == []


USAGE = {
    "unknown command": ["devicez"],
    "unknown option": ["devices", "--grupp", "x"],
    "missing argument": ["publish", "web"],
    "not a number": ["publish", "w", "1", "--group", "g", "--soak", "long"],
    "out of range": ["logs", "n", "s", "--lines", "0"],
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_is_one_line_and_status_2(here: CommandHere, name: str) -> None:
    assert "(usage)" in here.fails(*USAGE[name], status=2)


REFUSALS = {
    "wrong token": (refusal(401, "unauthorized", "no"), "wants another API token than this"),
    "unknown device": (
        refusal(404, "unknown-node", "no device called node-1"),
        "no device called node-1 (unknown-node)",
    ),
    "server's fault": (refusal(500, "internal", "the log has it under id 7"), "id 7 (internal)"),
    "proxy's page": (Answer(b"<html>", 503), "answered 503 Service Unavailable without JSON"),
    "another service": (Answer(b"<html>", 200), "without JSON; is it a Fairlead server?"),
    "another form": (Answer({"nodes": [{"id": 5}]}), "something else than documented (nodes.0.id:"),
    "a list": (Answer([]), "something else than documented"),
    "error without form": (Answer(["no"], 418), "answered 418"),
    "redirection": (Answer(b"", 307, {"Location": "http://x/"}), "answered 307"),
    "lines and escapes": (refusal(409, "conflict", "a\nb\x1b[2Jc"), "a b\ufffd[2Jc (conflict)"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_one_line(api: ScriptedApi, here: CommandHere, name: str) -> None:
    answer, said = REFUSALS[name]
    api.says("GET /api/nodes", answer)
    assert said in here.fails("devices")


def test_no_server_is_one_line(here: CommandHere) -> None:
    with reserved_port() as port:
        here.variables["FAIRLEAD_SERVER"] = f"http://127.0.0.1:{port}"
        assert "Is `fairlead serve` running? (unreachable)" in here.fails("devices")
        assert "(unreachable)" in here.fails("publish", "web", "1", "--group", "g", "--watch")


def test_what_devices_say_is_shown_and_not_obeyed(api: ScriptedApi, here: CommandHere) -> None:
    hostile = "\x1b]0;owned\x07[bold]x[/nonsense] \x1b[2J\r\nok \u202eevil :warning:"
    api.says("GET /api/nodes", {"nodes": [node(why=hostile)]})
    ran = here.run("devices")
    assert ran.status == 0
    assert ran.out.count("\n") == 2
    assert not set(ran.out) & set("\x1b\x07\r\u202e")
    assert "[bold]x[/nonsense]" in ran.out
    assert ":warning:" in ran.out
    api.says("GET /api/nodes/node-1/logs/web?lines=100", {"service": "web", "lines": ["\x1b[31mred", "a\tb"]})
    assert here.run("logs", "node-1", "web").out == "\ufffd[31mred\na   b\n"


def test_a_row_is_one_line_in_a_pipe_however_long(api: ScriptedApi, here: CommandHere) -> None:
    api.says("GET /api/nodes", {"nodes": [node(f"node-{number}", why="because " * 60) for number in range(3)]})
    assert here.run("devices").out.count("\n") == 4


def test_a_terminal_without_unicode_gets_ascii(api: ScriptedApi, fairlead: CommandLine) -> None:
    api.says("GET /api/nodes", {"nodes": [node(why="größer ▲")]})
    api.says("GET /api/updates/d-1", job())
    fairlead.variables |= {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    assert "gr??er ?" in fairlead.run("devices").out
    assert "##########....." in fairlead.run("status", "d-1").out


def test_a_closed_pipe_is_quiet(api: ScriptedApi, fairlead: CommandLine) -> None:
    api.says("GET /api/nodes", {"nodes": [node(f"node-{number}", why="x" * 500) for number in range(1_000)]})
    process = fairlead.start("devices")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == ""
    process.wait()


def test_ctrl_c_ends_a_watch_without_a_traceback(api: ScriptedApi, fairlead: CommandLine) -> None:
    api.says("GET /api/updates/d-1", job())
    process = fairlead.start("status", "d-1", "--watch")
    until(lambda: len(api.asked) > 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert out.count("\n") == 1


def test_ctrl_c_ends_a_picture_too(api: ScriptedApi, fairlead: CommandLine) -> None:
    api.says("GET /api/updates/d-1", job())
    near, far = pty.openpty()
    process = fairlead.start("status", "d-1", "--watch", stdout=far, stderr=subprocess.PIPE)
    os.close(far)
    seen = b""
    while b"wave 1 of 2" not in seen:
        seen += os.read(near, 65_536)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    os.close(near)
    assert (process.returncode, err) == (130, "")


def test_on_a_terminal_a_watch_draws_bars_in_place(api: ScriptedApi, fairlead: CommandLine) -> None:
    api.says("GET /api/updates/d-1", job(), job(counts={"committed": 2}), job("complete", counts={"committed": 4}))
    fairlead.variables |= {"TERM": "xterm", "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        fairlead.start.__globals__["_PROGRAM"] + ["status", "d-1", "--watch"],
        cwd=fairlead.home,
        env=fairlead.environment(),
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=subprocess.DEVNULL,
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 65_536)
        except OSError:
            break
        seen += part
    os.close(leader)
    assert process.wait() == 0
    text = seen.decode()
    assert "█" in text
    assert "4/4" in text
    assert "\x1b[3" not in text, "NO_COLOR is honoured"


def test_version_and_help_teach(here: CommandHere) -> None:
    assert here.run("--version").out.startswith("fairlead ")
    text = here.run("--help").out
    for command in ("serve", "demo", "publish", "status", "recall", "doctor", "enrol", "catalogue", "broker"):
        assert command in text
    assert here.run().status == 2
    assert "--show-completion" in text
    assert "fairlead publish my-service 1.2.0 --group line-1" in here.run("publish", "--help").out


def test_the_brokers_tool_is_reachable_and_keeps_its_own_options(here: CommandHere) -> None:
    ran = here.run("broker", "render", "mosquitto", "--out", "conf", "--loopback", "1999", "--data", "data")
    assert (ran.status, ran.err) == (0, "")
    assert "listener 1999 127.0.0.1" in (here.home / "conf/mosquitto.conf").read_text()
    assert "usage: fairlead broker" in here.run("broker", "--help").out
    assert here.run("broker", "render").status == 2


def test_enrol_sends_the_devices_key(api: ScriptedApi, here: CommandHere) -> None:
    key = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00" * 32}}
    (here.home / "key.json").write_text(json.dumps(key))
    api.says("POST /api/nodes/register", Answer(node() | {"root": {}}, 201))
    ran = here.run("enrol", "node-1", "--group", "line-1", "--class", "x86_64", "--key", "key.json")
    assert (ran.status, ran.err) == (0, "")
    assert api.asked[0].body == {"id": "node-1", "group": "line-1", "class": "x86_64", "public_key": key}
    assert "moves it" not in ran.out
    ran = here.run("enrol", "node-1", "--group", "line-2", "--class", "x86_64", "--key", "key.json")
    assert (ran.status, ran.err) == (0, "")
    assert "stays in group line-1: `fairlead move node-1 line-2` moves it" in ran.out
    (here.home / "key.json").write_text("[]")
    assert "(keys)" in here.fails("enrol", "n", "--group", "g", "--class", "c", "--key", "key.json")
