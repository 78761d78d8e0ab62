"""HTTP/1.1 and HTTP/2 on one port: real sockets, the h2 library and raw octets as peers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TypeVar

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.ports import free_port

from mvnobox.service.exchange import Limits, Request, Response
from mvnobox.service.front import Front

E = TypeVar("E")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LIMITS = Limits(body=1000, patience=20_000, streams=20)


class Echo:
    """Says what it got; `/wait` answers when it is let, `/big` with two mebibytes, `/fail` not at all."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.under_way = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        if request.body is None:
            return Response(413)
        if request.path == "/wait":
            self.under_way.set()
            await self.go.wait()
        if request.path == "/fail":
            raise ValueError("secret")
        if request.path == "/none":
            return Response(204)
        if request.path == "/big":
            return Response(200, [], bytes(2 << 20))
        words = f"{request.version} {request.method} {request.path} {request.query} {request.get('x-one')}"
        return Response(200, [("content-type", "text/plain"), ("x-two", "2")], words.encode() + b" " + request.body)


@contextlib.asynccontextmanager
async def serving(limits: Limits = LIMITS) -> AsyncIterator[tuple[int, Echo, asyncio.Task[None], Front]]:
    app, port = Echo(), free_port()
    front = Front(app, limits)
    task = asyncio.ensure_future(front.serve("127.0.0.1", port))
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                await asyncio.sleep(0)
        writer.close()
    try:
        yield port, app, task, front
    finally:
        app.go.set()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Peer:
    """An HTTP/2 client that does as it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
        )
        self.h2.initiate_connection()

    @classmethod
    async def to(cls, port: int) -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def ask(self, path: str, body: bytes | None = None, *, end: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", "POST" if body else "GET"), (":scheme", "http"), (":authority", "x"), (":path", path)]
        self.h2.send_headers(stream, fields, end_stream=end and not body)
        if body:
            self.h2.send_data(stream, body, end_stream=end)
        return stream

    async def send(self) -> None:
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def until(self, kind: type[E], stream: int | None = None) -> E:
        """The next event of a kind. Raises ConnectionError at the end."""
        async with asyncio.timeout(10):
            while True:
                data = await self.reader.read(65536)
                if not data:
                    raise ConnectionError("closed")
                for event in self.h2.receive_data(data):
                    if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                        return event
                await self.send()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the connection's end."""
    async with asyncio.timeout(10):
        try:
            return await reader.read(-1)
        except ConnectionError:
            return b""


@pytest.mark.parametrize("http2", [False, True])
async def test_both_protocols_on_one_port(http2: bool) -> None:
    async with serving() as (port, *_), httpx.AsyncClient(
        http1=not http2, http2=http2, base_url=f"http://127.0.0.1:{port}"
    ) as client:  # fmt: skip
        answer = await client.post("/a/b?q=1", content=b"body", headers=[("X-One", "1"), ("x-one", "2")])
        version = "2" if http2 else "1.1"
        assert (answer.status_code, answer.text) == (200, f"{version} POST /a/b q=1 1, 2 body")
        assert answer.headers["x-two"] == "2" and answer.http_version == f"HTTP/{version}"
        assert (await client.get("/none")).status_code == 204
        head = await client.head("/a")
        assert (head.status_code, head.content) == (200, b"")
        assert (await client.get("/fail")).status_code == 500
        assert (await client.post("/", content=bytes(5000))).status_code == 413
        assert len((await client.get("/big")).content) == 2 << 20
        assert (await client.get("/again")).status_code == 200


async def test_a_request_that_comes_octet_by_octet() -> None:
    async with serving() as (port, *_):
        for octets in (
            b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for octet in octets:
                writer.write(bytes([octet]))
                await writer.drain()
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
        peer = await Peer.to(port)
        stream = peer.ask("/two", b"abc")
        for octet in peer.h2.data_to_send():
            peer.writer.write(bytes([octet]))
            await peer.writer.drain()
        assert (await peer.until(h2.events.ResponseReceived, stream)).stream_id == stream
        peer.writer.close()


async def test_requests_in_a_row_on_http1_are_answered_in_their_order() -> None:
    async with serving() as (port, *_):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % n for n in range(50)))
        for n in range(50):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert f" /{n} " in (await reader.readexactly(length)).decode()
        writer.close()


async def test_expect_continue_and_close() -> None:
    async with serving() as (port, *_):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\n"
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        writer.write(b"hi")
        assert b"HTTP/1.1 200" in await ended(reader)


