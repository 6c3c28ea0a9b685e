"""`python -m broker_config` and `fairlead broker`: a broker's files, its authorities, the embedded broker."""

import argparse
import getpass
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from broker_config import embedded
from broker_config.mosquitto import (
    DeviceListener,
    MosquittoSettings,
    ServiceListener,
    Tls,
    render,
    render_loopback,
)
from broker_config.names import service_name
from broker_config.one_line_parser import OneLineParser
from broker_config.private_file import write_file
from fleet_protocol.errors import FleetError, PolicyError
from fleet_protocol.topics import DEFAULT_PREFIX, Topics


def main(argv: Sequence[str] | None = None, *, program: str = "python -m broker_config") -> int:
    """Carry out one command; 0 when it was, 1 with one line on stderr when not, 2 on wrong usage, 130 on Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["embedded"]:
        return embedded.main(arguments[1:], program=f"{program} embedded")
    parser = OneLineParser(prog=program, description="Brokers for a Fairlead fleet.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("embedded", help="run the embedded broker, for the demo and small trials", add_help=False)
    _add_setup(commands.add_parser("setup", help="a whole broker in one directory: authorities, certificates, files"))
    _add_device(commands.add_parser("device", help="what a device needs to connect to the broker of such a directory"))
    _add_render(commands.add_parser("render", help="write a broker's configuration and access rules"))
    _add_authority(commands.add_parser("ca", help="certificate authorities for devices and services"))
    args = parser.parse_args(arguments)
    run = {"setup": _setup, "device": _device, "render": _render, "ca": _authority}
    try:
        run[args.command](args)
    except FleetError as error:
        sys.stderr.write(f"{program}: {error.detail} ({error.code})\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: interrupted\n")
        return 130
    return 0


def _add_setup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, required=True, help="the broker's directory, new or known")
    parser.add_argument("--fleet", help="the fleet's name, as in its root")
    parser.add_argument("--host", action="append", metavar="NAME", help="how it is reached; may be repeated")
    parser.add_argument("--address", help="where it listens (default: everywhere)")
    parser.add_argument("--device-port", type=int, metavar="PORT", help="default 8883")
    parser.add_argument("--service-port", type=int, metavar="PORT", help="default 8884")
    parser.add_argument("--dashboard", action="append", metavar="NAME", help="a reader; may be repeated")
    parser.add_argument("--user", help="account of mosquitto where root starts it (default: yours)")
    parser.add_argument("--prefix", help=f"topic prefix (default {DEFAULT_PREFIX})")


def _setup(args: argparse.Namespace) -> None:
    # Imported late: cryptography takes longer to load than the other commands to run.
    from broker_config.site import Site  # noqa: PLC0415

    site = Site.chosen(
        args.dir,
        fleet=args.fleet,
        hosts=args.host,
        address=args.address,
        device_port=args.device_port,
        service_port=args.service_port,
        dashboards=args.dashboard,
        user=args.user,
        prefix=args.prefix,
    )
    conf = replace(site, user=site.user or getpass.getuser()).make(args.dir)
    sys.stdout.write(f"mosquitto -c {conf}\nfairlead serve --broker-dir {args.dir.absolute()}\n")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="ID", help="the device's id")
    parser.add_argument("--dir", type=Path, required=True, help="the broker's directory, as `setup` made it")
    parser.add_argument("--class", dest="device_class", required=True, metavar="CLASS", help="its hardware class")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where its files go (default: a directory of its name)")
    parser.add_argument("--csr", type=Path, metavar="FILE", help="its own signing request; its key stays there")


def _device(args: argparse.Namespace) -> None:
    from broker_config.site import Site  # noqa: PLC0415 - as above

    request = None if args.csr is None else _read(args.csr)
    out = args.out or Path(args.name)
    site = Site.known(args.dir)
    for path in site.add_device(args.dir, args.name, args.device_class, out, request=request):
        sys.stdout.write(f"{path}\n")


def _add_render(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("broker", choices=["mosquitto"], help="mosquitto 2.0 or newer")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    parser.add_argument("--data", type=Path, default=Path("/var/lib/mosquitto"), metavar="DIR", help="broker's memory")
    parser.add_argument("--prefix", default=DEFAULT_PREFIX, help="topic prefix (default %(default)s)")
    parser.add_argument("--user", help="account that mosquitto runs under when started as root")
    parser.add_argument("--loopback", type=int, metavar="PORT", help="127.0.0.1 without names, for tests and trials")
    tls = parser.add_argument_group("TLS (needed unless --loopback is given)")
    tls.add_argument("--device-ca", type=Path, metavar="DIR", help="directory of the device authority")
    tls.add_argument("--service-ca", type=Path, metavar="DIR", help="directory of the service authority")
    tls.add_argument("--cert", type=Path, metavar="FILE", help="the broker's certificate")
    tls.add_argument("--key", type=Path, metavar="FILE", help="the broker's private key")
    tls.add_argument("--device-port", type=int, default=8883, help="default %(default)s")
    tls.add_argument("--service-port", type=int, default=8884, help="default %(default)s")
    tls.add_argument("--device-address", help="address of the devices' listener (default: all)")
    tls.add_argument("--service-address", help="address of the services' listener (default: all)")
    tls.add_argument("--password-file", type=Path, metavar="FILE", help="services use passwords (mosquitto_passwd)")
    tls.add_argument("--dashboard", action="append", default=[], metavar="NAME", help="a reader; may be repeated")


def _render(args: argparse.Namespace) -> None:
    home = args.out.absolute()
    if args.loopback is not None:
        _make(args.data)
        files = render_loopback(port=args.loopback, data_dir=args.data.absolute(), user=args.user)
    else:
        files = render(_settings(args, home))
    for name, text in files.items():
        write_file(home / name, text.encode())
        sys.stdout.write(f"{home / name}\n")


def _make(directory: Path) -> None:
    """A broker for a trial is started where its files are rendered, and complains at its end if it can not save."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PolicyError("setup", f"{directory} can not be used: {error.strerror}") from None


