"""systemctl for devices that are a directory: run as a program of that name, below a system root.

As far as the agent can tell it is the real one: unit files and drop-ins are read when systemd would read them,
conditions are looked at before every start, what runs is a real process that survives whoever asked for it, ends are
noticed and restarts counted (at the next question, for there is no daemon). Standard library only, run with -I -S.
"""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

LINKS = {"WantedBy": "wants", "RequiredBy": "requires"}
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "s": " "}


def assignments(text):
    """(section, key, value) with continued lines joined and comments dropped."""
    section, held = "", ""
    for line in text.split("\n"):
        if line.lstrip()[:1] in ("#", ";"):
            continue
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        whole, held = (held + line).strip(), ""
        if whole.startswith("["):
            section = whole.strip("[]")
        elif "=" in whole:
            key, _, value = whole.partition("=")
            yield section, key.strip(), value.strip()


def words(line):
    """The words of a line: quotes, escapes and doubled percent signs (systemd.syntax(7))."""
    found, word, quote, at = [], None, "", 0
    while at < len(line):
        character = line[at]
        at += 1
        if character == "\\":
            kind = line[at]
            at += 1
            if kind == "x":
                word, at = (word or "") + chr(int(line[at : at + 2], 16)), at + 2
            else:
                word = (word or "") + ESCAPES[kind]
        elif quote and character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote, word = character, word or ""
        elif not quote and character.isspace():
            found, word = found + ([word] if word is not None else []), None
        else:
            word = (word or "") + character
    return [one.replace("%%", "%") for one in (found + ([word] if word is not None else []))]


