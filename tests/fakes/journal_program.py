"""journalctl for devices that are a directory: what the units of `systemd_programs` wrote, one line an entry.

A cursor says how far each unit's log has been read. Standard library only, run with -I -S.
"""

import json
import os
import re
import sys
from pathlib import Path

MATCH = re.compile(r"(?:_SYSTEMD_)?(?:USER_)?UNIT=(.*)")


def entries(logs, offsets, wanted):
    """Every entry after the offsets, with where it ends."""
    for name, path in logs.items():
        at = offsets.get(name, 0)
        for line in path.read_bytes()[at:].splitlines(keepends=True) if not wanted or name in wanted else ():
            at += len(line)
            text = line.decode(errors="replace").rstrip("\n")
            level = re.match(r"<(\d)>", text)
            field = "_SYSTEMD_USER_UNIT" if path.parent.name == "user" else "_SYSTEMD_UNIT"
            entry = {"MESSAGE": text[3:] if level else text, "PRIORITY": level[1] if level else "6", field: name}
            yield name, at, entry | {"_UID": str(os.getuid())}


def main(root, arguments):
    options = dict(word[2:].partition("=")[::2] for word in arguments if word.startswith("--"))
    wanted = {match[1] for word in arguments if (match := MATCH.match(word))}
    logs = {path.name: path for path in sorted((root / "var/log/fake").glob("*/*"))}
    since = json.loads(options["after-cursor"]) if "after-cursor" in options else None
    found = list(entries(logs, since or {}, wanted))
    count = min(int(options.get("lines", len(found))), len(found))
    found = found[len(found) - count :] if since is None else found[:count]
    sizes = {name: path.stat().st_size for name, path in logs.items()} if since is None else dict(since)
    for name, at, entry in found:
        sizes[name] = max(at, sizes.get(name, 0))
        line = json.dumps(entry | {"__CURSOR": json.dumps(sizes)})
        sys.stdout.write((entry["MESSAGE"] if options.get("output") == "cat" else line) + "\n")
    return 0


def run():
    sys.exit(main(Path(sys.argv[0]).parents[2], sys.argv[1:]))
