"""Twenty devices at once: waves, a late one, and what the whole costs."""

from tests.fakes.container_site import ContainerSite
from tests.fakes.device_site import exec_check
from tests.fakes.nspawn import Container

DEVICES = 20
LATE = "node-7"
TREE = {"run": "#!/bin/sh\nexec sleep infinity\n", "check": "#!/bin/sh\nexit 0\n"}


def test_twenty_devices_take_a_release_in_waves_and_one_comes_later(containers: ContainerSite) -> None:
    site = containers.site
    for number in range(1, DEVICES + 1):
        device = containers.bare(f"node-{number}")
        site.provision(device.root, device.name)
    containers.each(Container.start)
    for name in containers.devices:
        site.online(name)
    site.hub.cut(LATE)
    site.add("idler", "1.0.0", 1, tree=TREE, exec=("run",), check=exec_check())
    waves = [{"share": 0, "devices": ["node-1"]}, {"share": 50}, {"share": 100}]
    job = site.publish("idler", "1.0.0", waves=waves)
    present = [name for name in containers.devices if name != LATE]
    for name in present:
        assert site.attempted(name, job) == ("committed", None)
    assert site.installed(LATE, "idler") is None
    assert site.job(job)["counts"]["committed"] == DEVICES - 1
    site.hub.mend(LATE)
    assert site.attempted(LATE, job) == ("committed", None)
    assert site.ended(job)["state"] == "complete"
    for name, device in containers.devices.items():
        assert site.installed(name, "idler") == "1.0.0"
        assert device.do("cat /var/lib/fairlead-agent/slots/idler/current/run") == TREE["run"]
