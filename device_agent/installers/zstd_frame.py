"""One zstd frame, block by block (RFC 8878).

The library's own readers either return all that an input unpacks to at once, or do not say where a frame ends. Its
blocks unpack to at most 128 KiB each, so walking them bounds the memory and finds the exact end.
"""

from collections.abc import Iterator
from typing import Final

import zstandard

from device_agent.installers.verified_file import VerifiedFile
from fleet_protocol.archive import WINDOW_SIZE
from fleet_protocol.errors import ProtocolError

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_BLOCK_MOST: Final = 128 * 1024
_DICTIONARY_ID: Final = (0, 1, 2, 4)
_CONTENT_SIZE: Final = (0, 2, 4, 8)
_HEAD: Final = 3
_RLE, _RESERVED = 1, 3


def unpack_frame(source: VerifiedFile) -> Iterator[bytes]:
    """The content of exactly one frame, in pieces of at most 128 KiB.

    Raises ProtocolError `format`: not zstd, broken, cut short, a window over WINDOW_SIZE, a dictionary, or
    anything at all after the frame.
    """
    try:
        yield from _unpack(source)
    except zstandard.ZstdError as error:
        raise ProtocolError("format", f"the artifact does not unpack: {error}") from None
    if source.some(1):
        raise ProtocolError("format", "there is data after the end of the compressed frame")


def _unpack(source: VerifiedFile) -> Iterator[bytes]:
    header = _header(source)
    parameters = zstandard.get_frame_parameters(header)
    if parameters.window_size > WINDOW_SIZE or parameters.dict_id:
        raise ProtocolError("format", f"a window of {parameters.window_size} bytes, at most {WINDOW_SIZE} are allowed")
    unpacker = zstandard.ZstdDecompressor(max_window_size=WINDOW_SIZE).decompressobj()
    head = source.exact(_HEAD)
    unpacker.decompress(header + head)
    last = False
    while not last:
        last, size = _block(head)
        content = source.view(size if last else size + _HEAD)  # with the next block's head: one call, no copy
        head = bytes(content[-_HEAD:])
        piece = unpacker.decompress(content) if content else b""  # a last block may be empty, and its head was the end
        if piece:
            yield piece
    if parameters.has_checksum:
        unpacker.decompress(source.exact(4))
    if not unpacker.eof:
        raise ProtocolError("format", "the compressed frame has no end")


def _block(head: bytes) -> tuple[bool, int]:
    """Whether a block is the last one, and how long its content is in the frame."""
    bits = int.from_bytes(head, "little")
    kind, size = bits >> 1 & 3, bits >> 3
    if kind == _RESERVED or size > _BLOCK_MOST:
        raise ProtocolError("format", "a compressed block is not of its form")
    return bool(bits & 1), 1 if kind == _RLE else size


def _header(source: VerifiedFile) -> bytes:
    start = source.exact(5)
    if start[:4] != _MAGIC:
        raise ProtocolError("format", "the artifact is not a zstd frame")
    flags = start[4]
    single = flags >> 5 & 1
    content_size = _CONTENT_SIZE[flags >> 6] or single
    return start + source.exact((1 - single) + _DICTIONARY_ID[flags & 3] + content_size)
