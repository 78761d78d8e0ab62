"""The CTF's HTTP/2 client against a server made of the h2 library, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from mvnobox.n4.http2 import LARGEST, Http2, NoResponse

from .conftest import until

Codes = h2.settings.SettingCodes


class Server:
    """Answers `/echo` with what it got, `/later` once it is let; other paths as their names say."""

    def __init__(self) -> None:
        self.connections: list[Served] = []
        self.let = asyncio.Event()
        self.at_once: int | None = None
        self.most = 0
        self.silent = False
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Served(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self.connections:
            connection.transport.abort()


class Served(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.server = server
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.requests: dict[int, tuple[dict[str, str], bytearray]] = {}
        self.open: set[int] = set()
        self.reset: list[int] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.server.connections.append(self)
        self.h2.initiate_connection()
        if self.server.at_once is not None:
            self.h2.update_settings({Codes.MAX_CONCURRENT_STREAMS: self.server.at_once})
        self.say()

    def say(self, *, piece: int = 1 << 20) -> None:
        data = self.h2.data_to_send()
        if not self.transport.is_closing():
            for start in range(0, len(data), piece):
                self.transport.write(data[start : start + piece])

    def data_received(self, data: bytes) -> None:
        if self.server.silent:
            return
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.RequestReceived():
                    self.requests[event.stream_id] = dict(event.headers), bytearray()
                    self.open.add(event.stream_id)
                    self.server.most = max(self.server.most, len(self.open))
                case h2.events.DataReceived():
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    self.requests[event.stream_id][1].extend(event.data)
                case h2.events.StreamReset():
                    self.reset.append(event.stream_id)
                    self.open.discard(event.stream_id)
                case h2.events.StreamEnded():
                    task = asyncio.ensure_future(self.answer(event.stream_id))
                    self.tasks.add(task)
                    task.add_done_callback(self.tasks.discard)
        self.say()

    async def answer(self, stream: int) -> None:
        headers, body = self.requests[stream]
        path = headers[":path"].rpartition("/")[2]
        if path == "later":
            await self.server.let.wait()
        match path:
            case "reset":
                self.h2.reset_stream(stream, 0x2)
            case "close":
                self.transport.abort()
                return
            case "leave":
                # What is under way up to here is answered all the same.
                self.h2.close_connection(last_stream_id=stream)
                self.say()
                return
            case "rubbish":
                self.transport.write(b"\xff" * 64)
                return
            case "interim":
                self.h2.send_headers(stream, [(":status", "103"), ("link", "nowhere")])
                self.h2.send_headers(stream, [(":status", "204"), ("x-one", "1")], end_stream=True)
            case "empty":
                self.h2.send_headers(stream, [(":status", "204")], end_stream=True)
            case "large":
                self.h2.send_headers(stream, [(":status", "200")])
                await self.send(stream, bytes(LARGEST + 1))
            case _:
                fields = [
                    (":status", "201"),
                    ("location", f"/{headers['x-brand']}/1"),
                    ("x-type", headers["content-type"]),
                ]
                self.h2.send_headers(stream, fields)
                await self.send(stream, bytes(body))
        self.open.discard(stream)
        self.say(piece=7 if path == "pieces" else 1 << 20)

    async def send(self, stream: int, body: bytes) -> None:
        """A body as the windows let it, up to its end or the stream's."""
        while stream in self.open:
            room = min(len(body), self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room or not body:
                self.h2.send_data(stream, body[:room], end_stream=room == len(body))
                body = body[room:]
                if not body:
                    return
                self.say()
            await asyncio.sleep(0)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    await made.open()
    yield made
    made.close()


Make = Callable[..., Http2]


@pytest.fixture
async def make(server: Server) -> AsyncIterator[Make]:
    clients = []

    def client(seconds: float = 10.0, path: str = "/api") -> Http2:
        headers = {"Content-Type": "application/json", "X-Brand": "alpha"}
        clients.append(Http2(f"http://127.0.0.1:{server.port}{path}", headers, seconds=seconds))
        return clients[-1]

    yield client
    for one in clients:
        await one.close()


async def test_a_request_goes_out_whole_and_its_response_comes_back(server: Server, make: Make) -> None:
    client = make()
    for body in (b"{}", bytes(40_000), b""):
        response = await client.post("/echo", body)
        assert (response.status, response.body) == (201, body)
        assert response.headers == {"location": "/alpha/1", "x-type": "application/json"}
    ((headers, _), *_) = server.connections[0].requests.values()
    assert headers[":method"] == "POST" and headers[":path"] == "/api/echo" and headers["content-length"] == "2"
    assert len(server.connections) == 1


async def test_a_body_larger_than_the_windows_arrives(make: Make) -> None:
    body = bytes(range(256)) * 2000
    assert (await make().post("/echo", body[:400_000])).body == body[:400_000]


async def test_many_at_once_each_get_their_own(server: Server, make: Make) -> None:
    client = make()
    bodies = [str(number).encode() for number in range(300)]
    responses = await asyncio.gather(*(client.post("/pieces", body) for body in bodies))
    assert [response.body for response in responses] == bodies
    assert len(server.connections) == 1


async def test_no_more_at_once_than_the_server_allows(server: Server, make: Make) -> None:
    server.at_once = 3
    client = make()
    await client.post("/echo", b"")
    asked = [asyncio.ensure_future(client.post("/later", b"x")) for _ in range(20)]
    await until("three of them", lambda: len(server.connections[0].open) == 3)
    # One that waits for its turn may be given up; the others are none the worse.
    asked[10].cancel()
    server.let.set()
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert server.most == 3
    assert [isinstance(one, asyncio.CancelledError) for one in done] == [number == 10 for number in range(20)]


async def test_an_interim_response_is_not_the_response(make: Make) -> None:
    response = await make().post("/interim", b"{}")
    assert (response.status, response.headers, response.body) == (204, {"x-one": "1"}, b"")


@pytest.mark.parametrize("path", ["reset", "close", "rubbish", "large"])
async def test_no_response_is_said_and_the_next_request_is_served(make: Make, path: str) -> None:
    client = make()
    with pytest.raises(NoResponse):
        await client.post(f"/{path}", b"{}")
    assert (await client.post("/empty", b"{}")).status == 204


async def test_the_end_of_a_connection_is_told_to_all_that_wait(server: Server, make: Make) -> None:
    client = make()
    waiting = [asyncio.ensure_future(client.post("/later", b"{}")) for _ in range(5)]
    await until("all of them", lambda: server.connections and len(server.connections[0].open) == 5)
    server.connections[0].transport.abort()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(one, NoResponse) for one in done)


