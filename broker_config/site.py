"""A broker with everything around it in one directory: authorities, certificates, mosquitto's files, its memory.

`site.json` is what was asked for, so that the same command without words does the same again. `ca/devices` and
`ca/services` are the authorities: whoever has a `ca.key` of theirs can let anybody in. `certs` are those of the broker,
the server and the dashboards, `mosquitto` is its configuration, and `data` what it remembers.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from broker_config.ca import Authority, Kind
from broker_config.mosquitto import CONF, DeviceListener, MosquittoSettings, ServiceListener, Tls, render
from broker_config.names import SERVER, service_name
from broker_config.private_file import write_file
from fleet_protocol.errors import PolicyError
from fleet_protocol.ids import check_id
from fleet_protocol.topics import DEFAULT_PREFIX, Topics

_SITE: Final = "site.json"
_BROKER: Final = "broker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What an operator chose. `hosts` are the names and addresses by which the broker is reached, the first of them
    by devices and by the server; `user` is the account of mosquitto where it is started as root."""

    fleet: str
    hosts: tuple[str, ...]
    address: str | None = None
    device_port: int = 8883
    service_port: int = 8884
    dashboards: tuple[str, ...] = ()
    user: str | None = None
    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        check_id(self.fleet, "fleet")
        if not all(isinstance(port, int) for port in (self.device_port, self.service_port)):
            raise TypeError("a port is a number")

    @classmethod
    def known(cls, directory: Path) -> Self:
        """What the directory remembers; raises PolicyError `setup` where it is none of a broker's."""
        if not (directory / _SITE).exists():
            raise PolicyError("setup", f"{directory} holds no broker: make one with `fairlead broker setup`")
        return cls.chosen(directory)

    @classmethod
    def chosen(cls, directory: Path, **given: Any) -> Self:
        """What the directory remembers, and `given` values (those that are not None) before it.

        Raises PolicyError `setup` where nothing says how the broker is reached, `conflict` for another fleet.
        """
        known = _remembered(directory)
        asked = {name: value for name, value in given.items() if value is not None}
        if known and asked.get("fleet", known["fleet"]) != known["fleet"]:
            raise PolicyError("conflict", f"{directory} is the broker of fleet {known['fleet']}")
        merged = known | asked
        missing = [f"--{option}" for option, name in (("fleet", "fleet"), ("host", "hosts")) if not merged.get(name)]
        if missing:
            raise PolicyError("setup", f"{directory} is new: say {' and '.join(missing)}")
        values: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in merged.items()}
        try:
            return cls(**values)
        except TypeError:
            raise PolicyError("setup", f"{directory / _SITE} is not what `setup` wrote") from None

    def make(self, directory: Path) -> Path:
        """Make or renew everything; returns mosquitto's configuration.

        Authorities that are there stay, certificates are issued anew.
        """
        home = directory.absolute()
        devices, services = self._authority(home, Kind.DEVICE), self._authority(home, Kind.SERVICE)
        services.issue_server(self.hosts).write(home / "certs", _BROKER)
        for name in (SERVER, *map(service_name, self.dashboards)):
            services.issue_service(name).write(home / "certs", name)
        (home / "data").mkdir(mode=0o700, exist_ok=True)
        self._hand_over(home / "data", home / "certs" / f"{_BROKER}.key")
        for name, text in render(self._mosquitto(home, devices, services)).items():
            write_file(home / "mosquitto" / name, text.encode())
        write_file(home / _SITE, (json.dumps(asdict(self), indent=1) + "\n").encode())
        return home / "mosquitto" / CONF

    def server_settings(self, directory: Path) -> Mapping[str, str | Path]:
        """What `fairlead serve` must know of this broker, by the names of its settings."""
        home = directory.absolute()
        return {
            "fleet": self.fleet,
            "topic_prefix": self.prefix,
            "broker_url": f"mqtts://{_place(self.hosts[0])}:{self.service_port}",
            "broker_ca_file": home / "ca/services/ca.pem",
            "broker_cert_file": home / "certs" / f"{SERVER}.pem",
            "broker_key_file": home / "certs" / f"{SERVER}.key",
        }

    def add_device(
        self, directory: Path, device: str, device_class: str, out: Path, *, request: bytes | None
    ) -> list[Path]:
        """Everything with which a device connects, in a directory to be copied there; returns its files.

        With a certificate signing `request` the device's key never leaves it. An agent.toml that is there stays.
        """
        check_id(device_class, "class")
        issued = Authority.load(directory / "ca/devices").issue_device(device, request=request)
        certificate, key = issued.write(out, device)
        trusted = out / "ca.pem"
        write_file(trusted, (directory / "ca/services/ca.pem").read_bytes())
        settings = out / "agent.toml"
        if not settings.exists():
            write_file(settings, self._agent(device, device_class).encode())
        return [settings, trusted, certificate, *([] if key is None else [key])]

    def _authority(self, home: Path, kind: Kind) -> Authority:
        directory = home / "ca" / f"{kind}s"
        if (directory / "ca.pem").exists():
            return Authority.load(directory)
        return Authority.create(directory, kind, self.fleet)

    def _hand_over(self, *paths: Path) -> None:
        """What mosquitto alone may read belongs to its account, where root makes it for another."""
        if self.user is None or os.geteuid() != 0:
            return
        for path in paths:
            try:
                shutil.chown(path, self.user)
            except LookupError:
                raise PolicyError("setup", f"there is no account {self.user} on this machine") from None

    def _mosquitto(self, home: Path, devices: Authority, services: Authority) -> MosquittoSettings:
        broker = {"cert_file": home / "certs" / f"{_BROKER}.pem", "key_file": home / "certs" / f"{_BROKER}.key"}
        return MosquittoSettings(
            home=home / "mosquitto",
            data_dir=home / "data",
            topics=Topics(self.prefix),
            user=self.user,
            devices=DeviceListener(
                tls=Tls(ca_file=devices.ca_file, crl_file=devices.crl_file, **broker),
                port=self.device_port,
                address=self.address,
            ),
            services=ServiceListener(
                tls=Tls(ca_file=services.ca_file, crl_file=services.crl_file, **broker),
                port=self.service_port,
                address=self.address,
                dashboards=tuple(map(service_name, self.dashboards)),
            ),
        )

    def _agent(self, device: str, device_class: str) -> str:
        top = {"device": device, "fleet": self.fleet, "class": device_class, "state_dir": "state"}
        if self.prefix != DEFAULT_PREFIX:
            top["topic_prefix"] = self.prefix
        broker = {
            "url": f"mqtts://{_place(self.hosts[0])}:{self.device_port}",
            "ca_file": "ca.pem",
            "cert_file": f"{device}.pem",
            "key_file": f"{device}.key",
        }
        # `*` is every public host: the server may stand beside the broker, in a network of its own.
        hosts = json.dumps(["*", *self.hosts])
        download = f"[download]\nallowed_hosts = {hosts}\n"
        local = "# For `fairlead-agent status`; on 127.0.0.1, at a port of the kernel's choosing.\n[http]\nport = 0\n"
        return "\n".join((_table(top), f"[broker]\n{_table(broker)}", download, local))


def _remembered(directory: Path) -> dict[str, Any]:
    path = directory / _SITE
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PolicyError("setup", f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get("fleet"), str):
        raise PolicyError("setup", f"{path} is not what `setup` wrote")
    return value


def _place(host: str) -> str:
    """The host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def _table(values: Mapping[str, str]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
