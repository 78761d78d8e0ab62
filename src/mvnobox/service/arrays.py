"""One-dimensional arrays in PostgreSQL's binary format: what `array_recv` and the elements' receive functions read."""

from __future__ import annotations

import datetime as dt
import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_ARRAY = struct.Struct("!5i")
_NULL = b"\xff\xff\xff\xff"
_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


def _text(value: str) -> bytes:
    octets = value.encode()
    return len(octets).to_bytes(4) + octets


def _int8(value: int) -> bytes:
    return b"\0\0\0\x08" + value.to_bytes(8, signed=True)


def _uuid(value: uuid.UUID) -> bytes:
    return b"\0\0\0\x10" + value.bytes


def _timestamptz(value: dt.datetime) -> bytes:
    return _int8((value - _EPOCH) // _MICROSECOND)


def _bool(value: bool) -> bytes:
    return b"\0\0\0\x01\x01" if value else b"\0\0\0\x01\0"


@dataclass(frozen=True, slots=True)
class Element:
    """A type of elements: its object identifier, that of its arrays, and an element with its length."""

    oid: int
    array: int
    encode: Callable[[Any], bytes]


TEXT = Element(25, 1009, _text)
INT8 = Element(20, 1016, _int8)
UUID = Element(2950, 2951, _uuid)
TIMESTAMPTZ = Element(1184, 1185, _timestamptz)
BOOL = Element(16, 1000, _bool)
INT4 = 23


def array(element: Element, values: Sequence[Any]) -> bytes:
    """All of them in their order; None is null. Raises what a value of another type or out of range causes:
    TypeError, AttributeError, OverflowError, ValueError."""
    encode, count = element.encode, len(values)
    first = values[0] if values else None
    if values.count(first) == count:  # most columns hold one value, or none
        octets = (_NULL if first is None else encode(first)) * count
    else:
        octets = b"".join([_NULL if value is None else encode(value) for value in values])
    # One dimension, nulls are possible, the elements' type, their number, the first one's index.
    return _ARRAY.pack(1, 1, element.oid, count, 1) + octets


def int4(value: int) -> bytes:
    """A single integer. Raises OverflowError."""
    return value.to_bytes(4, signed=True)
