"""The embedded broker as a child process of this one."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fleet_protocol.errors import PolicyError

_STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class EmbeddedBroker:
    """A running embedded broker; leaving its `with` block ends it. It ends with this process in any case."""

    host: str
    port: int
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, *, host: str = "127.0.0.1", port: int = 0, data_dir: Path | None = None) -> Self:
        """Return once it accepts connections; port 0 lets the kernel choose.

        Raises PolicyError `setup` with the broker's own line where it cannot start (the port is taken).
        """
        command = [sys.executable, "-m", "broker_config.embedded", "--host", host, "--port", str(port)]
        command += [] if data_dir is None else ["--data", str(data_dir)]
        process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process.stdout:
            line = process.stdout.readline()
        if not line:
            process.wait()
            raise PolicyError("setup", f"the embedded broker did not start on {host}:{port}; its reason is above")
        address = json.loads(line)
        return cls(address["host"], address["port"], process)

    @property
    def url(self) -> str:
        """`mqtt://host:port`."""
        return f"mqtt://{self.host}:{self.port}"

    def stop(self) -> None:
        """End it in order, by force after ten seconds; more than once is once."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
