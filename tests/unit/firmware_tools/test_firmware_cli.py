"""The command: a whole ceremony from the outside, and one line for every mistake."""

import errno
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firmware_tools import cli, packing

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """One command line in an empty directory: exit status, standard output, standard error."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def call(*arguments: object) -> tuple[int, str, str]:
        status = cli.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return status, out, err

    return call


@pytest.fixture
def ready(run: Run, tree: Path) -> Run:
    """A fleet in `f`, and a tree with its options file beside its content."""
    (tree / "fairlead.toml").write_text(
        'package = "my-service"\nversion = "1.2.0"\ncounter = 12\nkind = "service"\nclasses = ["x86_64"]\n'
        'exec = ["bin/serve", "--port", "${PORT}"]\n[check]\nhttp = "http://127.0.0.1:${PORT}/health"\n'
    )
    assert run("init", "f", "--fleet", "acme", "--no-passphrase")[0] == 0
    return run


def ok(result: tuple[int, str, str]) -> str:
    status, out, err = result
    assert status == 0, err
    return out


def mistake(result: tuple[int, str, str]) -> str:
    """Exit status 1, or 2 where the command line is wrong, exactly one line, no traceback."""
    status, _, err = result
    assert status == (2 if err.endswith(" (see --help)\n") else 1)
    assert err.startswith("fairlead-firmware: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_a_whole_ceremony(ready: Run, tree: Path) -> None:
    out = ok(ready("pack", tree))
    assert "packed my-service-1.2.0-x86_64.tar.zst" in out
    assert "is well when: GET http://127.0.0.1:${PORT}/health" in out
    artifact = "my-service-1.2.0-x86_64.tar.zst"
    assert "my-service/1.2.0/x86_64.tar.zst" in ok(ready("add", "f", artifact))
    assert "floor of my-service is 3" in ok(ready("floor", "f", "my-service", 3))
    out = ok(ready("sign", "f", "--key", "f/offline/targets-3.pem", "--yes"))
    assert "NEW: my-service 1.2.0, counter 12, service, for x86_64" in out
    assert "1 of 2 signed (targets-3)" in out
    assert "DRAFT of targets 2" in ok(ready("inspect", "f"))
    out = ok(ready("sign", "f", "--key", "f/offline/targets-1.pem", "--yes"))
    assert "complete: f/metadata/2.targets.json" in out
    report = json.loads(ok(ready("verify", "f", "--json")))
    assert report["ok"] is True
    assert "the artifact is what is said of it" in ok(ready("verify", artifact))
    ok(ready("export-server", "f", "--out", "data"))
    assert sorted(path.name for path in Path("data/keys").iterdir()) == [
        "deployment.pem",
        "snapshot.pem",
        "timestamp.pem",
    ]
    assert not [path for path in Path("data").rglob("*") if "root-" in path.name or "targets-" in path.name]
    assert {path.name for path in Path("data/catalogue/metadata").iterdir()} == {
        "1.root.json",
        "1.targets.json",
        "2.targets.json",
    }
    (stored,) = Path("data/artifacts").iterdir()
    assert stored.read_bytes() == Path(artifact).read_bytes()
    assert ok(ready("export-server", "f", "--out", "data")).count("wrote") == 0


def test_rotation_and_renewal(ready: Run) -> None:
    out = ok(
        ready("rotate", "f", "--remove", "targets-2", "--new", "targets", "--no-passphrase", "--online", "snapshot")
    )
    assert "new key f/offline/targets-4.pem" in out
    assert "new key f/online/snapshot-2.pem" in out
    out = ok(ready("sign", "f", "--key", "f/offline/root-1.pem", "--key", "f/offline/root-2.pem", "--yes"))
    assert "NEW KEY targets-4" in out
    assert "REMOVED KEY targets-2" in out
    assert "complete: f/metadata/2.root.json" in out
    assert "1 of 2" not in ok(ready("verify", "f"))
    ok(ready("sign", "f", "--key", "f/offline/targets-1.pem", "--key", "f/offline/targets-4.pem", "--yes"))
    ok(ready("verify", "f"))
    ok(ready("renew", "f"))
    ok(ready("renew", "f", "--root"))
    assert len(json.loads(ok(ready("inspect", "f", "--json")))["drafts"]) == 2
    ok(ready("export-server", "f", "--out", "data"))


def test_a_renewal_takes_nobodys_signature_away(ready: Run) -> None:
    ok(ready("floor", "f", "my-service", 3))
    ok(ready("renew", "f"))
    ok(ready("sign", "f", "--key", "f/offline/targets-1.pem", "--yes"))
    before = Path("f/draft/targets.json").read_bytes()
    assert "is signed by targets-1 and has not expired" in mistake(ready("renew", "f"))
    assert Path("f/draft/targets.json").read_bytes() == before
    ok(ready("rotate", "f", "--remove", "targets-1", "--new", "targets", "--no-passphrase"))
    assert "0 of 2 signed" in ok(ready("inspect", "f"))


def test_holders_at_home(run: Run) -> None:
    for name in ("root-a", "root-b", "targets-a", "targets-b"):
        ok(run("key", f"{name}.pem", "--no-passphrase"))
        assert Path(f"{name}.pem").stat().st_mode & 0o777 == 0o600
    given = ["--root-key", "root-a.pub", "--root-key", "root-b.pub"]
    given += ["--targets-key", "targets-a.pub", "--targets-key", "targets-b.pub"]
    assert "delete it here" not in ok(run("init", "f", "--fleet", "acme", "--keys", 2, *given))
    assert not Path("f/offline").exists()
    assert "may still sign: root-a, root-b" in ok(run("inspect", "f"))
    draft = Path("f/draft/root.json")
    Path("copy.json").write_bytes(draft.read_bytes())
    assert "without offline/ and online/, to the next holder" in ok(run("sign", "f", "--key", "root-a.pem", "--yes"))
    ok(run("sign", "f", "--key", "root-b.pem", "--yes"))
    assert "1.targets.json" in ok(run("sign", "f", "--key", "targets-a.pem", "--key", "targets-b.pem", "--yes"))
    heads = [json.loads(Path(f"targets-{name}.pub").read_bytes())["keyid"][:8] for name in "ab"]
    assert f"2 of 2 must sign: targets-a ({heads[0]}), targets-b ({heads[1]})" in ok(run("inspect", "f"))
    ok(run("key", "new/targets-a.pem", "--no-passphrase"))
    ok(run("key", "Targets C.pem", "--no-passphrase"))
    assert "two keys are called targets-a" in mistake(run("rotate", "f", "--targets-key", "new/targets-a.pub"))
    more = ("--targets-key", "new/targets-a.pub", "--targets-key", "Targets C.pub")
    ok(run("rotate", "f", "--remove", "targets-a", *more))
    out = ok(run("sign", "f", "--key", "root-a.pem", "--key", "root-b.pem", "--yes"))
    assert "NEW KEY targets-a" in out and "NEW KEY targets-2" in out and "REMOVED KEY targets-a" in out


def test_the_fingerprint_that_is_expected(ready: Run) -> None:
    ok(ready("renew", "f"))
    lines = ok(ready("inspect", "f")).splitlines()
    (line,) = [line for line in lines if line.startswith("DRAFT of targets")]
    fingerprint = line.partition("fingerprint ")[2]
    key = ("--key", "f/offline/targets-1.pem", "--yes", "--expect")
    assert "not the one that you expect" in mistake(ready("sign", "f", *key, "0000 1111"))
    ok(ready("sign", "f", *key, fingerprint))


def test_passphrases_come_from_a_file(run: Run, tmp_path: Path) -> None:
    Path("pass").write_text("correct horse battery\n")
    Path("wrong").write_text("other\n")
    ok(run("init", "f", "--fleet", "acme", "--passphrase-file", "pass"))
    assert b"ENCRYPTED" in Path("f/offline/root-1.pem").read_bytes()
    ok(run("renew", "f"))
    key = ("sign", "f", "--key", "f/offline/targets-1.pem", "--yes")
    assert "passphrase" in mistake(run(*key))
    assert "passphrase" in mistake(run(*key, "--passphrase-file", "wrong"))
    ok(run(*key, "--passphrase-file", "pass"))
    assert "encrypted" in ok(run("inspect", "f/offline/root-1.pem"))


def test_options_on_the_command_line_win(ready: Run, tree: Path) -> None:
    options = [
        "--version",
        "2.0",
        "--counter",
        20,
        "--class",
        "aarch64",
        "--class",
        "x86_64",
        "--exec",
        "bin/serve 'a b'",
    ]
    options += ["--check-exec", "bin/serve", "--check-interval", 9, "--stop-s", 3, "--text", "hello", "--json"]
    found = json.loads(ok(ready("pack", tree, *options)))
    custom = found["custom"]
    assert found["artifact"] == "my-service-2.0-aarch64+x86_64.tar.zst"
    assert (custom["version"], custom["counter"], custom["classes"]) == ("2.0", 20, ["aarch64", "x86_64"])
    assert custom["install"] == {
        "exec": ["bin/serve", "a b"],
        "stop_s": 3,
        "check": {"kind": "exec", "target": "bin/serve", "interval_s": 9, "timeout_s": 3, "failures": 3},
    }


def test_a_file_is_packed_raw(run: Run) -> None:
    Path("blob").write_bytes(b"\x00" * 100)
    options = ["--package", "blob", "--version", 1, "--counter", 1, "--kind", "files", "--class", "x86_64"]
    assert "packed blob-1-x86_64.raw" in ok(run("pack", "blob", *options))
    assert "100 bytes" in ok(run("inspect", "blob-1-x86_64.raw.json"))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["init", "f", "--fleet", "acme", "--no-passphrase"], "exists already"),
        (["init", "g", "--fleet", "Not An Id", "--no-passphrase"], "form"),
        (["init", "g", "--fleet", "acme"], "--passphrase-file"),
        (["init", "g", "--fleet", "acme", "--passphrase-file", "absent"], "absent"),
        (["init", "g", "--fleet", "acme", "--threshold", "4", "--no-passphrase"], "4 of 3"),
        (["init", "g", "--fleet", "acme", "--threshold", "x"], "threshold"),
        (["init", "g"], "--fleet"),
        (["init", "g", "--fleet", "acme", "--root-key", "absent.pub"], "absent.pub"),
        (["add", "f", "absent.tar.zst"], "absent.tar.zst"),
        (["add", "nowhere", "absent.tar.zst"], "nowhere is not a fleet directory"),
        (["merge", "nowhere", "absent.json"], "nowhere is not a fleet directory"),
        (["sign", "nowhere", "--key", "absent.pem"], "nowhere is not a fleet directory"),
        (["remove", "f", "my-service", "9"], "not in the catalogue"),
        (["remove", "nowhere", "my-service", "9"], "init"),
        (["floor", "f", "my-service", "-1"], "-1"),
        (["floor", "f", "my-service", "many"], "counter"),
        (["sign", "f", "--key", "absent.pem", "--yes"], "absent.pem"),
        (["sign", "f", "--key", "f/metadata/1.root.json", "--yes"], "not a private key"),
        (["sign", "f", "--key", "f/offline/root-1.pem", "--yes"], "inspect"),
        (["sign", "f"], "--key"),
        (["merge", "f", "absent.json"], "absent.json"),
        (["rotate", "f", "--remove", "nobody"], "nobody"),
        (["rotate", "f", "--online", "root"], "root"),
        (["rotate", "f"], "renew --root"),
        (["rotate", "f", "--root-days", "9"], "renew --root"),
        (["verify", "nowhere"], "nowhere"),
        (["verify", "."], "not a fleet"),
        (["inspect", "nowhere"], "nowhere"),
        (["inspect", "."], "not a fleet"),
        (["pack", "nowhere"], "nowhere: No such file"),
        (["pack", "f", "--package", "p", "--version", "1", "--counter", "1", "--kind", "files"], "classes"),
        (["pack", "f", "--package", "p", "--version", "1", "--counter", "0", "--kind", "files", "--class", "x"], "0"),
        (["pack", "f", "--exec", "'"], "exec"),
        (["export-server", "nowhere", "--out", "d"], "init"),
        (["export-server", "f", "--out", "/proc/nothing"], "/proc"),
        (["frobnicate"], "frobnicate"),
        (["verify"], "Missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(ready: Run, arguments: list[str], word: str) -> None:
    assert word in mistake(ready(*arguments))


TOML_MISTAKES = [
    "package = ",
    "counter = true",
    'counter = "12"',
    "unknown = 1",
    'kind = "image"',
    'classes = "x86_64"',
    "classes = [1]",
    'exec = "bin/serve"',
    "[check]\nhttp = 1",
    '[check]\nhttp = "http://example.org/"',
    '[check]\nhttp = "http://127.0.0.1:1/"\nexec = "x"',
    '[check]\nhttp = "http://127.0.0.1:1/"\ninterval_s = 0',
    '[check]\nhttp = "http://127.0.0.1:1/"\ninterval_s = true',
    '[check]\nexec = "bin/absent"',
    "[[requires]]\npackage = 1",
    '[[requires]]\npackage = "a"\nsha256 = "b"',
]


@pytest.mark.parametrize("line", TOML_MISTAKES)
def test_a_mistake_in_the_options_file_is_one_line(ready: Run, tree: Path, line: str) -> None:
    path = tree / "fairlead.toml"
    name = line.partition(" ")[0]
    kept = [old for old in path.read_text().splitlines() if not old.startswith((name, "[check]", "http"))]
    path.write_text("\n".join([*kept, line]) + "\n")
    mistake(ready("pack", tree))
    assert not list(Path().glob("*.tar.zst"))


def test_inspect_knows_everything_that_we_write(ready: Run, tree: Path) -> None:
    ok(ready("pack", tree, "--out", "a.tar.zst"))
    ok(ready("key", "k.pem", "--no-passphrase"))
    expected = {
        "a.tar.zst": "bin/serve",
        "a.tar.zst.json": "my-service/1.2.0",
        "f/metadata/1.root.json": "root version 1 of fleet acme",
        "f/metadata/1.targets.json": "catalogue version 1",
        "k.pub": "public ed25519 key",
        "k.pem": "NOT encrypted",
        "f": "catalogue version 1",
    }
    for path, text in expected.items():
        assert text in ok(ready("inspect", path))
        assert json.loads(ok(ready("inspect", path, "--json")))["kind"]


def test_a_file_that_is_none_of_ours_is_one_line(run: Run) -> None:
    for number, data in enumerate(
        [b"", b"\0" * 99, b"{}", b"[1]", b"{" * 99, b"\x28\xb5\x2f\xfd", b"-----BEGIN X-----"]
    ):
        path = Path(f"file-{number}")
        path.write_bytes(data)
        assert f"file-{number}" in mistake(run("inspect", path))
    Path("text").write_bytes(b"hello \xff")
    assert "text is no artifact, description" in mistake(run("inspect", "text"))
    Path("x.deb").write_bytes(b"!<arch>\ndebian-binary")
    assert "x.deb is a Debian package: `pack` makes a release of it" in mistake(run("inspect", "x.deb"))


def test_without_a_word_there_is_help(run: Run) -> None:
    status, out, err = run()
    assert (status, err) == (2, "")
    assert "export-server" in out
    assert run("--help") == (0, out, "")
    assert ok(run("--version")) == f"fairlead-firmware {importlib.metadata.version('fairlead')}\n"


@pytest.mark.parametrize("name", ["draft/targets.json", "metadata"])
def test_a_damaged_document_is_named(ready: Run, name: str) -> None:
    path = Path("f/metadata/1.root.json" if name == "metadata" else f"f/{name}")
    if name != "metadata":
        ready("renew", "f")
    path.write_bytes(b"{")
    assert f"f/{name}: " in mistake(ready("renew", "f"))


def test_a_file_that_shrinks_while_it_is_packed_is_said(
    ready: Run, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong in the middle is told, and not what the compressor thinks of half a frame."""
    headers = packing._tar_info

    def shrink(entry: Any) -> Any:
        if not entry.directory:
            entry.source.write_bytes(b"")
        return headers(entry)

    monkeypatch.setattr(packing, "_tar_info", shrink)
    assert "changed while it was packed" in mistake(ready("pack", tree))
    assert not list(Path().glob("*.tar.zst"))


