"""Framing of the MongoDB wire protocol: OP_QUERY with OP_REPLY for the greeting of old clients, OP_MSG for the rest.

Source: the MongoDB Wire Protocol and OP_MSG specifications (MongoDB specifications repository, message/OP_MSG.md).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import bson
from bson.codec_options import CodecOptions

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
CHECKSUM_PRESENT, MORE_TO_COME = 1, 2
HEADER = struct.Struct("<iiii")
# Open5GS's documents are a few kilobytes; what is larger is no client of ours.
LARGEST_MESSAGE = 1_048_576
_OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(document_class=dict, tz_aware=True)


class WireError(Exception):
    """Octets that are no message of this protocol: the connection ends."""


@dataclass(frozen=True)
class Command:
    """One command with its database; `reply` says how it wants to be answered."""

    request_id: int
    body: dict[str, Any]
    database: str
    legacy: bool = False
    silent: bool = False


def _document(data: bytes | memoryview) -> dict[str, Any]:
    try:
        return bson.decode(bytes(data), _OPTIONS)
    except (bson.errors.BSONError, ValueError, RecursionError, OverflowError) as error:
        raise WireError(f"a document that is not BSON: {type(error).__name__}") from None


def _document_at(body: memoryview, offset: int) -> tuple[dict[str, Any], int]:
    if offset + 5 > len(body):
        raise WireError("a document is cut off")
    (size,) = struct.unpack_from("<i", body, offset)
    if size < 5 or offset + size > len(body):
        raise WireError("a document's length is not within its message")
    return _document(body[offset : offset + size]), offset + size


def _name_at(body: memoryview, offset: int) -> tuple[str, int]:
    data = bytes(body[offset:])
    end = data.find(b"\0")
    if end < 0:
        raise WireError("a name does not end")
    try:
        return data[:end].decode(), offset + end + 1
    except UnicodeDecodeError:
        raise WireError("a name is not UTF-8") from None


def parse(request_id: int, opcode: int, payload: bytes) -> Command:
    """A command out of a message's payload (what follows the 16 octets of the header). Raises WireError."""
    body = memoryview(payload)
    if opcode == OP_QUERY:
        if len(body) < 4:
            raise WireError("a query is cut off")
        collection, offset = _name_at(body, 4)
        document, _ = _document_at(body, offset + 8)
        return Command(request_id, document, collection.partition(".")[0], legacy=True)
    if opcode != OP_MSG:
        raise WireError(f"operation {opcode} is not supported")
    if len(body) < 4:
        raise WireError("a message is cut off")
    (flags,) = struct.unpack_from("<I", body, 0)
    if flags & 0xFFFC:
        raise WireError("unknown required flags")
    end = len(body) - (4 if flags & CHECKSUM_PRESENT else 0)
    body = body[:end]
    offset, command, sequences = 4, None, {}
    while offset < end:
        kind = body[offset]
        offset += 1
        if kind == 0:
            if command is not None:
                raise WireError("two bodies in one message")
            command, offset = _document_at(body, offset)
        elif kind == 1:
            if offset + 4 > end:
                raise WireError("a sequence is cut off")
            (size,) = struct.unpack_from("<i", body, offset)
            stop = offset + size
            if size < 5 or stop > end:
                raise WireError("a sequence's length is not within its message")
            name, offset = _name_at(body[:stop], offset + 4)
            documents = []
            while offset < stop:
                document, offset = _document_at(body[:stop], offset)
                documents.append(document)
            sequences[name] = documents
        else:
            raise WireError(f"a section of kind {kind}")
    if command is None:
        raise WireError("a message without a body")
    command.update(sequences)
    return Command(request_id, command, str(command.get("$db", "")), silent=bool(flags & MORE_TO_COME))


def reply(command: Command, document: bytes) -> bytes:
    """The message that answers a command with an encoded document."""
    if command.legacy:
        # responseFlags AwaitCapable, cursor 0, starting from 0, one document.
        payload = struct.pack("<iqii", 8, 0, 0, 1) + document
        return HEADER.pack(16 + len(payload), 0, command.request_id, OP_REPLY) + payload
    payload = b"\0\0\0\0\0" + document
    return HEADER.pack(16 + len(payload), 0, command.request_id, OP_MSG) + payload
