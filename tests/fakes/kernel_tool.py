"""modprobe, rmmod, depmod and dmesg of a device whose kernel is a directory: one program, by the name it is run as.

It is run from `<root>/usr/sbin`, needs the standard library only, and keeps what a kernel would know in `<root>`:
`sys/module/<name>` for each loaded module, `proc/sys/kernel`, and `fake/` for what no real system shows. Modules say in
their `.modinfo` how they behave: `fails` (init returns an error), `oopses`, `panics` (the device is gone), `needs` (a
build of another module, as symbol versions would have it).
"""

import fnmatch
import lzma
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

INFO = re.compile(rb"([a-z]+)=([^\0]*)\0")
NOTE = re.compile(rb"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0.{20}", re.DOTALL)
DIED = 1 << 7


class ToolError(Exception):
    """What the program says when it fails."""


class Machine:
    """The kernel below one root."""

    def __init__(self, root: Path) -> None:
        self.root, self.modules = root, root / "sys/module"
        self.release = (root / "proc/sys/kernel/osrelease").read_text().strip()
        self.tree = root / "lib/modules" / self.release

    def modprobe(self, name: str, *, by_itself: bool = False) -> None:
        """Load a module and what it depends on. What happens by itself heeds the blacklists."""
        name = name.replace("-", "_")
        config = list(self._config())
        if by_itself and ["blacklist", name] in config:
            return
        if (self.modules / name).is_dir():
            return
        for row in config:
            if row[:2] == ["install", name]:
                if row[2:] == ["/bin/false"]:
                    raise ToolError(f"Error running install command '/bin/false' for module {name}: retcode 1")
                return
        index = dict(self._index())
        path = next((path for path in index if name_of(path) == name), None)
        if path is None:
            raise ToolError(f"FATAL: Module {name} not found in directory {self.tree}")
        for needed in index[path]:
            self.modprobe(name_of(needed))
        self.insert(name, read(self.tree / path))

    def insert(self, name: str, data: bytes) -> None:
        """What init_module(2) does."""
        info = {key.decode(): value.decode() for key, value in reversed(INFO.findall(data))}
        if not data.startswith(b"\x7fELF") or info.get("vermagic", "").split(" ")[0] != self.release:
            raise ToolError(f"ERROR: could not insert '{name}': Exec format error")
        needed, _, build = info.get("needs", "").partition(":")
        if needed and (self.modules / needed / "version").read_text().strip() != build:
            self.log(f"{name}: disagrees about version of symbol {needed}_init")
            raise ToolError(f"ERROR: could not insert '{name}': Invalid argument")
        if "panics" in info:
            self._panic()
        if "fails" in info:
            self.log(f"{name}: probe failed with error -19")
            raise ToolError(f"ERROR: could not insert '{name}': No such device")
        if "oopses" in info:
            self.log("BUG: unable to handle page fault")
            tainted = self.root / "proc/sys/kernel/tainted"
            tainted.write_text(f"{int(tainted.read_text()) | DIED}\n")
        self._appear(name, data, info)
        self.log(f"{name} {info.get('version', '')} loaded")

    def _appear(self, name: str, data: bytes, info: dict[str, str]) -> None:
        place = self.modules / name
        (place / "holders").mkdir(parents=True)
        for file in ("version", "srcversion"):
            if file in info:
                (place / file).write_text(f"{info[file]}\n")
        if (note := NOTE.search(data)) is not None:
            (place / "notes").mkdir()
            (place / "notes/.note.gnu.build-id").write_bytes(note[0])
        (place / "fake-depends").write_text(info.get("depends", ""))
        for needed in self._needed(name):
            (self.modules / needed / "holders" / name).touch()
            self.refcnt(needed)
        self.refcnt(name)
        (place / "initstate").write_text("live\n")

    def remove(self, name: str) -> None:
        """What delete_module(2) does."""
        if not (self.modules / name / "initstate").exists():
            raise ToolError(f"ERROR: Module {name} is not currently loaded")
        holders = sorted(path.name for path in (self.modules / name / "holders").iterdir())
        if holders:
            raise ToolError(f"ERROR: Module {name} is in use by: {' '.join(holders)}")
        if self.refcnt(name):
            raise ToolError(f"ERROR: Module {name} is in use")
        needed = self._needed(name)
        place = self.modules / name
        (place / "initstate").unlink()
        for path in sorted(place.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        place.rmdir()
        for other in needed:
            (self.modules / other / "holders" / name).unlink(missing_ok=True)
            self.refcnt(other)
        self.log(f"{name} gone")

    def refcnt(self, name: str) -> int:
        """Modules and live processes that use it; what /sys shows is put right."""
        users = self.root / "fake/users" / name
        live = [path for path in (users.iterdir() if users.is_dir() else ()) if _is_alive(path.name)]
        count = len(live) + len(list((self.modules / name / "holders").iterdir()))
        (self.modules / name / "refcnt").write_text(f"{count}\n")
        return count

    def depmod(self, release: str) -> None:
        """Write modules.dep of what is there: `updates` comes first, as depmod.d has it by default."""
        tree = self.root / "lib/modules" / release
        paths = [path for path in sorted(tree.rglob("*.ko*")) if path.suffix in (".ko", ".xz")]
        found: dict[str, Path] = {}
        rules = [path.read_text().split() for path in self.root.glob("etc/depmod.d/*.conf")]
        preferred = {(rule[1], rule[3]) for rule in rules if rule[0] == "override"}
        for path in sorted(paths, key=lambda path: path.relative_to(tree).parts[0] != "updates"):
            name, directory = name_of(path.name), path.relative_to(tree).parts[0]
            if name not in found or (name, directory) in preferred:
                found[name] = path
        rows = []
        for path in found.values():
            info = dict(reversed(INFO.findall(read(path))))
            needed = [found[name] for name in info.get(b"depends", b"").decode().split(",") if name in found]
            rows.append(" ".join([f"{path.relative_to(tree)}:", *(str(other.relative_to(tree)) for other in needed)]))
        (tree / "modules.dep.new").write_text("".join(f"{row}\n" for row in rows))
        (tree / "modules.dep.new").replace(tree / "modules.dep")

    def boot(self) -> None:
        """What comes by itself: modules-load.d, and modules that devices ask for."""
        lists = sorted(self.root.glob("etc/modules-load.d/*.conf"))
        wanted = [line for path in lists for line in path.read_text().splitlines()]
        devices = [path.read_text().strip() for path in self.root.glob("sys/bus/*/devices/*/modalias")]
        for path, _ in self._index():
            aliases = [value.decode() for key, value in INFO.findall(read(self.tree / path)) if key == b"alias"]
            if any(fnmatch.fnmatchcase(device, alias) for device in devices for alias in aliases):
                wanted.append(name_of(path))
        for name in wanted:
            try:
                self.modprobe(name, by_itself=True)
            except ToolError as error:
                self.log(f"systemd-modules-load: {error}")

    def log(self, line: str) -> None:
        """One line of the kernel's log."""
        with (self.root / "fake/kmsg").open("a") as kmsg:
            kmsg.write(f"[    1.000000] {line}\n")

    def _panic(self) -> None:
        """Everything that runs is gone at once, if the test wants that; the test then boots the device."""
        with (self.root / "fake/panics").open("a") as panics:
            panics.write("panic\n")
        if (self.root / "fake/is-booting").exists():
            raise ToolError("the kernel is gone")
        os.killpg(0, signal.SIGKILL)

    def _needed(self, name: str) -> list[str]:
        names = (self.modules / name / "fake-depends").read_text().split(",")
        return [other for other in names if other and (self.modules / other / "holders").is_dir()]

    def _index(self) -> Iterator[tuple[str, list[str]]]:
        place = self.tree / "modules.dep"
        for line in place.read_text().splitlines() if place.is_file() else ():
            path, is_whole, needed = line.partition(":")
            if is_whole and (self.tree / path).is_file():
                yield path, needed.split()

    def _config(self) -> Iterator[list[str]]:
        for path in sorted(self.root.glob("etc/modprobe.d/*.conf")):
            yield from (line.split() for line in path.read_text().splitlines())


def name_of(path: str) -> str:
    """The module in a file."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def read(path: Path) -> bytes:
    """The module in a file, unpacked."""
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _is_alive(pid: str) -> bool:
    """A zombie has nothing open any more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main(program: Path, arguments: list[str]) -> int:
    """Exit status as the real ones have it."""
    machine = Machine(program.parents[2])
    with (machine.root / "fake/calls").open("a") as calls:
        calls.write(" ".join([program.name, *arguments]) + "\n")
    when = _kill_now(machine.root)
    if when == "before":
        os.killpg(0, signal.SIGKILL)
    try:
        match program.name, arguments:
            case "modprobe", [name]:
                machine.modprobe(name)
            case "rmmod", [name]:
                machine.remove(name)
            case "depmod", [release]:
                machine.depmod(release)
            case "dmesg", []:
                sys.stdout.write((machine.root / "fake/kmsg").read_text())
            case _:
                raise ToolError(f"no such use: {arguments}")
    except ToolError as error:
        sys.stderr.write(f"{program.name}: {error}\n")
        return 1
    if when == "torn" and program.name == "depmod":
        index = machine.root / "lib/modules" / arguments[0] / "modules.dep"
        index.write_bytes(index.read_bytes()[: index.stat().st_size // 3])
    if when is not None:
        os.killpg(0, signal.SIGKILL)
    return 0


def _kill_now(root: Path) -> str | None:
    """Whether this is the call at which all that runs shall be gone: before it, after it, or with a torn index."""
    place = root / "fake/kill-at"
    if not place.exists():
        return None
    left, when = place.read_text().split()
    place.write_text(f"{int(left) - 1} {when}")
    return when if left == "1" else None


def run() -> None:
    """The program."""
    sys.exit(main(Path(sys.argv[0]), sys.argv[1:]))
