"""Keeps out of the agent's processes what their libraries load and they never use: half of the resident's memory.

1. Modules that the standard library and paho import at their top for rare cases are loaded when somebody looks into
   them. Nothing changes for who does. (`importlib.util.LazyLoader` loads them at the next `import` already.)
2. paho imports TLS whether or not it is used, and hashlib loads OpenSSL for digests that CPython has itself. On a
   device without TLS placeholders stand in those two places while paho and hashlib are imported; they are taken away
   at once, so that whoever needs the real modules later gets them.
3. TUF's client imports a downloader of its own, with all of HTTP, TLS and e-mail behind it. The worker that verifies
   documents has another way to them, and a placeholder in that place, taken away at once as well.
4. What is imported already is left alone.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

_RARE: Final = ("inspect", "locale", "shutil", "ipaddress", "uuid")
"""Of dataclasses (for one without a docstring); of subprocess; of our own files; of urllib.parse; of paho."""


class _Rare(ModuleType):
    """Stands for a module until its first attribute is asked for, then has all of them."""

    def __getattr__(self, attribute: str) -> Any:
        name = self.__name__
        if sys.modules.get(name) is self:
            del sys.modules[name]
        real = importlib.import_module(name)
        self.__dict__.update(real.__dict__)
        return getattr(real, attribute)


def make_rare_modules_lazy() -> None:
    """Rule 1; to be called before anything else is imported."""
    for name in _RARE:
        sys.modules.setdefault(name, _Rare(name))


def forget(package: str) -> None:
    """Let go of a package that is needed once; what is imported after it takes its place."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]


def import_paho(*, tls: bool) -> None:
    """Import `paho.mqtt.client` and `hashlib` and no more than the resident needs; to be called before others do."""
    with _standing_in({} if tls else {"_hashlib": None}):
        import hashlib  # noqa: F401, PLC0415 - imported for its effect
    with _standing_in(_unused_by_paho(tls=tls)):
        import paho.mqtt.client  # noqa: F401, PLC0415 - imported for its effect


def import_tuf() -> None:
    """Import `tuf.ngclient` without its downloader: whoever makes an `Updater` brings a fetcher."""
    placeholder: Any = ModuleType("tuf.ngclient.urllib3_fetcher")
    placeholder.Urllib3Fetcher = type("Urllib3Fetcher", (), {})
    with _standing_in({placeholder.__name__: placeholder}):
        import tuf.ngclient  # noqa: F401, PLC0415 - imported for its effect


def _unused_by_paho(*, tls: bool) -> dict[str, ModuleType | None]:
    """None makes the import fail, which paho takes as `not installed`: without `socks` it never looks for a proxy."""
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