class Unit:
    """One unit of one manager."""

    def __init__(self, manager, name):
        self.manager, self.name = manager, name
        self.place = manager.run / f"{name}.json"
        self.loaded = manager.run / f"{name}.loaded"
        self.log = manager.logs / name

    @property
    def file(self):
        return next((d / self.name for d in self.manager.dirs if os.path.lexists(d / self.name)), None)

    @property
    def masked(self):
        found = self.file
        return found is not None and found.is_symlink() and str(found.readlink()) == "/dev/null"

    def text(self):
        """As it was read last: a change on the disk is seen after a daemon-reload."""
        if not self.loaded.exists():
            drop_ins = {}
            for directory in reversed(self.manager.dirs):
                drop_ins.update({path.name: path for path in (directory / f"{self.name}.d").glob("*.conf")})
            read = [] if self.file is None or self.masked else [self.file, *(drop_ins[n] for n in sorted(drop_ins))]
            self.loaded.write_text("\n".join(path.read_text() for path in read))
        return self.loaded.read_text()

    def get(self, section, key, default=""):
        found = [value for s, k, value in assignments(self.text()) if (s, k) == (section, key)]
        return found[-1] if found else default

    def all(self, section, key):
        return [value for s, k, value in assignments(self.text()) if (s, k) == (section, key)]

    @property
    def state(self):
        fresh = {"pid": 0, "restarts": 0, "invocation": "", "result": "success", "status": 0, "active": "inactive"}
        return json.loads(self.place.read_text()) if self.place.exists() else fresh | {"since": 0, "condition": "no"}

    def note(self, **changes):
        part = self.place.with_suffix(".part")
        part.write_text(json.dumps(self.state | changes))
        part.replace(self.place)

    def install(self):
        """Link by what it says."""
        found = self.file
        pairs = [] if found is None else [(k, v) for s, k, v in assignments(found.read_text()) if s == "Install"]
        for key, value in pairs:
            for name in value.split():
                if key == "Alias":
                    yield self.manager.config / name
                elif key in LINKS:
                    yield self.manager.config / f"{name}.{LINKS[key]}" / self.name

    def enablement(self):
        if self.file is None:
            return ""
        if self.masked:
            return "masked"
        for where, suffix in ((self.manager.config, ""), (self.manager.runtime, "-runtime")):
            if any((place / self.name).is_symlink() for place in where.glob("*.[wr]*s")):
                return "enabled" + suffix
        if self.file.is_symlink():
            return "linked"
        return "disabled" if list(self.install()) else "static"

    def settle(self):
        """Notice an end."""
        state = self.state
        if state["active"] != "active" or not state["pid"] or alive(state["pid"]):
            return
        exits = self.place.with_suffix(".exit")
        deadline = time.monotonic() + 10
        while not exits.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        status = int(exits.read_text()) if exits.exists() else 1
        restart = self.get("Service", "Restart", "no")
        kill(state["pid"], signal.SIGKILL)
        if restart == "always" or (restart == "on-failure" and status):
            self.note(pid=0)
            self.launch(restarts=state["restarts"] + 1)
        else:
            active, result = ("failed", "exit-code") if status else ("inactive", "success")
            self.note(pid=0, active=active, result=result, status=status)
        if status:
            self.say(f"{self.name}: Main process exited, status={status}")

    def start(self):
        """Exit status and words of `systemctl start`."""
        if self.file is None:
            return 5, f"Failed to start {self.name}: Unit {self.name} not found."
        if self.masked:
            return 1, f"Failed to start {self.name}: Unit {self.name} is masked."
        if self.state["active"] == "active":
            return 0, ""
        for condition in self.all("Unit", "ConditionPathExists"):
            wanted, path = not condition.startswith("!"), condition.lstrip("!").replace("%%", "%")
            if Path(path).exists() is not wanted:
                self.note(condition="no")
                return 0, ""
        return self.launch(restarts=0)

    def launch(self, restarts):
        argv = words(self.get("Service", "ExecStart").lstrip("-@:+!"))
        self.note(restarts=restarts, invocation=os.urandom(16).hex(), condition="yes", result="success", status=0)
        kind = self.get("Service", "Type", "simple")
        ready = self.listen() if kind == "notify" else None
        environment = {"PATH": "/usr/bin:/bin", "INVOCATION_ID": self.state["invocation"]}
        for line in self.all("Service", "Environment"):
            environment |= dict(word.split("=", 1) for word in words(line))
        environment |= {} if ready is None else {"NOTIFY_SOCKET": ready.getsockname()}
        cwd = self.get("Service", "WorkingDirectory", "/").replace("%%", "%")
        pid = self.spawn(argv, cwd, environment)
        if pid is None:
            self.note(active="failed", result="exit-code", status=203)
            return 1, f"Job for {self.name} failed because the control process exited with error code."
        if kind == "oneshot":
            while alive(pid):
                time.sleep(0.005)
            return self.done(pid)
        if ready is not None and not self.is_ready(ready, pid):
            kill(pid, signal.SIGKILL)
            self.note(pid=0, active="failed", result="timeout")
            return 1, f"Job for {self.name} failed because a timeout was exceeded."
        self.note(pid=pid, active="active", since=int(time.monotonic() * 1e6))
        self.say(f"Started {self.name}.")
        return 0, ""

    def done(self, pid):
        exits = self.place.with_suffix(".exit")
        while not exits.exists():
            time.sleep(0.005)
        status = int(exits.read_text())
        active = "failed" if status else ("active" if self.get("Service", "RemainAfterExit") == "yes" else "inactive")
        self.note(pid=0, active=active, result="exit-code" if status else "success", status=status)
        return (1, f"Job for {self.name} failed.") if status else (0, "")

    def listen(self):
        import socket

        path = self.manager.run / f"{self.name}.notify"
        path.unlink(missing_ok=True)
        ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ready.bind(str(path))
        return ready

    def is_ready(self, ready, pid):
        ready.settimeout(float(self.get("Service", "TimeoutStartSec", "90")))
        with suppress(OSError):
            return b"READY=1" in ready.recv(4096)
        return False

    def spawn(self, argv, cwd, environment):
        """The program in a session of its own, under somebody who waits for its end; None where it can not be run."""
        import subprocess

        exits = self.place.with_suffix(".exit")
        exits.unlink(missing_ok=True)
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.setsid()
            (self.manager.run / f"{self.name}.{os.getpid()}.watcher").touch()
            os.chdir("/")
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                process = subprocess.Popen(
                    argv,
                    cwd=cwd,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError:
                os.write(writing, b"-")
                os._exit(0)
            os.write(writing, b"%d" % process.pid)
            os.close(writing)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            status = process.wait()
            with suppress(FileNotFoundError):
                part = exits.with_suffix(".status")
                part.write_text(str(status if status >= 0 else 128 - status))
                part.replace(exits)
            os._exit(0)
        os.close(writing)
        answer = os.read(reading, 32)
        return None if answer == b"-" else int(answer)

    def stop(self):
        state = self.state
        pid = state["pid"]
        if pid and alive(pid):
            kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + float(self.get("Service", "TimeoutStopSec", "90"))
            while alive(pid) and time.monotonic() < deadline:
                time.sleep(0.005)
            kill(pid, signal.SIGKILL)
            while alive(pid):
                time.sleep(0.005)
        self.note(pid=0, active="inactive", result="success")

    def say(self, text):
        with self.log.open("a") as log:
            log.write(f"{text}\n")

    def properties(self):
        state = self.state
        load = "masked" if self.masked else ("not-found" if self.file is None else "loaded")
        return {
            "Id": self.name,
            "LoadState": load,
            "UnitFileState": self.enablement(),
            "ActiveState": state["active"],
            "SubState": {"active": "running", "inactive": "dead", "failed": "failed"}[state["active"]],
            "Result": state["result"],
            "Type": self.get("Service", "Type", "simple") if load == "loaded" else "",
            "MainPID": state["pid"],
            "NRestarts": state["restarts"],
            "InvocationID": state["invocation"],
            "ExecMainStatus": state["status"],
            "FragmentPath": self.file or "",
            "User": self.get("Service", "User"),
            "DynamicUser": self.get("Service", "DynamicUser", "no"),
            "ConditionResult": state["condition"],
            "ActiveEnterTimestampMonotonic": state["since"],
        }


class Manager:
    """The system's, or that of the user whose HOME it is."""

    def __init__(self, root, home=None):
        self.root = root
        user = home is not None
        self.config = root / home.lstrip("/") / ".config/systemd/user" if user else root / "etc/systemd/system"
        self.runtime = root / "run/systemd" / ("user" if user else "system")
        kind = "user" if user else "system"
        self.dirs = [self.config, self.runtime, *(root / lib / "systemd" / kind for lib in ("usr/lib", "lib"))]
        self.run, self.logs = root / "run/fake" / kind, root / "var/log/fake" / kind
        for place in (self.run, self.logs):
            place.mkdir(parents=True, exist_ok=True)

    def units(self):
        return [Unit(self, path.name.removesuffix(".json")) for path in sorted(self.run.glob("*.json"))]


def alive(pid):
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def kill(pid, number):
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def show(manager, units, options):
    (wanted,) = [word.partition("=")[2].split(",") for word in options if word.startswith("--property=")]
    blocks = [unit.properties() for unit in units]
    return 0, "\n".join("".join(f"{name}={block[name]}\n" for name in wanted) for block in blocks)


def start(manager, units, options):
    ended = [unit.start() for unit in units]
    return max(status for status, _ in ended), "".join(f"{text}\n" for _, text in ended if text)


def stop(manager, units, options):
    for unit in units:
        if unit.file is None and not unit.state["pid"]:
            return 5, f"Failed to stop {unit.name}: Unit {unit.name} not loaded.\n"
        unit.stop()
    return 0, ""


def enable(manager, units, options):
    for unit in units:
        if unit.file is None:
            return 1, f"Failed to enable unit: Unit file {unit.name} does not exist.\n"
        for link in unit.install():
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to("/" + str(unit.file.relative_to(manager.root)))
    return 0, ""


def daemon_reload(manager, units, options):
    for path in manager.run.glob("*.loaded"):
        path.unlink()
    return 0, ""


def reset_failed(manager, units, options):
    for unit in units:
        active = unit.state["active"]
        unit.note(restarts=0, active="inactive" if active == "failed" else active)
    return 0, ""


def boot(manager, units, options):
    for link in sorted(manager.config.glob("*.target.wants/*")):
        Unit(manager, link.name).start()
    return 0, ""


VERBS = {
    "show": show,
    "start": start,
    "stop": stop,
    "enable": enable,
    "daemon-reload": daemon_reload,
    "reset-failed": reset_failed,
    "boot": boot,
    "show-environment": lambda manager, units, options: (0, ""),
}


def main(root, arguments):
    options = [word for word in arguments if word.startswith("--")]
    verb, *names = [word for word in arguments if not word.startswith("--")] or [""]
    if "--version" in options:
        return 0, "systemd 252 (fake)\n"
    manager = Manager(root, os.environ["HOME"] if "--user" in options else None)
    for unit in manager.units():
        unit.settle()
    if verb not in VERBS:
        return 1, f"Unknown command verb {verb}.\n"
    return VERBS[verb](manager, [Unit(manager, name) for name in names], options)


def run():
    status, output = main(Path(sys.argv[0]).parents[2], sys.argv[1:])
    sys.stdout.write(output)
    sys.stdout.flush()
    os._exit(status)
