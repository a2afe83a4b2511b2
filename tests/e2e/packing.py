"""OP_COMPRESSED by hand: made and read with the libraries that drivers use."""

from __future__ import annotations

import socket
import struct
import zlib

import bson
import snappy
from backports import zstd

from harness import OP_COMPRESSED, OP_MSG, exactly, frame

# name → id on the wire, compress, decompress
COMPRESSORS = {"snappy": (1, snappy.compress, snappy.uncompress), "zlib": (2, zlib.compress, zlib.decompress), "zstd": (3, zstd.compress, zstd.decompress)}


def compressed(message: bytes, by: str) -> bytes:
    """The message in an OP_COMPRESSED of the same ids."""
    request_id, opcode = struct.unpack("<4xi4xi", message[:16])
    number, compress = COMPRESSORS[by][:2]
    return frame(OP_COMPRESSED, struct.pack("<iiB", opcode, len(message) - 16, number) + compress(message[16:]), request_id)


def receive_any(sock: socket.socket) -> tuple[int, dict, str | None]:
    """One reply, compressed or not: responseTo, the body, and the compressor."""
    length, _, response_to, opcode = struct.unpack("<iiii", exactly(sock, 16))
    rest, by = exactly(sock, length - 16), None
    if opcode == OP_COMPRESSED:
        opcode, size, number = struct.unpack("<iiB", rest[:9])
        by, (_, _, inflate) = next((name, known) for name, known in COMPRESSORS.items() if known[0] == number)
        rest = inflate(rest[9:])
        assert len(rest) == size
    assert opcode == OP_MSG, f"opcode {opcode} in a reply"
    return response_to, bson.decode(rest[5:]), by
