"""`fairlead-firmware`: the release engineer's command, for machines that hold the offline keys."""

import importlib.metadata
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from securesystemslib.signer._key import Key

from firmware_tools import (
    catalogue,
    ceremony,
    command_line,
    debian,
    export,
    inspection,
    keys,
    pack_options,
    packing,
    rotation,
    signing,
)
from firmware_tools import verification as verifying
from firmware_tools.ceremony import Expiry
from firmware_tools.files import write_atomically
from firmware_tools.fleet import Fleet
from firmware_tools.signing import Reviewed, Signed
from firmware_tools.statement import release_lines
from firmware_tools.terminal import Terminal, read_passphrase
from fleet_protocol.errors import PolicyError
from fleet_protocol.ids import is_id
from fleet_protocol.payload import to_value

app: Final = typer.Typer(
    name="fairlead-firmware",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
FleetDir = Annotated[Path, typer.Argument(metavar="DIR", help="The fleet's directory.")]
PassphraseFile = Annotated[Path | None, typer.Option(help="File whose first line is the passphrase.")]
NoPassphrase = Annotated[bool, typer.Option("--no-passphrase", help="Write new private keys unencrypted.")]
TargetsDays = Annotated[float, typer.Option(help="Days until the catalogue expires.")]
RootDays = Annotated[float, typer.Option(help="Days until the root expires.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
_EXPIRY: Final = Expiry()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fairlead-firmware {importlib.metadata.version('fairlead')}")
        raise typer.Exit


@app.callback()
def fairlead_firmware(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Keys, root ceremonies, packing and the signed catalogue of releases. Works offline."""
    del version


@app.command()
def init(
    directory: FleetDir,
    *,
    fleet: Annotated[str, typer.Option(help="The fleet's name.")],
    threshold: Annotated[int, typer.Option(help="How many root keys, and how many targets keys, must sign.")] = 2,
    key_count: Annotated[int, typer.Option("--keys", help="How many keys each of the two roles has.")] = 3,
    root_key: Annotated[list[Path] | None, typer.Option(help="Public key of a root holder on another machine.")] = None,
    targets_key: Annotated[list[Path] | None, typer.Option(help="The same for targets.")] = None,
    passphrase_file: PassphraseFile = None,
    no_passphrase: NoPassphrase = False,
    device_class: Annotated[list[str] | None, typer.Option("--class", help="A device class of the fleet.")] = None,
    root_days: RootDays = _EXPIRY.root_days,
    targets_days: TargetsDays = _EXPIRY.targets_days,
) -> None:
    """Make a fleet's keys, its first root and an empty catalogue."""
    terminal = Terminal()
    public = {"root": _public(root_key), "targets": _public(targets_key)}
    made_here = 2 * key_count - sum(len(keys_) for keys_ in public.values())
    passphrase = terminal.new_passphrase(passphrase_file, none=no_passphrase) if made_here > 0 else None
    place = ceremony.init(
        directory,
        fleet=fleet,
        now_s=time.time(),
        threshold=threshold,
        keys=key_count,
        passphrase=passphrase,
        public=public,
        expiry=Expiry(root_days=root_days, targets_days=targets_days),
        classes=device_class or (),
    )
    if passphrase is None and made_here > 0:
        terminal.warn(f"the private keys in {place.offline} are NOT encrypted")
    terminal.say(*inspection.inspect(directory).lines)
    if made_here > 0:
        terminal.say(
            f"Give each key in {place.offline} to its holder, keep a copy in a safe place, and delete it here."
        )
    terminal.say(f"{place.online} is for the server: fairlead-firmware export-server {directory} --out SERVER_DATA")


@app.command("key")
def make_key(
    file: Annotated[Path, typer.Argument(metavar="FILE.pem", help="New private key file.")],
    passphrase_file: PassphraseFile = None,
    no_passphrase: NoPassphrase = False,
) -> None:
    """Make one key on its holder's own machine; FILE.pub is for the ceremony."""
    terminal = Terminal()
    public = file.with_suffix(".pub")
    if public.exists():
        raise PolicyError("conflict", f"{public} exists already and is never overwritten")
    signer = keys.generate()
    keys.write(signer, file, terminal.new_passphrase(passphrase_file, none=no_passphrase))
    write_atomically(public, keys.public_document(signer.public_key))
    terminal.say(f"private {file}", f"public  {public}, key id {signer.public_key.keyid}")


@app.command()
def pack(
    tree: Annotated[Path, typer.Argument(help="Directory to pack, or one file to take as it is (raw).")],
    *,
    out: Annotated[Path | None, typer.Option(help="The artifact; default: PACKAGE-VERSION-CLASS.FORMAT.")] = None,
    options_file: Annotated[Path | None, typer.Option("--options", help="Default: fairlead.toml in or by it.")] = None,
    package: Annotated[str | None, typer.Option(help="The package's name.")] = None,
    version: Annotated[str | None, typer.Option(help="For people; the counter orders releases.")] = None,
    counter: Annotated[int | None, typer.Option(help="Higher than every release before it.")] = None,
    kind: Annotated[str | None, typer.Option(help="service, files, driver or package.")] = None,
    device_class: Annotated[list[str] | None, typer.Option("--class", help="A device class it fits.")] = None,
    exec_line: Annotated[str | None, typer.Option("--exec", help="Program and arguments, in shell quoting.")] = None,
    check_http: Annotated[str | None, typer.Option(help="http://127.0.0.1:PORT/path; well means 2xx.")] = None,
    check_exec: Annotated[str | None, typer.Option(help="Program in the tree; exit status 0 is well.")] = None,
    check_interval_s: Annotated[int | None, typer.Option("--check-interval", help="Seconds between checks.")] = None,
    check_timeout_s: Annotated[int | None, typer.Option("--check-timeout", help="Seconds a check may take.")] = None,
    check_failures: Annotated[int | None, typer.Option(help="Failures in a row that are too many.")] = None,
    stop_s: Annotated[int | None, typer.Option("--stop-s", help="Seconds the program gets to stop.")] = None,
    text: Annotated[str | None, typer.Option(help="What is new, for people.")] = None,
    part: Annotated[str | None, typer.Option(help="Its name, where a release has several for one class.")] = None,
    unit: Annotated[str | None, typer.Option(help="A systemd unit in the tree.")] = None,
    unit_scope: Annotated[str | None, typer.Option(help="Whose unit: system or user.")] = None,
    load: Annotated[
        bool | None, typer.Option(help="A driver: load it at every boot, or where it is asked for.")
    ] = None,
    level: Annotated[int, typer.Option(min=1, max=19, help="zstd level.")] = packing.LEVEL,
    as_json: AsJson = False,
) -> None:
    """Make an artifact of a tree: the same tree gives the same bytes."""
    if not tree.exists():
        raise PolicyError("bad-request", f"{tree}: No such file or directory")
    path = options_file or pack_options.find(tree)
    options = pack_options.read(path) if path is not None else {}
    check = dict(options.get("check", {})) if not (check_http or check_exec) else {}
    check |= _given(http=check_http, exec=check_exec)
    check |= _given(interval_s=check_interval_s, timeout_s=check_timeout_s, failures=check_failures)
    given = _given(package=package, version=version, counter=counter, kind=kind, stop_s=stop_s, text=text, part=part)
    given |= _given(classes=device_class, exec=_words(exec_line), check=check or None)
    given |= _given(unit=options.get("unit", {}) | _given(file=unit, scope=unit_scope) or None)
    given |= _given(driver=options.get("driver", {}) | _given(load=load) or None)
    spec = pack_options.spec_of(options | given)
    suffix = "tar.zst" if tree.is_dir() else "raw"
    name = "-".join([spec.package, spec.version, *([spec.part] if spec.part else []), "+".join(sorted(spec.classes))])
    place = out or Path(f"{name}.{suffix}")
    found = packing.pack(tree, place, spec, level=level)
    terminal = Terminal()
    if as_json:
        terminal.show(to_value(found) | {"artifact": str(place)})
        return
    needs = debian.needs_lines(tree, spec.repository) if spec.kind == "package" else []
    terminal.say(f"packed {place}", *release_lines(found.custom, found.length, found.sha256), *needs)


@app.command()
def add(
    directory: FleetDir,
    artifacts: Annotated[list[Path], typer.Argument(metavar="ARTIFACT...", help="What `pack` made.")],
    targets_days: TargetsDays = _EXPIRY.targets_days,
) -> None:
    """Put artifacts into the draft of the catalogue."""
    terminal = Terminal()
    fleet = Fleet(directory)
    for path in artifacts:
        found = catalogue.add(fleet, path, now_s=time.time(), expiry=Expiry(targets_days=targets_days))
        terminal.say(f"added {found.path}")
    _next_step(terminal, directory)


@app.command()
def remove(directory: FleetDir, package: str, version: str, targets_days: TargetsDays = _EXPIRY.targets_days) -> None:
    """Take a release out of the draft of the catalogue."""
    terminal = Terminal()
    expiry = Expiry(targets_days=targets_days)
    gone = catalogue.remove(Fleet(directory), package, version, now_s=time.time(), expiry=expiry)
    terminal.say(*(f"removed {path}" for path in gone))
    _next_step(terminal, directory)


@app.command()
def floor(directory: FleetDir, package: str, counter: int, targets_days: TargetsDays = _EXPIRY.targets_days) -> None:
    """Let no device install anything of PACKAGE below COUNTER, recall or not."""
    terminal = Terminal()
    expiry = Expiry(targets_days=targets_days)
    catalogue.set_floor(Fleet(directory), package, counter, now_s=time.time(), expiry=expiry)
    terminal.say(f"floor of {package} is {counter}")
    _next_step(terminal, directory)


@app.command()
def sign(
    directory: FleetDir,
    key: Annotated[list[Path], typer.Option(help="Private key file; may be given more than once.")],
    passphrase_file: PassphraseFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    expect: Annotated[list[str] | None, typer.Option(help="Sign only what has this fingerprint.")] = None,
) -> None:
    """Check the drafts, say in words what they allow, and sign them."""
    terminal, fleet = Terminal(), Fleet(directory).known()
    wanted = {"".join(text.split()).lower() for text in expect or ()}

    def confirm(reviewed: Reviewed) -> bool:
        terminal.say(*reviewed.lines, f"fingerprint {reviewed.fingerprint}")
        if wanted and reviewed.fingerprint.replace(" ", "") not in wanted:
            raise PolicyError("conflict", "the fingerprint is not the one that you expect: this is another document")
        return yes or terminal.confirm("Sign this?")

    passphrase = None if passphrase_file is None else read_passphrase(passphrase_file)
    signers = {str(path): terminal.signer(path, passphrase) for path in key}
    _report(terminal, signing.sign_with(fleet, signers, now_s=time.time(), confirm=confirm))


@app.command()
def merge(
    directory: FleetDir,
    drafts: Annotated[list[Path], typer.Argument(metavar="DRAFT...", help="Another holder's copy of draft/*.json.")],
) -> None:
    """Take the signatures from other holders' copies of a draft."""
    for path in drafts:
        _report(Terminal(), signing.merge(Fleet(directory).known(), path))


@app.command()
def rotate(
    directory: FleetDir,
    *,
    remove_key: Annotated[list[str] | None, typer.Option("--remove", help="Key by name, such as targets-2.")] = None,
    new: Annotated[list[str] | None, typer.Option(help="root or targets: make one key here.")] = None,
    root_key: Annotated[list[Path] | None, typer.Option(help="Public key of a new root holder.")] = None,
    targets_key: Annotated[list[Path] | None, typer.Option(help="Public key of a new targets holder.")] = None,
    online: Annotated[list[str] | None, typer.Option(help="snapshot, timestamp or deployment: replace it.")] = None,
    root_threshold: Annotated[int | None, typer.Option(help="New threshold of root.")] = None,
    targets_threshold: Annotated[int | None, typer.Option(help="New threshold of targets.")] = None,
    passphrase_file: PassphraseFile = None,
    no_passphrase: NoPassphrase = False,
    root_days: RootDays = _EXPIRY.root_days,
) -> None:
    """Draft the next root: keys come, keys go. Old and new root keys must sign it."""
    terminal = Terminal()
    generate = {role: (new or []).count(role) for role in dict.fromkeys(new or [])}
    change = rotation.KeyChange(
        remove=tuple(remove_key or ()),
        generate=generate,
        public={"root": _public(root_key), "targets": _public(targets_key)},
        thresholds=_given(root=root_threshold, targets=targets_threshold),
        online=tuple(dict.fromkeys(online or ())),
    )
    if change == rotation.KeyChange(public=change.public) and not any(change.public.values()):
        raise PolicyError("bad-request", "say which keys change; `renew --root` gives the same root a new expiry")
    passphrase = terminal.new_passphrase(passphrase_file, none=no_passphrase) if generate else None
    expiry = Expiry(root_days=root_days)
    files = rotation.rotate(Fleet(directory), change, now_s=time.time(), passphrase=passphrase, expiry=expiry)
    terminal.say(*(f"new key {path}" for path in files))
    _next_step(terminal, directory)


@app.command()
def renew(
    directory: FleetDir,
    root: Annotated[bool, typer.Option("--root", help="The root instead of the catalogue.")] = False,
    root_days: RootDays = _EXPIRY.root_days,
    targets_days: TargetsDays = _EXPIRY.targets_days,
) -> None:
    """Draft the same catalogue, or the same root, with a new expiry."""
    expiry = Expiry(root_days=root_days, targets_days=targets_days)
    if root:
        rotation.rotate(Fleet(directory), rotation.KeyChange(), now_s=time.time(), expiry=expiry)
    else:
        catalogue.renew(Fleet(directory), now_s=time.time(), expiry=expiry)
    _next_step(Terminal(), directory)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="DIR|ARTIFACT", help="A fleet's directory, or an artifact.")],
    as_json: AsJson = False,
) -> None:
    """Look at everything anew: signatures, digests, sizes, expiry."""
    terminal = Terminal()
    if not path.is_dir():
        found = verifying.verify_artifact(path)
        lines = release_lines(found.custom, found.length, found.sha256)
        terminal.show(to_value(found)) if as_json else terminal.say("the artifact is what is said of it", *lines)
        return
    findings = verifying.verify_fleet(Fleet(path), now_s=time.time())
    problems = [finding for finding in findings if finding.problem is not None]
    if as_json:
        terminal.show({"ok": not problems, "findings": [asdict(finding) for finding in findings]})
    else:
        terminal.say(*(f"ok   {one.subject}: {one.text}" for one in findings if one.problem is None))
        terminal.say(*(f"BAD  {one.subject}: {one.problem}" for one in problems), style="red")
    if problems:
        raise PolicyError("catalogue", f"{len(problems)} of {len(findings)} checks failed")


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="Artifact, description, metadata, envelope, key or fleet directory.")],
    as_json: AsJson = False,
) -> None:
    """Say what a file is and what is in it."""
    found = inspection.inspect(path)
    terminal = Terminal()
    terminal.show({"kind": found.kind, **found.document}) if as_json else terminal.say(*found.lines)