def _settings(args: argparse.Namespace, home: Path) -> MosquittoSettings:
    needed = {"--device-ca": args.device_ca, "--service-ca": args.service_ca, "--cert": args.cert, "--key": args.key}
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise PolicyError("setup", f"{', '.join(missing)} is missing; or say --loopback PORT for a trial without TLS")
    cert, key = args.cert.absolute(), args.key.absolute()
    device_ca, service_ca = args.device_ca.absolute(), args.service_ca.absolute()
    return MosquittoSettings(
        home=home,
        data_dir=args.data.absolute(),
        topics=Topics(args.prefix),
        user=args.user,
        devices=DeviceListener(
            tls=Tls(ca_file=device_ca / "ca.pem", crl_file=device_ca / "crl.pem", cert_file=cert, key_file=key),
            port=args.device_port,
            address=args.device_address,
        ),
        services=ServiceListener(
            tls=Tls(ca_file=service_ca / "ca.pem", crl_file=service_ca / "crl.pem", cert_file=cert, key_file=key),
            port=args.service_port,
            address=args.service_address,
            password_file=None if args.password_file is None else args.password_file.absolute(),
            dashboards=tuple(service_name(name) for name in args.dashboard),
        ),
    )


def _add_authority(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    init = actions.add_parser("init", help="make an authority in a directory")
    init.add_argument("--kind", choices=["device", "service"], required=True)
    init.add_argument("--fleet", required=True, help="the fleet's name, for the certificate")
    device = actions.add_parser("device", help="certificate for a device, by its id")
    device.add_argument("name", metavar="ID")
    device.add_argument(
        "--csr", type=Path, metavar="FILE", help="the device's own signing request; its key stays there"
    )
    server = actions.add_parser("server", help="certificate for the broker")
    server.add_argument("name", nargs="+", metavar="HOST", help="names and addresses that devices connect to")
    service = actions.add_parser("service", help="certificate for the server or a dashboard")
    service.add_argument("name", metavar="NAME", help="server, or a dashboard's name")
    revoke = actions.add_parser("revoke", help="revoke a name's certificates and renew crl.pem")
    revoke.add_argument("name", metavar="NAME", help="as listed in issued.json")
    for each in (init, device, server, service, revoke):
        each.add_argument("--dir", type=Path, required=True, help="the authority's directory")
        each.add_argument(
            "--passphrase-file", type=Path, metavar="FILE", help="its first line opens or encrypts ca.key"
        )
    for each in (device, server, service):
        each.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where the certificate goes")


def _authority(args: argparse.Namespace) -> None:
    # Imported late: cryptography takes longer to load than the other commands to run.
    from broker_config.ca import Authority, Kind  # noqa: PLC0415

    passphrase = None if args.passphrase_file is None else _passphrase(args.passphrase_file)
    if args.action == "init":
        authority = Authority.create(args.dir, Kind(args.kind), args.fleet, passphrase=passphrase)
        sys.stdout.write(f"{authority.ca_file}\n{authority.crl_file}\n")
        return
    authority = Authority.load(args.dir, passphrase=passphrase)
    if args.action == "revoke":
        count = authority.revoke(args.name)
        sys.stdout.write(f"{count} revoked; send the broker SIGHUP and end {args.name}'s session\n")
        return
    if args.action == "device":
        request = None if args.csr is None else _read(args.csr)
        name, issued = args.name, authority.issue_device(args.name, request=request)
    elif args.action == "server":
        name, issued = "broker", authority.issue_server(args.name)
    else:
        name = service_name(args.name)
        issued = authority.issue_service(name)
    for path in issued.write(args.out, name):
        sys.stdout.write("" if path is None else f"{path}\n")


def _passphrase(path: Path) -> bytes:
    passphrase = _read(path).split(b"\n", 1)[0]
    if not passphrase.strip():
        raise PolicyError("setup", f"the first line of {path} is empty, and no passphrase")
    return passphrase


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyError("setup", f"cannot read {path}: {error.strerror}") from None
