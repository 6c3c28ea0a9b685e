"""deploy/install-agent.sh on a device: twice is once, an upgrade keeps what is the owner's, a mistake is one line."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.fakes.container_site import ContainerSite, wheels
from tests.fakes.device_site import DeviceSite
from tests.fakes.nspawn import Container
from tests.fakes.running_server import GROUP, checked
from tests.fakes.waiting import until

NODE = "node-1"
AGENT = "fairlead-agent.service"
HOME = "/opt/fairlead"
WORK = (
    "useradd --system --create-home --home-dir /home/tester tester",
    "su tester -s /bin/sh -c 'id && test ! -w /etc/passwd'",
    "userdel --force --remove tester",
    "mount -t tmpfs tmpfs /mnt && umount /mnt",
    "mknod /root/null c 1 3 && rm /root/null",
    "install -m 4755 /bin/true /usr/bin/set-id && rm /usr/bin/set-id",
    "systemctl daemon-reload && systemctl restart dbus && systemctl is-active dbus",
    "ldconfig",
    "update-alternatives --install /usr/bin/tester tester /bin/true 1 && update-alternatives --remove-all tester",
    "chattr +i /root/work.sh && chattr -i /root/work.sh",
    "setcap cap_net_raw+ep /bin/true && setcap -r /bin/true",
    "dpkg --configure --pending && apt-get check",
    "ip address",
)
"""What packages do when they are installed."""


@pytest.fixture(scope="module")
def device(containers: ContainerSite) -> Container:
    return containers.device(NODE)


def _process(device: Container) -> str:
    return device.do(f"systemctl show --property=MainPID --value {AGENT}").strip()


def _altered(place: Path, *, broken: bool) -> Path:
    """A folder of wheels whose agent is another one."""
    shutil.copytree(wheels(), place)
    (wheel,) = place.glob("fairlead-*.whl")
    with zipfile.ZipFile(wheel) as old:
        members = {name: old.read(name) for name in old.namelist()}
    name = "device_agent/resident.py"
    members[name] += b"\nraise SystemExit(3)\n" if broken else b"\n# another build\n"
    with zipfile.ZipFile(wheel, "w") as new:
        for member, data in members.items():
            new.writestr(member, data)
    return place


def _settings(device: Container) -> dict[str, bytes]:
    files = ("/etc/fairlead/agent.toml", f"/etc/fairlead/{NODE}.key", "/var/lib/fairlead-agent/device.pem")
    return {name: device.get(name) for name in files}


def test_twice_is_once(containers: ContainerSite, device: Container) -> None:
    before, process, program = _settings(device), _process(device), device.do(f"readlink {HOME}/venv")
    containers.install(NODE)
    device.do(f"{wheels()}/install-agent.sh")
    assert _settings(device) == before
    assert _process(device) == process != "0"
    assert device.do(f"readlink {HOME}/venv; ls {HOME}/venvs") == program + program.removeprefix("venvs/")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--wheels /nowhere", "/nowhere: no such folder"),
        ("--wheels /etc", "no fairlead-*.whl in /etc"),
        ("--wheel /nowhere.whl", "/nowhere.whl: no such file"),
        ("--colour blue", "unknown option --colour"),
        ("--colour", "unknown option --colour"),
        ("--device", "--device needs a value"),
        ("please", "unexpected please"),
        ("--purge", "--purge goes with --uninstall"),
        ("--device Node_1", "says 'node-1' for --device"),
        ("--broker-ca /nowhere", "/nowhere: no such file"),
        ("--settings /etc", "/etc/agent.toml"),
        (f"--settings /root/{NODE} --class other", "for --class"),
        (f"--settings /root/{NODE} --variable PORT=9000", "for --variable PORT"),
        ("--server http://127.0.0.1:9 --token x --group line-1", "unreachable"),
        ("--trust /etc/hostname", "fairlead-agent: "),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(device: Container, words: str, said: str) -> None:
    before, process = _settings(device), _process(device)
    status, _, err = device.run(f"{wheels()}/install-agent.sh {words}")
    assert status == 1
    assert said in err
    assert err.count("\n") == 1, err
    assert (_settings(device), _process(device)) == (before, process)


def test_the_hardening_lets_maintainer_scripts_do_their_work(device: Container) -> None:
    unit = device.get(f"/etc/systemd/system/{AGENT}").decode()
    hardening = unit.partition("LimitCORE=0\n")[2].partition("\n[Install]")[0].split("\n")
    options = " ".join(f"--property='{line}'" for line in hardening if line)

    def outcomes(*sandbox: str) -> list[str]:
        script = "; ".join(f"{{ {line}; }} >/dev/null 2>&1; echo $?" for line in WORK)
        device.put_text("/root/work.sh", script)
        return device.do(f"systemd-run --quiet --wait --pipe {' '.join(sandbox)} /bin/sh /root/work.sh").split()

    assert "SystemCallFilter=" in options
    assert outcomes(options) == outcomes() == ["0"] * len(WORK)
    assert device.run(f"systemd-run --quiet --wait --pipe {options} /usr/bin/unshare --mount true")[0] != 0


def test_the_hardening_is_as_the_document_says(device: Container) -> None:
    document = (Path(__file__).parents[3] / "docs" / "device.md").read_text("utf-8")
    level = device.do(f"systemd-analyze security --no-pager {AGENT} | grep Overall").split(": ")[1].split()[0]
    assert f"exposure level {level}" in document


def test_an_upgrade_keeps_settings_and_state_though_it_was_killed_on_the_way(
    site: DeviceSite, device: Container, tmp_path: Path
) -> None:
    before, process, program = _settings(device), _process(device), device.do(f"readlink {HOME}/venv")
    device.put(_altered(tmp_path / "newer", broken=False), "/root/newer")
    device.do("systemd-run --quiet --unit=upgrade /root/newer/install-agent.sh")
    until(lambda: len(list(device.file(f"{HOME}/venvs").glob("*/bin/pip"))) == 2, deadline_s=60)
    device.do("systemctl kill --signal=KILL upgrade.service")
    assert (_process(device), device.do(f"readlink {HOME}/venv")) == (process, program)
    device.do("/root/newer/install-agent.sh")
    assert _process(device) not in ("0", process)
    assert device.do(f"readlink {HOME}/venv") != program
    assert device.do(f"ls {HOME}/venvs") == device.do(f"readlink {HOME}/venv").removeprefix("venvs/")
    assert _settings(device) == before


def test_an_agent_that_does_not_come_up_is_not_kept(site: DeviceSite, device: Container, tmp_path: Path) -> None:
    before, program = _settings(device), device.do(f"readlink {HOME}/venv")
    device.put(_altered(tmp_path / "broken", broken=True), "/root/broken")
    status, _, err = device.run("/root/broken/install-agent.sh")
    assert status == 1
    assert "the new agent is not kept" in err
    assert device.do(f"readlink {HOME}/venv") == program
    assert device.do(f"systemctl is-active {AGENT}").strip() == "active"
    assert _settings(device) == before
    site.online(NODE)


def test_a_device_with_little_memory_can_be_set_up(containers: ContainerSite) -> None:
    small = containers.bare("node-2", memory_mb=96)
    containers.device("node-2")
    assert small.do(f"systemctl is-active {AGENT}").strip() == "active"
    assert 0 < small.peak_mb <= 96


def test_a_device_gets_its_packages_from_an_index_and_its_root_by_hand(
    site: DeviceSite, containers: ContainerSite, tmp_path: Path
) -> None:
    """The index is a folder here: nothing leaves this machine. Its owner enrols the key that the script prints."""
    device = containers.bare("node-3", program=False)
    device.start()
    site.carry(device, "node-3")
    (tmp_path / "root.json").write_bytes(site.desk.fleet.roots()[0].data)
    device.put(tmp_path / "root.json", "/root/root.json")
    (wheel,) = wheels().glob("fairlead-*.whl")
    index = f"PIP_NO_INDEX=1 PIP_FIND_LINKS={wheels()}"
    said = device.do(
        f"{index} {wheels()}/install-agent.sh --wheel {wheel} --settings /root/node-3 --trust /root/root.json"
    )
    key = json.loads(said[said.index("{") : said.rindex("}") + 1])
    body = {"id": "node-3", "group": GROUP, "class": site.device_class, "public_key": key}
    assert checked(site.client.post("/api/nodes/register", json=body))["id"] == "node-3"
    site.online("node-3")
    site.add("note", "1.0.0", 1, tree={"note": "hello"}, kind="files")
    job = site.publish("note", "1.0.0", kind="files")
    assert site.attempted("node-3", job) == ("committed", None)


def test_uninstalled_it_leaves_what_is_the_owners_until_that_is_purged(device: Container) -> None:
    before = _settings(device)
    device.do(f"{HOME}/venv/bin/fairlead-agent uninstall")
    assert _settings(device) == before
    assert device.run(f"systemctl cat {AGENT}; pgrep --full '[d]evice_agent'")[:2] == (1, "")
    device.do(f"{wheels()}/install-agent.sh --uninstall --purge")
    for path in (HOME, "/etc/fairlead", "/var/lib/fairlead-agent", f"/etc/systemd/system/{AGENT}"):
        assert not device.file(path).exists()
    assert device.do("systemctl list-units --failed --no-legend --plain 'fairlead*'") == ""
