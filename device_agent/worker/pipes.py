"""The worker's end of its pipes.

1. Standard output carries the protocol and nothing else: whatever a library prints goes to standard error.
2. When standard input ends, the resident is gone. The worker then kills its own process group at once, so that
   the next resident never meets the work of the last one.
3. There is no thread before `watch`, so that the request can decide what the whole process may still do.
"""

import base64
import binascii
import json
import os
import queue
import signal
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO

from device_agent.worker import LINE_SIZE
from fleet_protocol.errors import CODES, Fault, TransportError


class Pipes:
    """Reads requests and answers on standard input, writes lines on standard output."""

    def __init__(self, incoming: int, outgoing: BinaryIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._held = bytearray()

    @classmethod
    def of_this_process(cls) -> "Pipes":
        """Takes standard input and output for the protocol (rule 1)."""
        outgoing = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        return cls(0, outgoing)

    def request(self) -> Mapping[str, Any]:
        """The first line; raises ValueError where it is not a request."""
        while self._lines.empty():
            if not self._receive():
                _end()
        request = json.loads(self._lines.get())
        if not isinstance(request, dict) or not {"op", "args", "config"} <= request.keys():
            raise ValueError("the first line is not a request")
        return request

    def watch(self) -> None:
        """Listen from now on, by rule 2; after `request`."""
        threading.Thread(target=self._read, name="stdin", daemon=True).start()

    def want(self, topic: str) -> bytes | None:
        """The retained payload of a topic, or None where the broker holds none; raises TransportError."""
        self._send({"want": topic})
        answer = json.loads(self._lines.get())
        if answer.get("topic") != topic:
            raise ValueError("the answer is for another topic")
        if "code" in answer:
            raise TransportError(_transport_code(answer["code"]), str(answer.get("detail", "")))
        try:
            return None if answer["payload"] is None else base64.b64decode(answer["payload"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"the answer is not base64: {error}") from None

    def progress(self, share: float) -> None:
        """Tell how much is done, 0 to 1."""
        self._send({"progress": round(share, 4)})

    def alive(self) -> None:
        """Tell that the operation goes on."""
        self._send({"alive": True})

    def answer(self, answer: Mapping[str, Any]) -> None:
        """The last line."""
        self._send(answer)

    def _send(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        if len(line) > LINE_SIZE:
            raise ValueError(f"a line of {len(line)} bytes")
        view = memoryview(line)
        while view:
            view = view[self._outgoing.write(view) :]

    def _read(self) -> None:
        while self._receive():
            pass
        _end()

    def _receive(self) -> bool:
        """Take in what is there; False at the end. Not through sys.stdin: its lock would be held when we end."""
        chunk = os.read(self._incoming, 64 * 1024)
        self._held += chunk
        if b"\n" in chunk:
            *lines, self._held = self._held.split(b"\n")
            for line in lines:
                self._lines.put(bytes(line))
        return bool(chunk) and len(self._held) <= LINE_SIZE


def _end() -> None:
    """Rule 2."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _transport_code(code: object) -> str:
    return code if isinstance(code, str) and code in CODES and CODES[code].fault is Fault.TRANSPORT else "unreachable"
