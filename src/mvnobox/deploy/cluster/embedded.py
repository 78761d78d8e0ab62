"""The embedded cluster: a real single-node Kubernetes of this machine's own, made by the roles, run by supervisord."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mvnobox.deploy.ansible import run_role
from mvnobox.deploy.cluster import owner, teardown
from mvnobox.deploy.cluster.pause import ensure_pause_archive, pause_reference
from mvnobox.deploy.cluster.pki import CLIENT, SERVER, Authority, Identity
from mvnobox.deploy.kernel import TUN_REMEDY, tun_trouble
from mvnobox.deploy.paths import cluster_dir, home_dir, project_root
from mvnobox.deploy.report import Reporter
from mvnobox.deploy.toolchain import ensure_tool
from mvnobox.errors import EnvironmentUnfit, Failed

CONTEXT = "mvno-embedded"
NODE_NAME = "mvno-node"
# The node's and the name server's addresses live on an interface of their own: the host's may change.
INTERFACE = "mvno0"
NODE_ADDRESS = "10.97.0.1"
DNS_ADDRESS = "10.96.0.10"
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_PORT = 16443
ETCD_PORT = 12379
RUN_DIR = Path("/run/mvno-box")
HOST_PORTS = {API_PORT: "API server", ETCD_PORT: "etcd", ETCD_PORT + 1: "etcd", 10250: "kubelet", 10256: "kube-proxy"}
MINIMUM_DISK = 6 * 2**30


class EmbeddedCluster:
    """Idempotent: `up` on a healthy cluster only looks; after a kill of everything it starts again with its data."""

    def __init__(self) -> None:
        self.directory = cluster_dir()
        self.kubeconfig = home_dir() / "kubeconfig"

    # What is there -------------------------------------------------------------------------------------------------

    def installed(self) -> bool:
        """Whether a cluster was ever brought up here and not removed."""
        return (self.directory / "supervisord.conf").exists()

    def supervisor_pid(self) -> int | None:
        """The process id of a supervisor that lives."""
        try:
            pid = int((RUN_DIR / "supervisord.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if b"supervisord" in command else None

    def ready(self) -> bool:
        """Whether the API server answers and the node is Ready."""
        if self.supervisor_pid() is None or not self.kubeconfig.exists():
            return False
        node = self.kubectl("get", "node", NODE_NAME, "-o", "json", "--request-timeout=3s", check=False)
        if node.returncode != 0:
            return False
        conditions = {c["type"]: c["status"] for c in json.loads(node.stdout)["status"].get("conditions", [])}
        return conditions.get("Ready") == "True"

    def kubectl(
        self, *arguments: str, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl against this cluster. Raises Failed with its words."""
        done = subprocess.run(
            [str(Path(sys.executable).parent / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise Failed(f"kubectl {' '.join(arguments[:3])}: {done.stderr.strip()}", "see ./mvno status")
        return done

    # Up ------------------------------------------------------------------------------------------------------------

    def up(self, report: Reporter) -> None:
        """Bring the cluster up, whatever state it is in. Raises EnvironmentUnfit or Failed."""
        if os.geteuid() != 0:
            raise EnvironmentUnfit(
                "the embedded cluster needs root (network interfaces, containers)",
                "run as root (sudo ./mvno up), or use a cluster of yours with --cluster CONTEXT",
            )
        if (trouble := tun_trouble()) is not None:
            raise EnvironmentUnfit(f"user planes need TUN devices, and {trouble}", TUN_REMEDY)
        if (other := owner.elsewhere()) is not None:
            raise owner.refusal(other, "up")
        self._check_disk()
        kubernetes = ensure_tool("kubernetes", report)
        coredns = ensure_tool("coredns", report)
        pause = ensure_tool("pause", report)
        fingerprint = self._fingerprint(kubernetes, coredns)
        stamp = self.directory / "fingerprint"
        if stamp.exists() and stamp.read_text() == fingerprint and self.ready():
            return
        if self.supervisor_pid() is None:
            self._check_ports()
            teardown.note_elsewhere(self.directory / "found-before")
            run_role("host", "deploy", {"host_state_dir": str(self.directory)}, report)
        variables = self._variables(kubernetes, coredns)
        self._certificates()
        runtime = {key: variables[key] for key in ("cluster_dir", "run_dir", "pod_cidr")}
        run_role("container_runtime", "deploy", {**runtime, "sandbox_image": pause_reference(pause)}, report)
        changed = run_role("embedded_cluster", "deploy", variables, report)
        with report.task("Starting Kubernetes") as task:
            self._interface()
            if self.supervisor_pid() is None:
                teardown.leftovers(self.directory, RUN_DIR)
                teardown.pod_links(POD_CIDR)
                self._start()
            elif changed:
                self._supervisorctl("reread")
                self._supervisorctl("update")
            self._wait("containerd", 30, lambda: self._ctr("version", check=False).returncode == 0)
            if not self.has_image(pause_reference(pause)):
                self.import_image(ensure_pause_archive(pause))
            task.update("waiting for the API server")
            self._wait("the API server", 90, self._api_ready)
            self.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(self.directory / "bootstrap.yaml"))
            task.update("waiting for the node")
            self._wait("the node", 90, self.ready)
        stamp.write_text(fingerprint)

    def _fingerprint(self, kubernetes: Path, coredns: Path) -> str:
        sha = hashlib.sha256(
            f"{kubernetes}\0{coredns}\0{sys.executable}\0{_upstream_dns()}\0{_agent_digest()}".encode()
        )
        for role in ("host", "container_runtime", "embedded_cluster"):
            for path in sorted((project_root() / "roles" / role).rglob("*")):
                if path.is_file():
                    sha.update(path.read_bytes())
        return sha.hexdigest()

    def _variables(self, kubernetes: Path, coredns: Path) -> dict[str, Any]:
        return {
            "cluster_dir": str(self.directory),
            "run_dir": str(RUN_DIR),
            "kubernetes_binary": str(kubernetes),
            "coredns_binary": str(coredns),
            "python": sys.executable,
            "agent_digest": _agent_digest(),
            "node_name": NODE_NAME,
            "node_address": NODE_ADDRESS,
            "dns_address": DNS_ADDRESS,
            "pod_cidr": POD_CIDR,
            "service_cidr": SERVICE_CIDR,
            "api_port": API_PORT,
            "etcd_port": ETCD_PORT,
            "upstream_dns": _upstream_dns(),
        }

    def _check_disk(self) -> None:
        place = self.directory if self.directory.exists() else self.directory.parent
        free = shutil.disk_usage(place).free
        if free < MINIMUM_DISK:
            raise EnvironmentUnfit(
                f"{place} has {free / 2**30:.1f} GiB free; the embedded cluster takes {MINIMUM_DISK / 2**30:.0f} GiB",
                "make room, or set MVNO_CLUSTER_DIR to a folder on a larger disk",
            )

    def _check_ports(self) -> None:
        for port, what in HOST_PORTS.items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("0.0.0.0", port))
                except OSError:
                    raise EnvironmentUnfit(
                        f"TCP port {port}, which the embedded cluster's {what} needs, is taken{_holder(port)}",
                        "stop that program, or use a cluster of yours with --cluster CONTEXT",
                    ) from None

    def _certificates(self) -> None:
        authority = Authority(self.directory / "pki")
        services = (
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        )
        identities = [
            Identity("apiserver", "kube-apiserver", hosts=(*services, NODE_ADDRESS, "10.96.0.1"), usages=(SERVER,)),
            Identity("etcd", "etcd", hosts=("127.0.0.1", "localhost"), usages=(SERVER, CLIENT)),
            Identity("etcd-client", "kube-apiserver-etcd"),
            Identity("kubelet-server", f"system:node:{NODE_NAME}", hosts=(NODE_NAME, NODE_ADDRESS), usages=(SERVER,)),
            Identity("kubelet-client", "mvno:kubelet-client"),
            Identity("admin", "mvno:admin", ("system:masters",)),
            Identity("kubelet", f"system:node:{NODE_NAME}", ("system:nodes",)),
            Identity("kube-controller-manager", "system:kube-controller-manager"),
            Identity("kube-scheduler", "system:kube-scheduler"),
            Identity("kube-proxy", "system:kube-proxy"),
            Identity("coredns", "mvno:coredns"),
            Identity("agent", "mvno:agent"),
        ]
        for identity in identities:
            authority.issue(identity)
        authority.signing_key("service-accounts")
        server = f"https://{NODE_ADDRESS}:{API_PORT}"
        for name in ("kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns", "agent"):
            authority.kubeconfig(name, server, self.directory / f"{name}.kubeconfig", CONTEXT)
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority.kubeconfig("admin", server, self.kubeconfig, CONTEXT)

    def _interface(self) -> None:
        """The interface that holds the node's addresses: a bridge without ports, as some kernels lack `dummy`."""
        if not Path(f"/sys/class/net/{INTERFACE}").exists():
            _run("ip", "link", "add", INTERFACE, "type", "bridge")
        for address in (NODE_ADDRESS, DNS_ADDRESS):
            _run("ip", "address", "replace", f"{address}/32", "dev", INTERFACE)
        _run("ip", "link", "set", INTERFACE, "up")

    def _start(self) -> None:
        log = self.directory / "logs" / "start.log"
        with open(log, "ab") as out:
            done = subprocess.run(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.directory / "supervisord.conf")],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                check=False,
            )
        if done.returncode != 0:
            raise Failed(f"supervisord did not start: {log.read_text()[-400:]}", f"see {log}")

    def _supervisorctl(self, *arguments: str) -> str:
        conf = str(self.directory / "supervisord.conf")
        return subprocess.run(
            [sys.executable, "-m", "supervisor.supervisorctl", "-c", conf, *arguments],
            capture_output=True,
            text=True,
            check=False,
        ).stdout

    def _api_ready(self) -> bool:
        return self.kubectl("get", "--raw", "/readyz", "--request-timeout=2s", check=False).returncode == 0

    def _wait(self, what: str, seconds: float, condition: Any) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise Failed(
                    f"{what} did not become ready within {seconds:.0f} s:\n{self._supervisorctl('status')}",
                    f"the logs are in {self.directory / 'logs'}",
                )
            time.sleep(0.25)

    # Images --------------------------------------------------------------------------------------------------------

    def _ctr(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["ctr", "--address", str(RUN_DIR / "containerd.sock"), "--namespace", "k8s.io", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise Failed(f"ctr {' '.join(arguments[:2])}: {done.stderr.strip()[-400:]}", "see ./mvno doctor")
        return done

    def has_image(self, reference: str) -> bool:
        """Whether the node has an image of this name."""
        return reference in self._ctr("images", "list", "-q", f"name=={reference}").stdout.split()

    def import_image(self, archive: Path) -> None:
        """Put an OCI or docker archive on the node, under the name that it carries."""
        self._ctr("images", "import", str(archive))

    # Down ----------------------------------------------------------------------------------------------------------

    def down(self, report: Reporter, *, everything: bool = False) -> None:
        """Remove the cluster and its data; with `everything` also the packages that the host role installed."""
        if not self.directory.exists() and not RUN_DIR.exists():
            return
        with report.task("Removing the embedded cluster") as task:
            pid = self.supervisor_pid()
            # The kubelet first: it would start again what is being ended.
            if pid is not None:
                for program in ("kubelet", "kube-controller-manager", "kube-scheduler", "agent"):
                    self._supervisorctl("stop", program)
                task.update("ending containers")
                teardown.end_containers(self._ctr)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                teardown.wait_for_end(pid, 30)
            teardown.leftovers(self.directory, RUN_DIR)
            teardown.pod_links(POD_CIDR)
            teardown.network(INTERFACE)
            teardown.remove_elsewhere(self.directory / "found-before")
        if everything:
            run_role("host", "remove", {"host_state_dir": str(self.directory)}, report)
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            # What the host role has to undo one day.
            records = [self.directory / name for name in ("packages-installed", "sysctls-before")]
            kept = {record: record.read_bytes() for record in records if record.exists()}
            shutil.rmtree(self.directory, ignore_errors=True)
            for record, content in kept.items():
                record.parent.mkdir(parents=True, exist_ok=True)
                record.write_bytes(content)
        shutil.rmtree(RUN_DIR, ignore_errors=True)
        self.kubeconfig.unlink(missing_ok=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}", "run as root on a kernel with these features")


def _agent_digest() -> str:
    """16 hex digits of the node agent's code: another one is started anew."""
    sha = hashlib.sha256()
    for path in sorted((Path(__file__).parents[1] / "agent").glob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def _upstream_dns() -> list[str]:
    """The host's own name servers."""
    servers = []
    with contextlib.suppress(OSError):
        for line in Path("/etc/resolv.conf").read_text().splitlines():
            parts = line.split()
            if len(parts) > 1 and parts[0] == "nameserver" and not parts[1].startswith(("127.", "::1", "fe80")):
                servers.append(parts[1])
    return servers or ["9.9.9.9"]


def _holder(port: int) -> str:
    """By whom a port is taken, if that can be seen."""
    said = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=False).stdout
    holders: Iterator[str] = (part.split(",")[0].strip('"(') for part in said.split("users:")[1:])
    names = ", ".join(sorted({name.strip('("') for name in holders}))
    return f" by {names}" if names else ""
