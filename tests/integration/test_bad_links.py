"""An agent and its broker at two ends of a bad link: nothing is lost, order is kept, and nobody storms."""

import hashlib
import http.client
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.agent_process import AgentProcess, ServerSide, running_agent
from tests.fakes.artifacts import packed
from tests.fakes.bad_links import Weather, entered, links, missing
from tests.fakes.brokers import RunningBroker, mosquitto
from tests.fakes.http_server import FileServer
from tests.fakes.trust_fleet import Fleet
from tests.fakes.waiting import until

WHY = missing()
pytestmark = pytest.mark.skipif(WHY is not None, reason=str(WHY))
NODE = "node-1"
SERVER = "10.77.0.1"
PORT = 1883
"""Of the namespace's own: nothing else is there."""
QUIET = "[intervals]\nheartbeat_s = 5\ntelemetry_s = 3600\nhealth_s = 3600\nretry_most_s = 1\n"
SETTINGS = f"{QUIET}reconnect_most_s = 2\n"
DATA = hashlib.shake_128(b"data").digest(2 * 1024 * 1024)
"""2 MiB, of which a kill may cost at most the block in hand."""


@dataclass
class Scene:
    """Server side and device, and the link between them."""

    fleet: Fleet
    server: ServerSide
    files: FileServer
    agent: AgentProcess
    weather: Weather
    device_space: str
    started_ns: int = 0

    def start_agent(self) -> None:
        self.started_ns = time.time_ns()
        with entered(self.device_space):
            self.agent.start()

    def roll_back(self) -> None:
        """An order on the device itself: nothing can be rolled back, and a report says so, whatever the link is."""
        token = (self.agent.state_dir / "http.token").read_text()
        with entered(self.device_space):
            connection = http.client.HTTPConnection(
                "127.0.0.1", int((self.agent.state_dir / "http.port").read_text()), timeout=30
            )
            connection.connect()
        connection.request("POST", "/agent/rollback", b"{}", {"X-Fairlead-Token": token})
        assert connection.getresponse().status == 409
        connection.close()

    def roll_back_when_up(self) -> None:
        """The same, once the agent that was just started listens."""
        port = self.agent.state_dir / "http.port"
        until(lambda: port.exists() and port.stat().st_mtime_ns > self.started_ns)
        self.roll_back()

    def counters(self) -> list[int]:
        """Counters of the reports that arrived, in their order, repeats left out: a report may come twice."""
        return list(dict.fromkeys(report["counter"] for report in self.server.reports(NODE)))

    def waiting(self) -> int:
        """Reports that the device still keeps."""
        return len([path for path in (self.agent.state_dir / "outbox").iterdir() if path.suffix != ".new"])

    def arrive(self, reports: int, deadline_s: float = 240.0) -> None:
        """So many reports in all: each once, in order, none lost; and the device keeps none."""
        until(lambda: len(self.counters()) >= reports, deadline_s=deadline_s)
        until(lambda: self.waiting() == 0, deadline_s=deadline_s)
        assert self.counters() == list(range(1, len(self.counters()) + 1))


