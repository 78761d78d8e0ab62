"""A real kube-apiserver on a real etcd, without controllers: the tests play the operator's and the collector's part."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException, NotFoundException
from tests.ports import free_port

from mvnobox.core.operator import (
    CoreInput,
    Open5GS,
    Open5GSUser,
    OperatorClient,
    Slice,
    SubscribedSlice,
    SubscriberInput,
)
from mvnobox.core.operator.models import GROUP, VERSION, Resource
from mvnobox.deploy.cluster.pki import CLIENT, SERVER, Authority, Identity
from mvnobox.deploy.toolchain import tool

CRDS = list(yaml.safe_load_all((Path(__file__).parent / "crds.yaml").read_text(encoding="utf-8")))


def until(what: str, condition: Callable[[], Any], seconds: float = 30) -> Any:
    """The condition's first true answer; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)
    return answer


class ApiServer:
    """etcd and kube-apiserver on loopback, with kubeconfigs of an administrator and of one who may do nothing."""

    def __init__(self, folder: Path, etcd: str, kubernetes: Path) -> None:
        self.folder, self._kubernetes = folder, kubernetes
        self.port, self._etcd_port, self._peer_port = free_port(), free_port(), free_port()
        authority = Authority(folder / "pki")
        authority.issue(Identity("apiserver", "kube-apiserver", hosts=("127.0.0.1",), usages=(SERVER, CLIENT)))
        authority.issue(Identity("admin", "test:admin", ("system:masters",)))
        authority.issue(Identity("stranger", "test:stranger"))
        authority.signing_key("service-accounts")
        for name in ("admin", "stranger"):
            authority.kubeconfig(name, f"https://127.0.0.1:{self.port}", folder / f"{name}.kubeconfig", "test")
        self.authority = authority
        own = f"http://127.0.0.1:{self._etcd_port}"
        peer = f"http://127.0.0.1:{self._peer_port}"
        self._etcd = self._run(
            "etcd",
            [etcd, "--name=test", f"--data-dir={folder}/etcd", f"--listen-client-urls={own}"],
            [f"--advertise-client-urls={own}", f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"],
            [f"--initial-cluster=test={peer}", "--unsafe-no-fsync"],
        )
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def _run(self, name: str, *parts: list[str]) -> subprocess.Popen[bytes]:
        command = [word for part in parts for word in part]
        with open(self.folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    def start(self) -> None:
        pki = self.folder / "pki"
        self._server = self._run(
            "apiserver",
            [str(self._kubernetes), "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self._etcd_port}"],
            ["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self.port}"],
            ["--service-cluster-ip-range=10.97.0.0/24", "--service-account-issuer=https://test.invalid"],
            [f"--service-account-key-file={pki}/service-accounts.pub"],
            [f"--service-account-signing-key-file={pki}/service-accounts.key"],
            [f"--client-ca-file={pki}/ca.crt", f"--tls-cert-file={pki}/apiserver.crt"],
            [f"--tls-private-key-file={pki}/apiserver.key", "--authorization-mode=RBAC", "--profiling=false"],
            ["--endpoint-reconciler-type=none", f"--cert-dir={self.folder}/certs"],
        )
        api = client.VersionApi(self.api())
        ready = client.CoreV1Api(self.api())

        def up() -> bool:
            assert self._server is not None and self._server.poll() is None, (self.folder / "apiserver.log").read_text()
            try:
                api.get_code(_request_timeout=1)
                return bool(ready.api_client.call_api("GET", f"https://127.0.0.1:{self.port}/readyz").status == 200)
            except Exception:
                return False

        until("the API server", up, 60)

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def stop(self) -> None:
        """End the API server as a crash does; etcd goes on."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()

    def close(self) -> None:
        self.stop()
        self._etcd.terminate()
        self._etcd.wait(10)

    def api(self, who: str = "admin") -> client.ApiClient:
        return config.new_client_from_config(str(self.folder / f"{who}.kubeconfig"))

    def install(self) -> None:
        """Install the CRDs and wait until they are served."""
        extensions = client.ApiextensionsV1Api(self.api())
        for crd in CRDS:
            extensions.create_custom_resource_definition(crd)
        operator = OperatorClient(self.api())

        def served() -> bool:
            with contextlib.suppress(Exception):
                operator.check_installed("default")
                return True
            return False

        until("the CRDs", served)

    def uninstall(self) -> None:
        """Remove the CRDs with all resources."""
        extensions = client.ApiextensionsV1Api(self.api())
        names = [crd["metadata"]["name"] for crd in CRDS]
        operator, raw = OperatorClient(self.api()), Raw(self.api())
        for kind in (Open5GS, Open5GSUser):
            for resource in operator.list(kind).items:
                if resource.metadata.finalizers:
                    # Nobody is there who would take them off.
                    raw.patch(resource, {"metadata": {"finalizers": None}})
        for name in names:
            with contextlib.suppress(NotFoundException):  # a test may have begun it
                extensions.delete_custom_resource_definition(name)

        def gone() -> bool:
            there = {item.metadata.name for item in extensions.list_custom_resource_definition().items}
            return not there & set(names)

        until("the CRDs' end", gone)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The server with the operator's CRDs installed."""
    etcd, kubernetes = shutil.which("etcd"), tool("kubernetes").path
    if etcd is None:
        pytest.skip("etcd is not installed (Debian: etcd-server)")
    if not kubernetes.exists():
        pytest.skip("the embedded toolchain's kube-apiserver is not built: ./mvno up builds it")
    made = ApiServer(tmp_path_factory.mktemp("apiserver"), etcd, kubernetes)
    try:
        made.install()
        yield made
    finally:
        made.close()


@pytest.fixture
def operator(server: ApiServer) -> OperatorClient:
    return OperatorClient(server.api())


@pytest.fixture
def namespace(server: ApiServer) -> str:
    """A fresh one. It is not removed: nothing here would empty it, and the server's end takes all."""
    name = f"t-{secrets.token_hex(4)}"
    client.CoreV1Api(server.api()).create_namespace({"metadata": {"name": name}})
    return name


class Raw:
    """The resources without the client under test: what the operator or a colleague does to them."""

    def __init__(self, api: client.ApiClient) -> None:
        self._objects = client.CustomObjectsApi(api)

    def patch(self, resource: Resource, body: dict[str, Any], manager: str = "colleague") -> None:
        self._objects.patch_namespaced_custom_object(
            GROUP, VERSION, resource.namespace, resource.PLURAL, resource.name, body, field_manager=manager
        )

    def status(self, resource: Resource, status: dict[str, Any]) -> None:
        self._objects.patch_namespaced_custom_object_status(
            GROUP, VERSION, resource.namespace, resource.PLURAL, resource.name, {"status": status}
        )

    def post(self, namespace: str, plural: str, body: dict[str, Any], manager: str) -> None:
        self._objects.create_namespaced_custom_object(GROUP, VERSION, namespace, plural, body, field_manager=manager)

    def remove(self, resource: Resource) -> None:
        with contextlib.suppress(ApiException):
            self._objects.delete_namespaced_custom_object(
                GROUP, VERSION, resource.namespace, resource.PLURAL, resource.name
            )


@pytest.fixture
def raw(server: ApiServer) -> Raw:
    return Raw(server.api())


class Forwarder:
    """A TCP way to the server that can be cut and closed."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open = True
        self._pairs: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._open:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            self.connections += 1
            self._pairs += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self, *, stay_closed: bool = False) -> None:
        """Break all connections; with `stay_closed` new ones end at once too, until `reopen`."""
        self._open = not stay_closed
        for end in self._pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def reopen(self) -> None:
        self._open = True

    def close(self) -> None:
        self._listener.close()
        self.cut(stay_closed=True)


@pytest.fixture
def forwarder(server: ApiServer) -> Iterator[Forwarder]:
    made = Forwarder(server.port)
    yield made
    made.close()


@pytest.fixture
def through(server: ApiServer, forwarder: Forwarder) -> OperatorClient:
    """The client under test over the forwarder."""
    path = server.folder / f"forwarded-{forwarder.port}.kubeconfig"
    server.authority.kubeconfig("admin", f"https://127.0.0.1:{forwarder.port}", path, "test")
    return OperatorClient.from_kubeconfig(path, "test", request_timeout=5)


@pytest.fixture
def core(namespace: str) -> CoreInput:
    return CoreInput("core", namespace, "262", "98", (Slice(1, "000001"), Slice(1, "000002")), tac=7)


@pytest.fixture
def subscriber() -> SubscriberInput:
    return SubscriberInput(
        "262980000000001",
        key="000102030405060708090A0B0C0D0E0F",
        opc="101112131415161718191A1B1C1D1E1F",
        slices=(SubscribedSlice(Slice(1, "000001")),),
    )
