"""Keeps out of the resident what its libraries load and it never uses.

paho imports TLS and the HTTP client at its top, for proxies and `mqtts`; hashlib loads OpenSSL for digests that CPython
has itself. On a device without TLS that is two thirds of the resident's memory. While paho and hashlib are imported
here, placeholders stand in those places; they are taken away at once, so that whoever needs the real module later
gets it. Already imported modules are left alone.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any


def import_paho(*, tls: bool) -> None:
    """Import `paho.mqtt.client` and `hashlib` and no more than the resident needs; to be called before others do."""
    with _standing_in({} if tls else {"_hashlib": None}):
        import hashlib  # noqa: F401, PLC0415 - imported for its effect
    with _standing_in(_unused_by_paho(tls=tls)):
        import paho.mqtt.client  # noqa: F401, PLC0415 - imported for its effect


def _unused_by_paho(*, tls: bool) -> dict[str, ModuleType | None]:
    """None makes the import fail, which paho takes as `not installed`."""
    request = ModuleType("urllib.request")
    return {"socks": None, "urllib.request": request} | ({} if tls else {"ssl": _ssl()})


def _ssl() -> ModuleType:
    """What paho names of `ssl` on a plain connection: two exceptions, never raised."""
    placeholder: Any = ModuleType("ssl")
    placeholder.SSLWantReadError = type("SSLWantReadError", (OSError,), {})
    placeholder.SSLWantWriteError = type("SSLWantWriteError", (OSError,), {})
    module: ModuleType = placeholder
    return module


@contextmanager
def _standing_in(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    absent = {name: module for name, module in modules.items() if name not in sys.modules}
    table: dict[str, Any] = sys.modules  # None is how a module is declared absent
    table.update(absent)
    try:
        yield
    finally:
        for name in absent:
            del table[name]
