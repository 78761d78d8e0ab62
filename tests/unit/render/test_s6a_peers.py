"""S6a's configurations as a freeDiameter takes them: who gets in with TLS, who without, who not at all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mvnobox.deploy.cluster.pki import CLIENT, SERVER, Authority, Identity
from mvnobox.render import CoreSlice, DiameterPeer, Epc, Images, PlatformPlan, platform_releases
from mvnobox.spec import load_brand

ROOT = Path(__file__).resolve().parents[3]
# Debian's, unpacked: nothing of it is installed.
PACKAGES = ("freediameterd", "freediameter-extensions", "libfdcore6", "libfdproto6", "libidn12", "libsctp1")
REALM = "epc.mnc093.mcc208.3gppnetwork.org"
# Of a device made in a network namespace; freeDiameter does not count the loopback's.
ADDRESS = "192.0.2.1"
# Peers of the host network by what they are like; each listens on a port of its own.
PORTS = {name: 6868 + number for number, name in enumerate(("dialled", "secured", "plain", "bare", "stranger"))}
PEERS = (
    DiameterPeer("dialled.host.example", "host.example", ADDRESS, PORTS["dialled"], tls=True),
    DiameterPeer("secured.host.example", "host.example", tls=True),
    DiameterPeer("plain.host.example", "host.example"),
    DiameterPeer("bare.host.example", "host.example", tls=True),
    DiameterPeer("away.host.example", "host.example", tls=True),
)
DAEMON = """
Identity = "{host}"; Realm = "host.example"; No_SCTP; Port = {plain}; SecPort = {secured}; TcTimer = 1;
TLS_Cred = "{files}/{name}.crt", "{files}/{name}.key"; TLS_CA = "{files}/ca.crt";
LoadExtension = "{extensions}/dict_nasreq.fdx"; LoadExtension = "{extensions}/dict_dcca.fdx";
ConnectPeer = "hss.{realm}" {{ ConnectTo = "{address}"; {door} }};
"""
DOORS = {
    # It is dialled, and dials nobody itself.
    "dialled": "Port = 1; TcTimer = 3600;",
    "secured": "Port = 5868;",
    "plain": "Port = 3868; No_TLS;",
    # It has a certificate to show, and does not.
    "bare": "Port = 3868; No_TLS;",
    "stranger": "Port = 5868;",
}
# Capabilities are asked for under any name with any certificate, which a freeDiameter's own start does not allow.
CER = """
import socket, ssl, sys
from mvnobox.diameter import codec

address, host, crt, key, ca = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.load_verify_locations(ca)
context.load_cert_chain(crt, key)
body = codec.utf8(264, host) + codec.utf8(296, "host.example") + codec.octets(257, b"\\0\\1" + socket.inet_aton(address))
body += codec.u32(266, 0) + codec.utf8(269, "Raw") + codec.u32(258, 0xFFFFFFFF)
try:
    with context.wrap_socket(socket.create_connection((address, 5868), 10)) as peer:
        peer.sendall(codec.message(codec.REQUEST, 257, 0, 1, 1, body))
        answer = peer.recv(4096)
except OSError as error:
    sys.exit(f"turned away: {error}")
if not answer:
    sys.exit("turned away without a word")
print(*(codec.unsigned32(answer, avp) for avp in codec.split(answer, 20, len(answer)) if avp[0] == 268))
"""
DEVICE = (
    f"ip link set lo up; ip link add here type veth peer name there; ip link set there up; "
    f"ip address add {ADDRESS}/24 dev here; ip link set here up\n"
)

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip"))),
    reason="network namespaces need root and iproute2",
)


@pytest.fixture(scope="module")
def freediameter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where freeDiameter's programs are unpacked."""
    there = tmp_path_factory.mktemp("freediameter")
    if not all(map(shutil.which, ("apt-get", "dpkg-deb"))):
        pytest.skip("freeDiameter comes from Debian's packages, and this is no Debian")
    got = subprocess.run(["apt-get", "download", *PACKAGES], cwd=there, capture_output=True, text=True)
    if got.returncode != 0:
        pytest.skip(f"freeDiameter cannot be downloaded: {got.stderr.strip()[:200]}")
    for package in there.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, there], check=True)
    return there


