"""One device as a user sets it up: systemd starts the agent, and whatever is killed, one release runs in the end."""

import json

import httpx
import pytest

from tests.fakes.container_site import ContainerSite
from tests.fakes.device_site import DeviceSite, exec_check, http_check
from tests.fakes.netns import address_of
from tests.fakes.nspawn import Container
from tests.fakes.waiting import until

NODE = "node-1"
AGENT = "fairlead-agent.service"
STATE = "/var/lib/fairlead-agent"
WEB = """
import http.server, pathlib, sys
version = pathlib.Path("version").read_text()

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if self.path == "/health" and "bad" in version else 200)
        self.end_headers()
        self.wfile.write(version.encode())

http.server.HTTPServer(("", int(sys.argv[1])), Page).serve_forever()
"""
IDLER = {"run": "#!/bin/sh\nexec sleep infinity\n", "check": "#!/bin/sh\nexit 0\n"}
QUICK = '[intervals]\nreconnect_most_s = 1\nretry_most_s = 2\n[variables]\nPORT = "9000"\n'


@pytest.fixture(scope="module")
def device(containers: ContainerSite) -> Container:
    """Set up, and seen by the server. Its systemd does not wait before it starts the agent anew."""
    _unit_says(containers.bare(NODE), "RestartSec=0.1")
    return containers.device(NODE, settings=QUICK)


class Idler:
    """Releases of a package that does nothing, one after the other."""

    def __init__(self, site: DeviceSite) -> None:
        self._site, self.counter = site, 0

    def publish(self) -> str:
        """The next release goes out; returns its job."""
        self.counter += 1
        self._site.add("idler", self.version, self.counter, tree=IDLER, exec=("run",), check=exec_check())
        return self._site.publish("idler", self.version)

    @property
    def version(self) -> str:
        return f"1.{self.counter}.0"


@pytest.fixture(scope="module")
def idler(site: DeviceSite) -> Idler:
    return Idler(site)


def _unit_says(device: Container, *lines: str) -> None:
    """Lay these lines over the unit."""
    place = device.file(f"/etc/systemd/system/{AGENT}.d/test.conf")
    place.parent.mkdir(exist_ok=True, parents=True)
    place.write_text("\n".join(("[Service]", *lines)) + "\n")


def _answer() -> str | None:
    try:
        return httpx.get(f"http://{address_of(1)}:9000/", timeout=5, trust_env=False).text
    except httpx.HTTPError:
        return None


def _agent(device: Container) -> int:
    """The process id of the resident on the device, 0 where there is none."""
    return int(device.do(f"systemctl show --property=MainPID --value {AGENT}"))


def _whole(site: DeviceSite, device: Container, idler: Idler) -> None:
    """The newest release runs, one process of it, and nothing half done is left."""
    until(lambda: site.installed(NODE, "idler") == idler.version, deadline_s=60)
    assert device.do("pgrep --count --full '^sleep infinity'").strip() == "1"
    assert device.do(f"cat {STATE}/slots/idler/current/run") == IDLER["run"]
    until(lambda: device.run(f"find {STATE}/backup {STATE}/cache -type f")[1] == "")  # tidying comes after the commit


def test_a_good_release_a_better_one_and_a_bad_one(site: DeviceSite, device: Container) -> None:
    how = {"exec": ("/usr/bin/python3", "web.py", "${PORT}"), "check": http_check()}
    for counter, version in enumerate(("1.0.0", "1.1.0", "2.0.0-bad"), start=1):
        site.add("web", version, counter, tree={"web.py": WEB, "version": version}, **how)
    for version in ("1.0.0", "1.1.0"):
        job = site.publish("web", version)
        assert site.ended(job)["state"] == "complete"
        assert _answer() == version
    bad = site.publish("web", "2.0.0-bad")
    assert site.attempted(NODE, bad) == ("rolled_back", "unhealthy")
    assert site.ended(bad)["state"] == "recalled"
    until(lambda: _answer() == "1.1.0")
    assert site.installed(NODE, "web") == "1.1.0"


def test_a_killed_agent_is_started_anew_and_goes_on(site: DeviceSite, device: Container, idler: Idler) -> None:
    for stage in ("installing", "probation"):
        job = idler.publish()
        site.reached(NODE, job, stage)
        before = _agent(device)
        device.do(f"kill -KILL {before}")
        until(lambda before=before: _agent(device) not in (0, before), deadline_s=60)
        assert site.attempted(NODE, job) == ("committed", None)
        _whole(site, device, idler)


def test_a_power_cut_in_mid_install_leaves_one_release(site: DeviceSite, device: Container, idler: Idler) -> None:
    for stage in ("downloading", "installing", "probation"):
        job = idler.publish()
        site.reached(NODE, job, stage)
        device.power_cut()
        device.start()
        assert site.attempted(NODE, job) == ("committed", None)
        _whole(site, device, idler)


def test_a_resident_that_stands_still_is_started_anew(site: DeviceSite, device: Container, idler: Idler) -> None:
    _unit_says(device, "RestartSec=0.1", "WatchdogSec=10")
    device.do(f"systemctl daemon-reload && systemctl restart {AGENT}")
    before = _agent(device)
    device.do(f"kill -STOP {before}")
    until(lambda: _agent(device) not in (0, before), deadline_s=60)
    assert "watchdog" in device.do(f"journalctl --unit={AGENT} --no-pager --quiet | grep -i watchdog").lower()
    site.online(NODE)
    alive = _agent(device)
    job = idler.publish()
    assert site.attempted(NODE, job) == ("committed", None)
    assert _agent(device) == alive, "a resident that goes round is left alone"
    _unit_says(device, "RestartSec=0.1")
    device.do(f"systemctl daemon-reload && systemctl restart {AGENT}")


def test_it_comes_up_by_itself_after_an_orderly_restart_of_the_device(site: DeviceSite, device: Container) -> None:
    device.do("systemctl disable --now systemd-logind")  # another service's fault is not the agent's
    seen = site.node(NODE)["seen"]
    device.shut_down()
    until(lambda: not site.node(NODE)["available"])
    device.start()
    assert device.do(f"systemctl is-active {AGENT}").strip() == "active"
    until(lambda: site.node(NODE)["available"] and site.node(NODE)["seen"] > seen, deadline_s=60)
    status = json.loads(device.run("/opt/fairlead/venv/bin/fairlead-agent status --json")[1])
    assert status["broker"]["connected"] is True
