"""The C library nghttp2 as far as our servers and clients need it: HTTP/2's framing, HPACK and state machine (RFC 9113,
RFC 7541).

Bound by cffi at run time, without a compiler. nghttp2 does no input or output by itself.
"""

from __future__ import annotations

import ctypes.util
import functools
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

import cffi

DATA_EOF = 1
CALLBACK_FAILURE = -902
HEADERS, GOAWAY = 1, 7
END_STREAM = 1
# RFC 9113 section 7.
NO_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL = 0x0, 0x2, 0x7, 0x8
# RFC 9113 section 6.5.2.
ENABLE_PUSH, MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE = 2, 3, 6

# nghttp2's array of header fields, its length, and what keeps their octets.
Fields = tuple[Any, int, list[Any]]

ffi = cffi.FFI()
# Octets are `char` here, where the library's header says `uint8_t`: cffi hands them over as bytes without a conversion.
ffi.cdef("""
typedef struct nghttp2_session nghttp2_session;
typedef struct nghttp2_session_callbacks nghttp2_session_callbacks;
typedef struct { size_t length; int32_t stream_id; uint8_t type; uint8_t flags; uint8_t reserved; } nghttp2_frame_hd;
typedef struct { nghttp2_frame_hd hd; } nghttp2_frame;
typedef struct { const char *name; const char *value; size_t namelen; size_t valuelen; uint8_t flags; } nghttp2_nv;
typedef struct { int32_t settings_id; uint32_t value; } nghttp2_settings_entry;
typedef union { int fd; void *ptr; } nghttp2_data_source;
typedef ssize_t (*read_callback)(nghttp2_session *, int32_t, char *, size_t, uint32_t *, nghttp2_data_source *, void *);
typedef struct { nghttp2_data_source source; read_callback read_callback; } nghttp2_data_provider;
typedef int (*frame_callback)(nghttp2_session *, const nghttp2_frame *, void *);
typedef int (*header_callback)(nghttp2_session *, const nghttp2_frame *, const char *, size_t, const char *, size_t,
                               uint8_t, void *);
typedef int (*chunk_callback)(nghttp2_session *, uint8_t, int32_t, const char *, size_t, void *);
typedef int (*close_callback)(nghttp2_session *, int32_t, uint32_t, void *);
const char *nghttp2_strerror(int);
int nghttp2_session_callbacks_new(nghttp2_session_callbacks **);
void nghttp2_session_callbacks_set_on_begin_headers_callback(nghttp2_session_callbacks *, frame_callback);
void nghttp2_session_callbacks_set_on_header_callback(nghttp2_session_callbacks *, header_callback);
void nghttp2_session_callbacks_set_on_data_chunk_recv_callback(nghttp2_session_callbacks *, chunk_callback);
void nghttp2_session_callbacks_set_on_frame_recv_callback(nghttp2_session_callbacks *, frame_callback);
void nghttp2_session_callbacks_set_on_stream_close_callback(nghttp2_session_callbacks *, close_callback);
int nghttp2_session_server_new(nghttp2_session **, const nghttp2_session_callbacks *, void *);
int nghttp2_session_client_new(nghttp2_session **, const nghttp2_session_callbacks *, void *);
void nghttp2_session_del(nghttp2_session *);
ssize_t nghttp2_session_mem_recv(nghttp2_session *, const char *, size_t);
ssize_t nghttp2_session_mem_send(nghttp2_session *, const char **);
int nghttp2_session_want_read(nghttp2_session *);
int nghttp2_session_want_write(nghttp2_session *);
int nghttp2_session_terminate_session(nghttp2_session *, uint32_t);
int nghttp2_submit_settings(nghttp2_session *, uint8_t, const nghttp2_settings_entry *, size_t);
int nghttp2_submit_response(nghttp2_session *, int32_t, const nghttp2_nv *, size_t, const nghttp2_data_provider *);
int32_t nghttp2_submit_request(nghttp2_session *, const void *, const nghttp2_nv *, size_t,
                               const nghttp2_data_provider *, void *);
int nghttp2_submit_rst_stream(nghttp2_session *, uint8_t, int32_t, uint32_t);
""")