@pytest.mark.parametrize("http2", [False, True])
async def test_a_body_without_end_is_refused(http2: bool) -> None:
    """And what else is asked on an HTTP/2 connection is answered."""
    async with serving() as (port, *_):
        if http2:
            peer = await Peer.to(port)
            stream = peer.ask("/", bytes(10_000), end=False)
            for _ in range(2):
                peer.h2.send_data(stream, bytes(10_000))
            await peer.send()
            answer = await peer.until(h2.events.ResponseReceived, stream)
            assert dict(answer.headers or ())[b":status"] == b"413"
            other = peer.ask("/other")
            await peer.send()
            assert (await peer.until(h2.events.StreamEnded, other)).stream_id == other
            peer.writer.close()
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n" + bytes(30_000))
        said = await ended(reader)
        assert said.startswith(b"HTTP/1.1 413") and b"connection: close" in said.lower()


async def test_what_is_no_http_ends_its_connection_only() -> None:
    async with serving() as (port, *_):
        peer = await Peer.to(port)
        waiting = peer.ask("/wait")
        await peer.send()
        for octets in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(octets)
            assert b" 200 " not in await ended(reader)
        for octets in (
            PREFACE[:-1] + b"x",
            PREFACE + b"\xff" * 40,
            PREFACE + b"\x00\x00\x05\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff\xff",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(octets)
            await ended(reader)
        other = peer.ask("/other")
        await peer.send()
        assert (await peer.until(h2.events.StreamEnded, other)).stream_id == other
        assert waiting != other
        peer.writer.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=60)), max_size=8)
)
def test_any_frames(frames: list[tuple[int, int, int, bytes]]) -> None:
    """No order of frames breaks the server; the next connection is served."""

    async def run() -> None:
        async with serving() as (port, *_):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            octets = PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
            for kind, flags, stream, payload in frames:
                octets += len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload
            writer.write(octets)
            writer.write_eof()
            await ended(reader)
            async with httpx.AsyncClient(http1=False, http2=True) as client:
                assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200

    asyncio.run(run())


async def test_resets_by_the_thousand() -> None:
    """CVE-2023-44487: streams that are opened and reset at once. Others are served meanwhile."""
    async with serving() as (port, *_):
        peer = await Peer.to(port)
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                for _ in range(50):
                    peer.h2.reset_stream(peer.ask("/wait"))
                await peer.send()
        async with httpx.AsyncClient(http1=False, http2=True) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200
        peer.writer.close()


async def test_requests_that_do_not_come_whole_are_given_up() -> None:
    async with serving(replace(LIMITS, request_seconds=0.2)) as (port, *_):
        for octets in (b"", b"PRI * H", b"GET / HT", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n12"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(octets)
            assert b"200" not in await ended(reader)
        peer = await Peer.to(port)
        stream = peer.ask("/", b"half", end=False)
        await peer.send()
        assert (await peer.until(h2.events.StreamReset, stream)).error_code == 8
        peer.writer.close()


async def test_an_idle_http1_connection_is_closed() -> None:
    async with serving(replace(LIMITS, idle_seconds=0.2)) as (port, *_):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await ended(reader)).startswith(b"HTTP/1.1 200")


async def test_who_leaves_responses_unread_is_dropped() -> None:
    async with serving(replace(LIMITS, stalled_seconds=0.3)) as (port, _, _, front):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n" * 20)
        peer = await Peer.to(port)
        peer.h2.increment_flow_control_window(1 << 30)
        for _ in range(10):
            peer.h2.increment_flow_control_window((1 << 31) - 1 - 65_535, peer.ask("/big"))
        await peer.send()
        async with asyncio.timeout(20):
            while front.connections:
                await asyncio.sleep(0.02)
        writer.close()
        peer.writer.close()


async def test_more_connections_than_allowed() -> None:
    async with serving(replace(LIMITS, connections=3)) as (port, _, _, front):
        async with asyncio.timeout(10):
            while front.connections:
                await asyncio.sleep(0)
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        async with asyncio.timeout(10):
            while len(front.connections) < 3:
                await asyncio.sleep(0)
        reader, _ = await asyncio.open_connection("127.0.0.1", port)
        assert await ended(reader) == b""
        held[0][1].write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await held[0][0].readline()).startswith(b"HTTP/1.1 200")
        for _, writer in held:
            writer.close()


async def test_requests_under_way_are_answered_at_the_end() -> None:
    async with serving() as (port, app, task, _):
        peer = await Peer.to(port)
        stream = peer.ask("/wait")
        await peer.send()
        await app.under_way.wait()
        app.under_way.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        await app.under_way.wait()
        idle, _ = await asyncio.open_connection("127.0.0.1", port)
        task.cancel()
        assert await ended(idle) == b""
        refused = peer.ask("/late")
        await peer.send()
        assert (await peer.until(h2.events.StreamReset, refused)).error_code == 7
        app.go.set()
        assert (await peer.until(h2.events.StreamEnded, stream)).stream_id == stream
        await ended(peer.reader)
        assert (await ended(reader)).startswith(b"HTTP/1.1 200")
        writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        peer.writer.close()
