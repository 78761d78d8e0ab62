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
# What a client may send before it has said who it is, where that is asked of it.
LARGEST_GREETING = 16_384
MOST_DOCUMENTS = 1000
_OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(document_class=dict, tz_aware=True)
_INT32 = struct.Struct("<i")


class WireError(Exception):
    """Octets that are no message of this protocol: the connection ends."""


@dataclass(slots=True)
class Command:
    """One command with its database; `legacy` and `silent` say how it wants to be answered."""

    request_id: int
    name: str
    body: dict[str, Any]
    database: str
    legacy: bool = False
    silent: bool = False


def _document(data: bytes) -> dict[str, Any]:
    try:
        return bson.decode(data, _OPTIONS)
    except Exception as error:  # the codec raises a dozen kinds over hostile octets
        raise WireError(f"a document that is not BSON: {type(error).__name__}") from None


def _document_at(body: bytes, offset: int, end: int) -> tuple[dict[str, Any], int]:
    if offset + 5 > end:
        raise WireError("a document is cut off")
    (size,) = _INT32.unpack_from(body, offset)
    if size < 5 or offset + size > end:
        raise WireError("a document's length is not within its message")
    return _document(body[offset : offset + size]), offset + size


def _name_at(body: bytes, offset: int, end: int) -> tuple[str, int]:
    stop = body.find(b"\0", offset, end)
    if stop < 0:
        raise WireError("a name does not end")
    try:
        return body[offset:stop].decode(), stop + 1
    except UnicodeDecodeError:
        raise WireError("a name is not UTF-8") from None


def _query(request_id: int, body: bytes) -> Command:
    if len(body) < 4:
        raise WireError("a query is cut off")
    collection, offset = _name_at(body, 4, len(body))
    document, _ = _document_at(body, offset + 8, len(body))
    # Some clients wrap the command to give a read preference with it.
    wrapped = document.get("$query")
    document = wrapped if isinstance(wrapped, dict) else document
    return Command(request_id, next(iter(document), ""), document, collection.partition(".")[0], legacy=True)


def parse(request_id: int, opcode: int, body: bytes) -> Command:
    """A command out of a message's payload (what follows the 16 octets of the header). Raises WireError.

    A checksum is left out of account: TCP or TLS has already made sure of what it protects.
    """
    if opcode == OP_QUERY:
        return _query(request_id, body)
    if opcode != OP_MSG:
        raise WireError(f"operation {opcode} is not supported")
    if len(body) < 4:
        raise WireError("a message is cut off")
    (flags,) = _INT32.unpack_from(body, 0)
    if flags & 0xFFFC:
        raise WireError("unknown required flags")
    end = len(body) - (4 if flags & CHECKSUM_PRESENT else 0)
    offset = 4
    command: dict[str, Any] | None = None
    sequences: dict[str, Any] = {}
    while offset < end:
        kind = body[offset]
        if kind == 0:
            if command is not None:
                raise WireError("two bodies in one message")
            command, offset = _document_at(body, offset + 1, end)
        elif kind == 1:
            name, documents, offset = _sequence(body, offset + 1, end)
            sequences[name] = documents
        else:
            raise WireError(f"a section of kind {kind}")
    if command is None:
        raise WireError("a message without a body")
    name = next(iter(command), "")
    command.update(sequences)
    return Command(request_id, name, command, str(command.get("$db", "")), silent=bool(flags & MORE_TO_COME))


def _sequence(body: bytes, offset: int, end: int) -> tuple[str, list[dict[str, Any]], int]:
    if offset + 4 > end:
        raise WireError("a sequence is cut off")
    (size,) = _INT32.unpack_from(body, offset)
    stop = offset + size
    if size < 5 or stop > end:
        raise WireError("a sequence's length is not within its message")
    name, offset = _name_at(body, offset + 4, stop)
    documents: list[dict[str, Any]] = []
    while offset < stop:
        document, offset = _document_at(body, offset, stop)
        documents.append(document)
        if len(documents) > MOST_DOCUMENTS:
            raise WireError(f"a sequence of more than {MOST_DOCUMENTS} documents")
    return name, documents, stop


def reply(command: Command, document: bytes) -> bytes:
    """The message that answers a command with an encoded document."""
    if command.legacy:
        # responseFlags AwaitCapable, cursor 0, starting from 0, one document.
        return (
            HEADER.pack(36 + len(document), 0, command.request_id, OP_REPLY)
            + struct.pack("<iqii", 8, 0, 0, 1)
            + document
        )
    return HEADER.pack(21 + len(document), 0, command.request_id, OP_MSG) + b"\0\0\0\0\0" + document