def load() -> Any:
    """The library. Raises OSError, with the remedy, where the system has none."""
    name = ctypes.util.find_library("nghttp2") or "libnghttp2.so.14"
    try:
        return ffi.dlopen(name)
    except OSError as error:
        raise OSError(f"the library nghttp2 cannot be loaded ({error}): install it (Debian: libnghttp2-14)") from None


class Sent:
    """What goes out on a stream, and how far it has gone."""

    __slots__ = ("out", "sent")

    def __init__(self, out: bytes = b"") -> None:
        self.out, self.sent = out, 0


class End(Protocol):
    """One end of a connection, as nghttp2 tells it what has come."""

    def begin(self, stream_id: int) -> None:
        """A stream's header fields begin."""

    def header(self, stream_id: int, name: bytes, value: bytes) -> None:
        """A header field."""

    def chunk(self, stream_id: int, data: bytes) -> None:
        """A piece of a body."""

    def whole(self, stream_id: int) -> None:
        """Everything has come on a stream."""

    def end(self, stream_id: int, error: int) -> None:
        """A stream is closed; also one that a GOAWAY leaves out."""

    def goaway(self) -> None:
        """The peer takes no more streams."""

    @abstractmethod
    def outgoing(self, stream_id: int) -> Sent:
        """What a stream sends."""


def _end(user_data: Any) -> End:
    return cast(End, ffi.from_handle(user_data))


def _on_begin_headers(session: Any, frame: Any, user_data: Any) -> int:
    _end(user_data).begin(frame.hd.stream_id)
    return 0


def _on_header(
    session: Any, frame: Any, name: Any, name_length: int, value: Any, length: int, flags: int, user_data: Any
) -> int:
    _end(user_data).header(frame.hd.stream_id, ffi.unpack(name, name_length), ffi.unpack(value, length))
    return 0


def _on_chunk(session: Any, flags: int, stream_id: int, data: Any, length: int, user_data: Any) -> int:
    _end(user_data).chunk(stream_id, ffi.unpack(data, length))
    return 0


def _on_frame(session: Any, frame: Any, user_data: Any) -> int:
    header = frame.hd
    if header.type == GOAWAY:
        _end(user_data).goaway()
    elif header.flags & END_STREAM and header.type <= HEADERS:
        _end(user_data).whole(header.stream_id)
    return 0


def _on_close(session: Any, stream_id: int, error: int, user_data: Any) -> int:
    _end(user_data).end(stream_id, error)
    return 0


def _on_read(session: Any, stream_id: int, buffer: Any, room: int, flags: Any, source: Any, user_data: Any) -> int:
    going = _end(user_data).outgoing(stream_id)
    piece = going.out[going.sent : going.sent + room]
    ffi.memmove(buffer, piece, len(piece))
    going.sent += len(piece)
    if going.sent == len(going.out):
        flags[0] = DATA_EOF
    return len(piece)


def _callback(kind: str, function: Any) -> Any:
    return ffi.callback(kind, function, error=CALLBACK_FAILURE)


# Kept: C holds their addresses only.
_CALLBACKS = {
    "on_begin_headers": _callback("frame_callback", _on_begin_headers),
    "on_header": _callback("header_callback", _on_header),
    "on_data_chunk_recv": _callback("chunk_callback", _on_chunk),
    "on_frame_recv": _callback("frame_callback", _on_frame),
    "on_stream_close": _callback("close_callback", _on_close),
}
_READ = _callback("read_callback", _on_read)
_PROVIDER = ffi.new("nghttp2_data_provider *", {"read_callback": _READ})