@pytest.mark.parametrize("command", [["key", "k.pem", "--no-passphrase"], ["export-server", "f", "--out", "srv"]])
def test_a_full_disk_is_one_line_and_the_next_try_succeeds(
    ready: Run, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Half a key file would be in the way: an existing one is never overwritten."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "free some space" in mistake(ready(*command))
    ok(ready(*command))


def test_verify_says_what_is_bad(ready: Run, tree: Path) -> None:
    ok(ready("pack", tree, "--out", "a.tar.zst"))
    ok(ready("add", "f", "a.tar.zst"))
    ok(ready("sign", "f", "--key", "f/offline/targets-1.pem", "--key", "f/offline/targets-2.pem", "--yes"))
    (artifact,) = Path("f/artifacts").iterdir()
    artifact.write_bytes(b"something else")
    status, out, err = ready("verify", "f")
    assert (status, err.count("\n")) == (1, 1)
    assert "BAD  my-service/1.2.0/x86_64.tar.zst" in out
    Path("a.tar.zst").write_bytes(b"something else")
    mistake(ready("verify", "a.tar.zst"))


def test_the_console_script_runs_as_a_process(tmp_path: Path) -> None:
    """Without a terminal, with a closed standard input, from another directory."""
    code = "import sys; from firmware_tools.cli import main; sys.argv[0] = 'fairlead-firmware'; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "init", "f", "--fleet", "acme"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parent.parent)},
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "f").exists()