@pytest.fixture
def scene(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The parameter, where there is one, is the agent's settings."""
    settings = getattr(request, "param", SETTINGS)
    fleet = Fleet()
    with links() as lab:
        server_space, device_space = lab.space("server"), lab.space("device")
        weather = lab.link(server_space, f"{SERVER}/24", device_space, "10.77.0.2/24")
        listener = f"allow_anonymous true\nlistener {PORT} {SERVER}\nallow_anonymous true"
        with entered(server_space):
            broker_here = mosquitto(tmp_path, config=listener)
            broker = broker_here.__enter__()
            files = FileServer(SERVER)
        try:
            yield from _scene(tmp_path, fleet, broker, files, weather, (server_space, device_space), settings)
        finally:
            files.close()
            broker_here.__exit__(None, None, None)


def _scene(
    tmp_path: Path,
    fleet: Fleet,
    broker: RunningBroker,
    files: FileServer,
    weather: Weather,
    spaces: tuple[str, str],
    settings: str,
) -> Iterator[Scene]:
    with entered(spaces[0]):
        server = ServerSide(broker, fleet)
    artifact = packed({"data": DATA})
    fleet.add_release(
        "data",
        "1.0.0",
        1,
        data=artifact.data,
        kind="files",
        format="tar.zst",
        unpacked_size=artifact.unpacked_size,
        unpacked_files=artifact.unpacked_files,
    )
    fleet.publish()
    fleet.assignment()
    server.publish_all()
    download = f'[download]\nallowed_hosts = ["{SERVER}"]\n'
    agent_directory = tmp_path / "agent"
    try:
        with entered(spaces[1]):
            running = running_agent(agent_directory, f"mqtt://{SERVER}:{PORT}", fleet, settings=settings)
            agent = running.__enter__()
        try:
            config = agent.config.read_text().replace('[download]\nallowed_hosts = ["127.0.0.1"]\n', download)
            agent.config.write_text(config)
            scene = Scene(fleet, server, files, agent, weather, spaces[1])
            until(lambda: server.newest(NODE, "state").get("group") == "line-1", deadline_s=60)
            scene.arrive(1, 60.0)
            yield scene
        finally:
            running.__exit__(None, None, None)
    finally:
        server.close()


@pytest.mark.parametrize(
    ("delay_s", "loss"), [(0.2, 0.3), pytest.param(2.0, 0.3, marks=pytest.mark.device)], ids=["quick", "slow"]
)
def test_reports_over_a_lossy_slow_link(scene: Scene, delay_s: float, loss: float) -> None:
    scene.weather.delay_s, scene.weather.loss = delay_s, loss
    before = len(scene.counters())
    for _ in range(10):
        scene.roll_back()
    scene.arrive(before + 10, 600.0)


def test_an_agent_that_starts_behind_a_slow_link_connects(scene: Scene) -> None:
    """With two seconds each way no broker answers as quickly as one on the desk; what was never proved included."""
    before = len(scene.counters())
    scene.agent.kill()
    (scene.agent.state_dir / "mqtt-version").unlink()
    scene.weather.delay_s = 2.0
    scene.start_agent()
    scene.roll_back_when_up()
    scene.arrive(before + 2)


@pytest.mark.parametrize(
    ("scene", "silence_s", "pause_most_s"),
    [
        pytest.param(SETTINGS, 20.0, 2.0, id="scaled"),
        pytest.param(QUIET, 3_600.0, 120.0, id="an-hour", marks=pytest.mark.device),
    ],
    indirect=["scene"],
)
def test_a_silent_link_is_noticed_and_brings_no_storm(scene: Scene, silence_s: float, pause_most_s: float) -> None:
    """Reports made in the silence wait on the disk, over a kill of the agent too, and arrive in order.

    With full jitter a pause is half of the longest in the mean, and an attempt takes its time too.
    """
    arrived, before = len(scene.counters()), scene.weather.connections
    scene.weather.up = False
    for _ in range(5):
        scene.roll_back()
    scene.agent.kill()
    scene.start_agent()
    began_s = time.monotonic()
    scene.roll_back_when_up()
    until(lambda: time.monotonic() - began_s > silence_s, deadline_s=silence_s + 30)
    tried = scene.weather.connections - before
    assert 1 <= tried <= 2 * silence_s / pause_most_s
    kept = scene.waiting()
    assert kept >= 7, "five orders, the start, and one more order"
    scene.weather.up = True
    scene.arrive(arrived + kept)


def test_a_download_survives_cuts_kills_and_another_server(scene: Scene) -> None:
    """It goes on where it was: nothing that was on the disk is asked for again."""
    release = scene.fleet.release("data", "1.0.0")[0]
    urls = [scene.files.url(f"/{name}") for name in ("one", "two")]
    size = len(release.data)
    scene.files.serve(release.data, "/one", etag='"one"')
    scene.weather.rate_bytes_s = 300_000.0
    deployment = scene.fleet.deployment("data", "1.0.0", urls=urls, probation_s=1)
    scene.fleet.manifest(deployment)
    scene.server.publish_all()
    part = scene.agent.state_dir / "cache" / f"{release.target.sha256}.part"
    _grows(part, size // 4)
    scene.weather.up = False
    scene.agent.kill()
    kept = part.stat().st_size
    scene.weather.up = True
    scene.files.paths["/two"] = scene.files.paths.pop("/one")
    scene.files.paths["/two"].etag = '"two"'
    scene.weather.rate_bytes_s = None
    scene.start_agent()
    until(lambda: scene.server.newest(NODE, "state").get("version_data") == "1.0.0", deadline_s=120)
    starts = [int(span.removeprefix("bytes=").rstrip("-")) for span in scene.files.ranges if span is not None]
    assert starts and min(starts) >= kept


def _grows(path: Path, size: int) -> None:
    def there() -> bool:
        return path.exists() and path.stat().st_size >= size

    until(there, deadline_s=60)