@functools.cache
def library() -> tuple[Any, Any]:
    """nghttp2 and its callbacks, once. Raises OSError where the system has none."""
    lib = load()
    made = ffi.new("nghttp2_session_callbacks **")
    if lib.nghttp2_session_callbacks_new(made) != 0:
        raise MemoryError
    for name, function in _CALLBACKS.items():
        getattr(lib, f"nghttp2_session_callbacks_set_{name}_callback")(made[0], function)
    return lib, made[0]


class Session:
    """nghttp2's state of one connection. Not to be used once it is deleted."""

    def __init__(self, end: End, *, server: bool, settings: Mapping[int, int]) -> None:
        """`settings` are those of SETTINGS that are not the protocol's own."""
        self._lib, callbacks = library()
        self._handle = ffi.new_handle(end)
        made = ffi.new("nghttp2_session **")
        new = self._lib.nghttp2_session_server_new if server else self._lib.nghttp2_session_client_new
        if new(made, callbacks, self._handle) != 0:
            raise MemoryError
        self._session: Any = made[0]
        self._out = ffi.new("const char **")
        entries = ffi.new("nghttp2_settings_entry[]", list(settings.items()))
        self._lib.nghttp2_submit_settings(self._session, 0, entries, len(entries))

    def delete(self) -> None:
        self._lib.nghttp2_session_del(self._session)

    def receive(self, data: bytes) -> str | None:
        """Take what has come; in words what is wrong with it. GOAWAY is said then, where that is possible."""
        taken = self._lib.nghttp2_session_mem_recv(self._session, ffi.from_buffer(data), len(data))
        return self._error(taken) if taken < 0 else None

    @property
    def wants_flush(self) -> bool:
        """Whether there is something to say, or nothing to hear any more."""
        lib, session = self._lib, self._session
        return bool(lib.nghttp2_session_want_write(session) or not lib.nghttp2_session_want_read(session))

    def outgoing(self) -> tuple[bytes, bool]:
        """All that there is to say, and whether the connection is at its end then."""
        lib, session, pieces = self._lib, self._session, []
        while (length := lib.nghttp2_session_mem_send(session, self._out)) > 0:
            pieces.append(ffi.unpack(self._out[0], length))
        wants = lib.nghttp2_session_want_read(session) or lib.nghttp2_session_want_write(session)
        return b"".join(pieces), length < 0 or not wants

    def request(self, fields: Fields, *, body: bool) -> int:
        """A request on a new stream: its number. Raises ValueError, with the library's words, where there is none left."""
        stream_id: int = self._lib.nghttp2_submit_request(
            self._session, ffi.NULL, fields[0], fields[1], _PROVIDER if body else ffi.NULL, ffi.NULL
        )
        if stream_id < 0:
            raise ValueError(self._error(stream_id))
        return stream_id

    def respond(self, stream_id: int, fields: Fields, *, body: bool) -> None:
        """A response; the stream is reset where it cannot be sent."""
        code = self._lib.nghttp2_submit_response(
            self._session, stream_id, fields[0], fields[1], _PROVIDER if body else ffi.NULL
        )
        if code != 0:
            self.reset(stream_id, INTERNAL_ERROR)

    def reset(self, stream_id: int, code: int) -> None:
        """RST_STREAM."""
        self._lib.nghttp2_submit_rst_stream(self._session, 0, stream_id, code)

    def terminate(self) -> None:
        """GOAWAY: nothing more is said after it."""
        self._lib.nghttp2_session_terminate_session(self._session, NO_ERROR)

    def _error(self, code: int) -> str:
        return str(ffi.string(self._lib.nghttp2_strerror(code)).decode())


def pairs(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Header fields as nghttp2 takes them."""
    kept, rows = [], []
    for name, value in fields:
        name_at, value_at = ffi.from_buffer("char[]", name), ffi.from_buffer("char[]", value)
        kept += [name_at, value_at]
        rows.append((name_at, value_at, len(name), len(value), 0))
    made = ffi.new("nghttp2_nv[]", rows)
    return made, len(rows), [kept, rows]