async def test_what_a_leaving_server_has_taken_is_awaited_and_the_rest_goes_elsewhere(
    server: Server, make: Make
) -> None:
    client = make()
    early = asyncio.ensure_future(client.post("/later", b"{}"))
    await until("the first", lambda: server.connections and server.connections[0].open)
    leave = asyncio.ensure_future(client.post("/leave", b"{}"))
    await until("the GOAWAY", lambda: client._connection is not None and not client._connection.usable)
    assert (await client.post("/echo", b"{}")).status == 201
    assert len(server.connections) == 2
    # The h2 library says nothing more after its GOAWAY, so these end with the connection, and no earlier.
    assert not early.done() and not leave.done()
    server.connections[0].transport.close()
    assert {type(one) for one in await asyncio.gather(early, leave, return_exceptions=True)} == {NoResponse}


async def test_a_silent_server_is_given_up_and_a_slow_one_is_not(server: Server, make: Make) -> None:
    client = make(seconds=0.2)
    assert (await client.post("/echo", b"")).status == 201
    with pytest.raises(NoResponse, match="no response within"):
        await asyncio.gather(client.post("/later", b""), *(client.post("/echo", b"") for _ in range(3)))
    await until("the reset", lambda: server.connections[0].reset)
    assert len(server.connections) == 1
    server.silent = True
    with pytest.raises(NoResponse):
        await client.post("/echo", b"")
    server.silent = False
    assert (await client.post("/echo", b"")).status == 201
    assert len(server.connections) == 2


async def test_nobody_there_is_said(make: Make, server: Server) -> None:
    client = make()
    server.close()
    with pytest.raises(NoResponse, match="no connection"):
        await client.post("/echo", b"")


@pytest.mark.parametrize("address", ["ocs:8080", "ftp://ocs", "http://"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="it has to be http://"):
        Http2(address, {}, seconds=1)
