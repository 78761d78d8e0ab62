"""The C library nghttp2 as far as our servers and clients need it: HTTP/2's framing, HPACK and state machine (RFC 9113,
RFC 7541).

Bound by cffi at run time, without a compiler. nghttp2 does no input or output by itself.
"""

from __future__ import annotations

import ctypes.util
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import cffi

DATA_EOF = 1
CALLBACK_FAILURE = -902
HEADERS, GOAWAY = 1, 7
END_STREAM = 1
# RFC 9113 section 7.
NO_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL = 0x0, 0x2, 0x7, 0x8
# RFC 9113 section 6.5.2.
ENABLE_PUSH, MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE = 2, 3, 6

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


def callback(kind: str, function: Callable[..., int]) -> Any:
    """A function that nghttp2 can call; what it raises ends the connection. C holds its address only: keep it."""
    return ffi.callback(kind, function, error=CALLBACK_FAILURE)


class Library:
    """nghttp2 with one end's callbacks, by the names that nghttp2_session_callbacks_set_*_callback has for them."""

    def __init__(self, callbacks: Mapping[str, Any]) -> None:
        """Raises OSError where the system has none."""
        self.lib = load()
        made = ffi.new("nghttp2_session_callbacks **")
        if self.lib.nghttp2_session_callbacks_new(made) != 0:
            raise MemoryError
        self.callbacks, self._kept = made[0], callbacks
        for name, function in callbacks.items():
            getattr(self.lib, f"nghttp2_session_callbacks_set_{name}_callback")(self.callbacks, function)

    def settings(self, session: Any, values: Mapping[int, int]) -> None:
        """Say SETTINGS."""
        entries = ffi.new("nghttp2_settings_entry[]", list(values.items()))
        self.lib.nghttp2_submit_settings(session, 0, entries, len(entries))

    def outgoing(self, session: Any) -> tuple[bytes, bool]:
        """All that a session has to say, and whether its connection is at its end then."""
        lib, pieces, out = self.lib, [], ffi.new("const char **")
        while (length := lib.nghttp2_session_mem_send(session, out)) > 0:
            pieces.append(ffi.unpack(out[0], length))
        wants = lib.nghttp2_session_want_read(session) or lib.nghttp2_session_want_write(session)
        return b"".join(pieces), length < 0 or not wants

    def error(self, code: int) -> str:
        """The library's words for an error."""
        return str(ffi.string(self.lib.nghttp2_strerror(code)).decode())


def pairs(fields: Iterable[tuple[bytes, bytes]]) -> tuple[Any, int, list[Any]]:
    """nghttp2's array of header fields and its length; the last member keeps their octets."""
    kept, rows = [], []
    for name, value in fields:
        name_at, value_at = ffi.from_buffer("char[]", name), ffi.from_buffer("char[]", value)
        kept += [name_at, value_at]
        rows.append((name_at, value_at, len(name), len(value), 0))
    made = ffi.new("nghttp2_nv[]", rows)
    return made, len(rows), [kept, rows]
