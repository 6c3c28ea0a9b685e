"""A production mosquitto as Fairlead renders it: real authorities, two TLS listeners, access rules."""

import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from broker_config.ca import Authority, Certificate, Kind
from broker_config.mosquitto import DeviceListener, MosquittoSettings, ServiceListener, Tls, render
from broker_config.names import SERVER, service_name
from broker_config.private_file import write_file
from fleet_protocol.topics import Topics
from tests.fakes.brokers import listens
from tests.fakes.mqtt_peer import V5, Peer
from tests.fakes.ports import HOST, reserved_ports
from tests.fakes.readiness import start

DASHBOARD = service_name("grafana")


@dataclass
class TlsBroker:
    """The running broker and the authorities behind it."""

    home: Path
    devices: Authority
    services: Authority
    settings: MosquittoSettings
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def topics(self) -> Topics:
        return self.settings.topics

    def start(self) -> None:
        """Start, again or for the first time; returns once both listeners take connections."""
        binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        argv = [binary, "-c", self.settings.home / "mosquitto.conf"]
        ports = self.settings.devices.port, self.settings.services.port
        self._process = start(argv, self.home / "log", lambda: all(listens(HOST, port) for port in ports))

    def stop(self) -> None:
        """End in order, so that mosquitto writes its memory."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def reload(self) -> None:
        """Read access rules and revocation lists again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def tls(self, name: str, issued: Certificate | None, *, trust: Path | None = None) -> ssl.SSLContext:
        """A client's context: trusts the service authority, and shows `issued` where it is given."""
        context = ssl.create_default_context(cafile=str(trust or self.services.ca_file))
        if issued is not None:
            certificate, key = issued.write(self.home / "clients", name)
            context.load_cert_chain(certificate, key)
        return context

    def device(
        self, name: str, *, client_id: str | None = None, issued: Certificate | None = None, **more: object
    ) -> Peer:
        """A device with a certificate of its own, or with `issued`."""
        context = self.tls(name, issued or self.devices.issue_device(name))
        return Peer(HOST, self.settings.devices.port, client_id or name, tls=context, **{"protocol": V5, **more})

    def service(self, name: str, *, client_id: str | None = None, **more: object) -> Peer:
        """The server or a dashboard."""
        context = self.tls(name, self.services.issue_service(name))
        return Peer(HOST, self.settings.services.port, client_id or name, tls=context, **{"protocol": V5, **more})

    def server(self, **more: object) -> Peer:
        """The server's connection."""
        return self.service(SERVER, **more)


@contextmanager
def tls_broker(directory: Path) -> Iterator[TlsBroker]:
    """A mosquitto with both listeners on ports of their own, ended with the block."""
    with reserved_ports(2) as (device_port, service_port):
        yield from _running(directory, device_port, service_port)


def _running(directory: Path, device_port: int, service_port: int) -> Iterator[TlsBroker]:
    devices = Authority.create(directory / "device-ca", Kind.DEVICE, "acme")
    services = Authority.create(directory / "service-ca", Kind.SERVICE, "acme")
    cert, key = services.issue_server([HOST, "localhost"]).write(directory / "broker", "broker")
    assert key is not None
    home, data = directory / "conf", directory / "data"
    data.mkdir()
    settings = MosquittoSettings(
        home=home,
        data_dir=data,
        user="root",
        devices=DeviceListener(
            tls=Tls(ca_file=devices.ca_file, crl_file=devices.crl_file, cert_file=cert, key_file=key),
            port=device_port,
            address=HOST,
        ),
        services=ServiceListener(
            tls=Tls(ca_file=services.ca_file, crl_file=services.crl_file, cert_file=cert, key_file=key),
            port=service_port,
            address=HOST,
            dashboards=(DASHBOARD,),
        ),
    )
    for name, text in render(settings).items():
        write_file(home / name, text.encode())
    broker = TlsBroker(directory, devices, services, settings)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