@app.command("export-server")
def export_server(
    directory: FleetDir,
    out: Annotated[Path, typer.Option(help="The server's data directory.")],
) -> None:
    """Copy what the server needs: online keys, signed metadata, artifacts. Never an offline key."""
    written = export.export_server(Fleet(directory), out)
    Terminal().say(*(f"wrote {path}" for path in written), f"{out} has what the server needs")


def main() -> None:
    """The console script, with the exit status of `command_line.run`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line and return its exit status."""
    return command_line.run(typer.main.get_command(app), arguments)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _words(line: str | None) -> list[str] | None:
    try:
        return None if line is None else shlex.split(line)
    except ValueError as error:
        raise PolicyError("bad-request", f"--exec: {error}") from None


def _public(paths: list[Path] | None) -> list[Key]:
    """The keys, called as their files are where that can be a name: their holders know them by it."""
    found = ((keys.read_public(path), path.stem) for path in paths or ())
    return [keys.named(key, name) if is_id(name) else key for key, name in found]


def _next_step(terminal: Terminal, directory: Path) -> None:
    terminal.say(f"next: fairlead-firmware sign {directory} --key KEY.pem, until enough have signed")


def _report(terminal: Terminal, results: list[Signed]) -> None:
    for result in results:
        for tally in result.tallies:
            terminal.say(
                f"{tally.keys_of}: {len(tally.signed)} of {tally.threshold} signed ({', '.join(tally.signed)})"
            )
        if result.published is not None:
            terminal.say(f"complete: {result.published}")
        else:
            terminal.say("not complete yet: hand the directory, without offline/ and online/, to the next holder")
