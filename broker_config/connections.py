"""The connections of the embedded broker: accepted, guarded, one for each client id."""

import asyncio
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

from broker_config.amqtt_broker import LISTENER, FleetBroker
from broker_config.guarded_stream import GuardedStream, StreamLimits
from fleet_protocol.ids import shown

_DESCRIPTORS_KEPT: Final = 64
"""File descriptors that are not for clients."""


class Connections:
    """Listens, and hands each well-behaved connection to the broker."""

    def __init__(self, data_dir: Path | None, *, packet_size: int, most: int, complain: Callable[[str], None]) -> None:
        """`most` connections at the same time, fewer where the process may not open as many files."""
        self._limits = StreamLimits(packet_size=packet_size)
        self._most = min(most, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _DESCRIPTORS_KEPT)
        self._complain = complain
        self._broker = FleetBroker(data_dir, complain)
        self._server: asyncio.Server | None = None
        self._open: set[GuardedStream] = set()
        self._by_client: dict[str, GuardedStream] = {}

    async def open(self, host: str, port: int) -> tuple[str, int]:
        """Start the broker and listen; returns the real address. Raises OSError where it is taken."""
        await self._broker.start()
        self._server = await asyncio.start_server(self._accept, host, port)
        name: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return name

    async def close(self) -> None:
        """Stop listening, publish the wills, end every connection."""
        if self._server is not None:
            self._server.close()
        await self._broker.shutdown()
        for stream in list(self._open):
            stream.end()
        await asyncio.gather(*(stream.ended.wait() for stream in self._open))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = GuardedStream(reader, writer, self._limits)
        if len(self._open) >= self._most:
            self._complain(f"full: {self._most} connections are open")
            stream.end()
            return
        self._open.add(stream)
        try:
            await self._serve(stream)
        except Exception as error:  # noqa: BLE001 - whatever a client makes amqtt raise ends that client only
            self._complain(f"client: {type(error).__name__} {shown(str(error))}")
        finally:
            self._open.discard(stream)
            await stream.close()
            stream.ended.set()
            if stream.refusal is not None:
                self._complain(f"{stream.refusal.code}: a client was cut off: {stream.refusal.detail}")

    async def _serve(self, stream: GuardedStream) -> None:
        connect = await stream.greet()
        if connect is None:
            return
        if not connect.client_id:
            await self._broker.external_connected(stream, stream, LISTENER)
            return
        # Section 3.1.4: the newer connection of a client id ends the older one, will and all, before it begins.
        while (older := self._by_client.get(connect.client_id)) is not None:
            older.end()
            await older.ended.wait()
        self._by_client[connect.client_id] = stream
        try:
            await self._broker.external_connected(stream, stream, LISTENER)
        finally:
            del self._by_client[connect.client_id]