def written(directory: Path, extensions: Path) -> None:
    """The HSS's configuration as rendered, with its mounts here, and a daemon's for each peer."""
    brand = load_brand(ROOT / "brands/silverline.yaml")
    epc = Epc(REALM, (brand.name,), PEERS, tls_secret="hss-tls", host_networks=("192.0.2.0/24",))
    platform = PlatformPlan("dev", Images("a:1", "b:1", "c:1"), core="open5gs", slices=(CoreSlice.of(brand),), epc=epc)
    (files,) = (
        one["files"]
        for release in platform_releases(platform)
        for one in release.values.get("functions", [])
        if one["name"] == "hss"
    )
    right, wrong = Authority(directory / "right"), Authority(directory / "wrong")
    for name, host in {"hss": epc.hss, **{name: f"{name}.host.example" for name in PORTS}}.items():
        right.issue(Identity(name, name, hosts=(host,), usages=(SERVER, CLIENT)))
    wrong.issue(Identity("forged", "forged", hosts=("away.host.example",), usages=(SERVER, CLIENT)))
    for name, text in files.items():
        text = text.replace('LoadExtension = "', f'LoadExtension = "{extensions}/')
        text = text.replace("/etc/mvno-tls/tls.", f"{right.folder}/hss.").replace("/etc/mvno-tls", str(right.folder))
        (directory / name).write_text(text.replace("/etc/mvno/", f"{directory}/"))
    for name, port in PORTS.items():
        said = DAEMON.format(
            name=name, host=f"{name}.host.example", plain=port + 100, secured=port, files=right.folder,
            extensions=extensions, realm=REALM, address=ADDRESS, door=DOORS[name],
        )  # fmt: skip
        (directory / f"{name}.conf").write_text(said)


@dataclass(frozen=True)
class Running:
    """The daemons in one network namespace, the HSS's among them; what each of them says, and where its files are."""

    directory: Path
    process: subprocess.Popen[bytes]

    def __getitem__(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def capabilities(self, host: str, certificate: str) -> str:
        """What the HSS answers to a CER over TLS under a name, with somebody's certificate."""
        files = [f"{self.directory}/{certificate}.{kind}" for kind in ("crt", "key")]
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", sys.executable, "-c", CER, ADDRESS, host, *files,
             f"{self.directory}/right/ca.crt"],
            capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
        return (done.stdout or done.stderr).strip()


@pytest.fixture(scope="module")
def logs(freediameter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("s6a")
    written(directory, freediameter / "usr/lib/freeDiameter")
    names = ("hss", *PORTS)
    daemon = freediameter / "usr/bin/freeDiameterd"
    starts = "".join(f"{daemon} -c {directory}/{name}.conf > {directory}/{name}.log 2>&1 &\n" for name in names)
    (libraries,) = (freediameter / "usr/lib").glob("*-linux-gnu")
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-ec", f"{DEVICE}{starts}wait"],
        env={**os.environ, "LD_LIBRARY_PATH": str(libraries)}, start_new_session=True,
    )  # fmt: skip
    running = Running(directory, process)
    try:
        for name in names:
            await_words(running[name], "libfdproto")
        yield running
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def await_words(log: Path, pattern: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not re.search(pattern, said := log.read_text(errors="replace") if log.exists() else ""):
        assert "shutdown sequence" not in said, f"it ended:\n{said[-6000:]}"
        assert time.monotonic() < deadline, f"{pattern!r} was never said:\n{said[-6000:]}"
        time.sleep(0.1)


def opened(host: str) -> str:
    return rf"-> 'STATE_OPEN'\s+'{re.escape(host)}'"


def test_a_peer_that_the_hss_dials_is_spoken_to_with_tls(logs: Running) -> None:
    await_words(logs["hss"], r"Connected to 'dialled\.host\.example' \(TCP,TLS,")
    await_words(logs["dialled"], opened(f"hss.{REALM}"))


def test_a_peer_dials_with_tls(logs: Running) -> None:
    await_words(logs["secured"], rf"Connected to 'hss\.{re.escape(REALM)}' \(TCP,TLS,")
    await_words(logs["hss"], opened("secured.host.example"))


def test_a_peer_without_tls_goes_on_without(logs: Running) -> None:
    await_words(logs["plain"], rf"Connected to 'hss\.{re.escape(REALM)}' \(TCP,soc")
    await_words(logs["hss"], opened("plain.host.example"))


def test_a_peer_of_tls_is_not_let_in_without(logs: Running) -> None:
    await_words(logs["hss"], "Peer 'bare.host.example' rejected, only TLS-protected connection is whitelisted")
    assert not re.search(opened("bare.host.example"), logs["hss"].read_text())


def test_a_certificate_of_another_authority_opens_nothing(logs: Running) -> None:
    await_words(logs["hss"], opened("secured.host.example"))
    assert logs.capabilities("away.host.example", "wrong/forged").startswith("turned away")


def test_on_accepting_a_certificates_name_is_not_looked_at(logs: Running) -> None:
    """freeDiameter compares names where it dials: whoever has a certificate of the authority may be any listed peer.

    The documents say so. Should this fail with a later freeDiameter, they can promise more.
    """
    await_words(logs["hss"], opened("secured.host.example"))
    assert logs.capabilities("stranger.host.example", "right/stranger") == "3010"
    assert logs.capabilities("away.host.example", "right/stranger") == "2001"


def test_a_stranger_with_a_good_certificate_stays_out(logs: Running) -> None:
    await_words(logs["hss"], "Rejected CER from peer 'stranger.host.example'")
    assert not re.search(opened("stranger.host.example"), logs["hss"].read_text())
