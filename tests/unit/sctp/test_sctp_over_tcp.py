"""SCTP's sockets over TCP: programs that use libsctp's interface, with the library preloaded."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ports import free_port

HERE = Path(__file__).parent
SOURCE = HERE.parents[2] / "images/sctp/sctp_over_tcp.c"
pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
    pytest.mark.skipif(not Path("/usr/include/netinet/sctp.h").exists(), reason="needs libsctp-dev"),
]
SANITIZED = ("-fsanitize=undefined", "-fno-sanitize-recover=all")
HELLO = b"SoT1" + struct.pack(">IIHH", 0, 0, 0, 1)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The library and the peer, warnings being errors."""
    folder = tmp_path_factory.mktemp("sctp")
    library, peer = folder / "lib.so", folder / "peer"
    flags = ["gcc", "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
    made = [*flags, *SANITIZED, "-fvisibility=hidden", "-fPIC", "-shared", "-o", str(library), str(SOURCE)]
    subprocess.run([*made, "-ldl", "-pthread"], check=True)
    subprocess.run(
        ["gcc", "-std=gnu11", "-O1", "-Wall", "-o", str(peer), str(HERE / "peer.c"), "-l:libsctp.so.1", "-pthread"],
        check=True,
    )
    return library, peer


class Server:
    """The peer as a server; `line` is the next thing that it tells."""

    def __init__(self, programs: tuple[Path, Path], size: int = 1 << 20, subscribed: int = 1) -> None:
        self.library, self.peer = programs
        self.port = free_port()
        self.environment = {"LD_PRELOAD": str(self.library)}
        self.process = subprocess.Popen(
            [str(self.peer), "server", str(self.port), str(size), str(subscribed)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "listening"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def client(self, *lengths: int) -> subprocess.CompletedProcess[str]:
        command = [str(self.peer), "client", str(self.port), *map(str, lengths)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30, check=False)

    @contextlib.contextmanager
    def stranger(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port)) as made:
            made.settimeout(10)
            yield made


@contextlib.contextmanager
def running(programs: tuple[Path, Path], **how: int) -> Iterator[Server]:
    made = Server(programs, **how)
    try:
        yield made
    finally:
        made.process.kill()
        _, err = made.process.communicate()
    assert "runtime error" not in err, err


@pytest.fixture
def server(programs: tuple[Path, Path]) -> Iterator[Server]:
    with running(programs) as made:
        yield made


def message(data: bytes) -> bytes:
    return b"SoT1" + struct.pack(">IIHH", len(data), 60, 1, 0) + data


def preloaded(programs: tuple[Path, Path], code: str, also: str = "") -> str:
    """What a Python program prints that has the library preloaded."""
    return subprocess.run(
        ["python3", "-c", f"import os, socket\n{code}"],
        env={"LD_PRELOAD": f"{programs[0]} {also}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout


def checksum(data: bytes) -> int:
    total = 0
    for octet in data:
        total = (total * 31 + octet) & 0xFFFFFFFF
    return total


def test_messages_keep_their_bounds_order_and_labels(server: Server) -> None:
    done = server.client(1, 5, 70_000, 900_000)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.split("\n")
    assert said[0] == "up 10"
    # The answer of four octets, read in two pieces: only the last piece ends the message.
    assert said[1].startswith("data 2 ") and said[1].endswith(" ppid 60 stream 3 part")
    assert said[2].startswith("data 2 ") and said[2].endswith(" ppid 60 stream 3")
    assert server.line() == "1 up 10"
    for index, length in enumerate((1, 5, 70_000, 900_000)):
        words = ""
        # Without blocking, a message that is still on its way is EAGAIN, and then comes whole.
        while not words.startswith("1 data"):
            words = server.line()
            assert words.startswith(("1 data", "1 again")), words
        data = bytes([ord("a") + index]) * length
        assert words == f"1 data {length} {checksum(data)} ppid 60 stream {index}"
    assert server.line() == "1 lost 10"


def test_associations_of_one_listener_are_apart(server: Server) -> None:
    with server.stranger() as first, server.stranger() as second:
        first.sendall(HELLO)
        assert server.line() == "1 up 10"
        second.sendall(HELLO)
        assert server.line() == "2 up 10"
        first.sendall(b"SoT1" + struct.pack(">IIHH", 3, 60, 1, 0) + b"ab")
        assert server.line() == "1 again"
        second.sendall(b"SoT1" + struct.pack(">IIHH", 2, 60, 2, 0) + b"xy")
        assert server.line() == f"2 data 2 {checksum(b'xy')} ppid 60 stream 2"
        first.sendall(b"c")
        assert server.line() == f"1 data 3 {checksum(b'abc')} ppid 60 stream 1"
    assert {server.line(), server.line()} == {"1 lost 10", "2 lost 10"}


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"SoT1" + struct.pack(">IIHH", 5, 0, 0, 0) + b"early",
        b"SoT1" + struct.pack(">IIHH", 0xFFFFFFFF, 0, 0, 1),
        b"SoT1" + struct.pack(">IIHH", 0, 0, 0, 77),
        b"SoT",
        b"",
    ],
)
def test_a_stranger_never_becomes_an_association(server: Server, octets: bytes) -> None:
    with server.stranger() as made:
        # The program may have had enough, and closed, before all of it is out.
        with contextlib.suppress(OSError):
            made.sendall(octets)
            made.shutdown(socket.SHUT_WR)
        words = server.line()
        while words == "1 again":
            words = server.line()
        # The AMF gives a socket up on this, and would spin on one that only never came up.
        assert words == "1 lost 10"
    assert server.client(4).returncode == 0


@pytest.mark.parametrize(
    "octets",
    [
        b"SoT1" + struct.pack(">IIHH", 1 << 31, 60, 0, 0),
        b"SoT1" + struct.pack(">IIHH", 10, 60, 0, 0) + b"half",
        HELLO,
        b"\0" * 100,
    ],
)
def test_a_peer_that_breaks_the_rules_loses_its_association_and_no_other(server: Server, octets: bytes) -> None:
    with server.stranger() as made:
        made.sendall(HELLO)
        assert server.line() == "1 up 10"
        # The program may have had enough, and closed, before all of it is out.
        with contextlib.suppress(OSError):
            made.sendall(octets)
            made.shutdown(socket.SHUT_WR)
        words = server.line()
        while words == "1 again":
            words = server.line()
        assert words == "1 lost 10"
    assert server.client(4).returncode == 0


def test_other_sockets_are_left_alone(programs: tuple[Path, Path]) -> None:
    code = "import socket; a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1)); socket.socket().close()"
    done = subprocess.run(
        ["python3", "-c", code], env={"LD_PRELOAD": str(programs[0])}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "b'x'\n" and "for laboratories only" in done.stderr


def test_a_connection_reset_still_has_its_peers_address(server: Server) -> None:
    """The AMF looks its gNB up by it, and aborts at a message from an address that it does not know."""
    with server.stranger() as made:
        made.sendall(HELLO)
        assert server.line() == "1 up 10"
        server.process.send_signal(signal.SIGSTOP)
        made.sendall(message(b"last"))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.process.send_signal(signal.SIGCONT)
    assert server.line() == f"1 data 4 {checksum(b'last')} ppid 60 stream 1"
    assert server.line() == "1 lost 10"


def test_poll_tells_of_the_rest_of_a_message_that_did_not_fit(programs: tuple[Path, Path]) -> None:
    with running(programs, size=20) as server, server.stranger() as made:
        made.sendall(HELLO)
        assert server.line() == "1 up 10"
        made.sendall(message(b"a" * 50))
        words = [server.line() for _ in range(3)]
        assert [word.split(" ")[2] for word in words] == ["20", "20", "10"]
        assert [word.endswith(" part") for word in words] == [True, True, False]
        made.sendall(message(b"b" * 20))
        assert server.line() == f"1 data 20 {checksum(b'b' * 20)} ppid 60 stream 1"


def test_who_did_not_subscribe_is_told_nothing_but_data_and_the_end(programs: tuple[Path, Path]) -> None:
    with running(programs, subscribed=0) as server:
        with server.stranger() as made:
            made.sendall(HELLO + message(b"data"))
            words = "1 again"
            while words == "1 again":
                words = server.line()
            assert words == f"1 data 4 {checksum(b'data')} ppid 60 stream 1"
        assert server.line() == "1 end"


def test_two_ends_that_write_to_each_other_go_on_reading(programs: tuple[Path, Path]) -> None:
    library, peer = programs
    done = subprocess.run(
        [str(peer), "both"], env={"LD_PRELOAD": str(library)}, capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "all there\n"


def test_a_child_that_closes_what_it_inherited_leaves_the_association_up(programs: tuple[Path, Path]) -> None:
    code = """
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)
listener.bind(("127.0.0.1", 0))
listener.listen()
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)
client.connect(listener.getsockname())
made, _ = listener.accept()
child = os.fork()
if not child:
    client.close(), made.close(), listener.close()
    os._exit(0)
os.waitpid(child, 0)
client.sendall(b"still up")
print(made.recv(24, socket.MSG_WAITALL)[16:], made.send(b"x"))
"""
    assert preloaded(programs, code) == "b'still up' 1\n"


def test_a_number_that_was_closed_unseen_is_not_taken_for_an_association(programs: tuple[Path, Path]) -> None:
    code = """
descriptor = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).detach()
os.closerange(descriptor, descriptor + 1)
client = socket.socket()
assert client.fileno() == descriptor
listener = socket.create_server(("127.0.0.1", 0))
client.connect(listener.getsockname())
client.close()
print(listener.accept()[0].recv(100))
"""
    assert preloaded(programs, code) == "b''\n"


def test_a_constructor_that_runs_before_the_librarys_can_close(programs: tuple[Path, Path], tmp_path: Path) -> None:
    source, early = tmp_path / "early.c", tmp_path / "early.so"
    source.write_text(
        "#include <fcntl.h>\n#include <unistd.h>\n"
        "__attribute__((constructor)) static void early(void)\n"
        '{ if (close(open("/dev/null", O_RDONLY))) _exit(9); }\n'
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(early), str(source)], check=True)
    assert preloaded(programs, "print('alive')", str(early)) == "alive\n"
