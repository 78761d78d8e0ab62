"""S6a's configurations as a freeDiameter takes them: who gets in with TLS, who without, who not at all."""

from __future__ import annotations

import datetime as dt
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
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

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
TLS_Cred = "{files}/tls.crt", "{files}/tls.key"; TLS_CA = "{files}/ca.crt";
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
CLIENT = """
import socket, ssl, struct, sys
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
        peer.sendall(struct.pack(">IIIII", 1 << 24 | 20 + len(body), 0x80 << 24 | 257, 0, 1, 1) + body)
        answer = peer.recv(4096)
except OSError as error:
    sys.exit(f"turned away: {error}")
if not answer:
    sys.exit("turned away without a word")
codes = [struct.unpack_from(">I", answer, value)[0] for code, _, _, value, _ in codec.split(answer, 20, len(answer)) if code == 268]
print(codes[0])
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


class Authority:
    """Issues certificates, as a host network's would."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> str:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        dated = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        made = dated.add_extension(extension, critical=False).sign(self._key, hashes.SHA256())
        return made.public_bytes(Encoding.PEM).decode()

    def issue(self, host: str) -> dict[str, str]:
        """`tls.crt`, `tls.key` and `ca.crt`."""
        key = ec.generate_private_key(ec.SECP256R1())
        return {
            "tls.crt": self._signed(x509.Name([]), key, x509.SubjectAlternativeName([x509.DNSName(host)])),
            "tls.key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "ca.crt": self.certificate,
        }


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
    for name, text in files.items():
        text = text.replace('LoadExtension = "', f'LoadExtension = "{extensions}/')
        text = text.replace("/etc/mvno-tls", f"{directory}/hss").replace("/etc/mvno/", f"{directory}/")
        (directory / name).write_text(text)
    right, wrong = Authority("Right"), Authority("Wrong")
    hosts = {"hss": epc.hss, "forged": "away.host.example", **{name: f"{name}.host.example" for name in PORTS}}
    for name, host in hosts.items():
        of_name = directory / name
        of_name.mkdir()
        mine = (wrong if name == "forged" else right).issue(host)
        for file, text in mine.items():
            (of_name / file).write_text(text)
        if name in PORTS:
            said = DAEMON.format(
                host=host, plain=PORTS[name] + 100, secured=PORTS[name], files=of_name, extensions=extensions,
                realm=REALM, address=ADDRESS, door=DOORS[name],
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
        files = [str(self.directory / certificate / name) for name in ("tls.crt", "tls.key")]
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", sys.executable, "-c", CLIENT, ADDRESS, host, *files,
             str(self.directory / "hss/ca.crt")],
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
    assert logs.capabilities("away.host.example", "forged").startswith("turned away")


def test_on_accepting_a_certificates_name_is_not_looked_at(logs: Running) -> None:
    """freeDiameter compares names where it dials: whoever has a certificate of the authority may be any listed peer.

    The documents say so. Should this fail with a later freeDiameter, they can promise more.
    """
    await_words(logs["hss"], opened("secured.host.example"))
    assert logs.capabilities("stranger.host.example", "stranger") == "3010"
    assert logs.capabilities("away.host.example", "stranger") == "2001"


def test_a_stranger_with_a_good_certificate_stays_out(logs: Running) -> None:
    await_words(logs["hss"], "Rejected CER from peer 'stranger.host.example'")
    assert not re.search(opened("stranger.host.example"), logs["hss"].read_text())
