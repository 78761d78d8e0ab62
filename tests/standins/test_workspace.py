"""Workspace: the kit's own way to the engine, on a small project, with what can go wrong on a person's machine."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mvnobox.deploy.pulumi import ConfigValue, Workspace, engine, settings, state
from mvnobox.errors import EnvironmentUnfit, Failed

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

STACK = "platform.test"
HEAD = """
import pulumi, pulumi_kubernetes as k8s
config = pulumi.Config()
NAME = config.require("namespace")
opts = pulumi.ResourceOptions(provider=k8s.Provider("cluster", context=config.get("context"), cluster_identifier="test",
                              enable_config_map_mutable=True, enable_secret_mutable=True))
namespace = k8s.core.v1.Namespace(NAME, metadata={"name": NAME}, opts=opts)
inside = {"namespace": namespace.metadata["name"]}
pulumi.export("password", config.require_secret("password"))
pulumi.export("namespace", NAME)
"""
DEPLOYMENT = """
k8s.apps.v1.Deployment("web", metadata={**inside, "name": "web", "annotations": {"pulumi.com/timeoutSeconds": "90"}}, spec={
    "selector": {"match_labels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
    "termination_grace_period_seconds": 0, "containers": [{"name": "web", "image": IMAGE, "command": COMMAND}]}}}, opts=opts)
"""


def deployment(image: str, *, works: bool) -> str:
    # A readiness that never comes, without being hopeless: a container that cannot be started.
    return f"IMAGE = {image!r}\nCOMMAND = {'None' if works else ['/nonexistent']}\n{DEPLOYMENT}"


@dataclass
class Notes:
    """A reporter that remembers."""

    said: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def note(self, message: str) -> None:
        self.said.append(message)

    @contextmanager
    def task(self, title: str) -> Iterator[Any]:
        yield self

    def update(self, detail: str) -> None:
        self.details.append(detail)


@dataclass
class Place:
    """A checkout with an installation beside it."""

    root: Path
    home: Path
    workspace: Workspace
    notes: Notes
    namespace: str

    @property
    def config(self) -> dict[str, ConfigValue]:
        return {
            "namespace": ConfigValue(self.namespace),
            "password": ConfigValue("-open $sesame", secret=True),
            "shape": ConfigValue(json.dumps({"a": [1, 2]})),
        }

    def write(self, program: str = "") -> None:
        (self.root / "program" / "__main__.py").write_text(HEAD + program, encoding="utf-8")

    def locked(self) -> list[Path]:
        folder = self.home / "pulumi" / ".pulumi" / "locks" / "organization" / "mvno-in-a-box" / STACK
        return list(folder.glob("*.json"))


def checkout(folder: Path) -> Path:
    (folder / "program").mkdir(parents=True)
    about = {
        "name": "mvno-in-a-box",
        "main": "program",
        "runtime": {"name": "python", "options": {"virtualenv": str(Path(sys.executable).parents[1])}},
    }
    (folder / "Pulumi.yaml").write_text(json.dumps(about), encoding="utf-8")
    return folder


@pytest.fixture
def place(tmp_path: Path, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    home = tmp_path / "installation"
    monkeypatch.setenv("MVNO_HOME", str(home))
    root = checkout(tmp_path / "checkout")
    for module in (engine, settings):
        monkeypatch.setattr(module, "project_root", lambda: root)
    notes = Notes()
    made = Place(root, home, Workspace(kubeconfig, notes), notes, f"standin-{secrets.token_hex(3)}")
    made.write()
    yield made
    if made.workspace.exists(STACK):
        made.workspace.destroy(STACK)
        made.workspace.remove(STACK)
    assert made.workspace.list_stacks() == []
    assert not (root / f"Pulumi.{STACK}.yaml").is_symlink()


def test_up_again_changes_nothing_and_is_quick(place: Place) -> None:
    first = place.workspace.preview(STACK, place.config)
    assert first.document()["create"] == 3
    outputs = place.workspace.up(STACK, place.config)
    assert outputs == {"namespace": place.namespace, "password": "-open $sesame"}
    assert place.workspace.list_stacks() == [STACK]
    started = time.monotonic()
    assert place.workspace.up(STACK, place.config) == outputs
    assert time.monotonic() - started < 6
    assert place.workspace.last_changes.changed == 0
    assert "nothing to change" in place.notes.said[-1]
    assert place.workspace.preview(STACK).document() == {"create": 0, "update": 0, "replace": 0, "delete": 0, "same": 3}


def test_a_stack_whose_cluster_is_gone_can_be_forgotten(place: Place, kubeconfig: Path) -> None:
    place.workspace.up(STACK, place.config)
    with pytest.raises(Failed, match="still has resources"):
        place.workspace.remove(STACK)
    assert place.workspace.list_stacks() == [STACK]
    try:
        place.workspace.remove(STACK, force=True)
        assert place.workspace.list_stacks() == [] and not (place.root / f"Pulumi.{STACK}.yaml").is_symlink()
    finally:
        kubectl = ["kubectl", "--kubeconfig", str(kubeconfig), "delete", "namespace", place.namespace, "--wait=false"]
        subprocess.run(kubectl, env=place.workspace.environment, check=True, capture_output=True)


def test_what_lies_on_the_disk(place: Place) -> None:
    place.workspace.up(STACK, place.config)
    assert (place.home / "passphrase").stat().st_mode & 0o777 == 0o600
    assert (place.home / "pulumi").stat().st_mode & 0o777 == 0o700
    assert place.home.stat().st_mode & 0o777 == 0o700
    link = place.root / f"Pulumi.{STACK}.yaml"
    assert link.is_symlink(), "Pulumi replaced the link by a file"
    assert link.resolve() == place.home / "stacks" / f"Pulumi.{STACK}.yaml"
    assert link.resolve().stat().st_mode & 0o777 == 0o600
    assert "secure: v1:" in link.read_text()
    passphrase = (place.home / "passphrase").read_text()
    for path in [*place.home.rglob("*"), *place.root.rglob("*")]:
        if path.is_file() and path.name != "passphrase":
            said = path.read_bytes()
            assert b"-open $sesame" not in said and passphrase.encode() not in said, path
    assert not any(passphrase in note for note in place.notes.said)


def test_a_fresh_clone_takes_the_installation_over(
    place: Place, tmp_path: Path, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.workspace.up(STACK, place.config)
    clone = checkout(tmp_path / "clone")
    (clone / "program" / "__main__.py").write_bytes((place.root / "program" / "__main__.py").read_bytes())
    for module in (engine, settings):
        monkeypatch.setattr(module, "project_root", lambda: clone)
    other = Workspace(kubeconfig, Notes())
    assert other.preview(STACK).changed == 0
    other.up(STACK, {**place.config, "shape": ConfigValue("[]")})
    for module in (engine, settings):
        monkeypatch.setattr(module, "project_root", lambda: place.root)
    assert "'[]'" in (place.root / f"Pulumi.{STACK}.yaml").read_text()
    # Two different files are nobody's to choose between.
    link = place.root / f"Pulumi.{STACK}.yaml"
    link.unlink()
    link.write_text("config: {}\n")
    with pytest.raises(EnvironmentUnfit, match="differ"):
        place.workspace.up(STACK, place.config)
    link.unlink()


def test_plain_pulumi_sees_the_same(place: Place) -> None:
    place.workspace.up(STACK, place.config)
    said = subprocess.run(
        ["pulumi", "preview", "--stack", STACK, "--non-interactive", "--color", "never"],
        cwd=place.root,
        env={**os.environ, **place.workspace.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert "3 unchanged" in said.stdout


def test_settings_that_change_and_go(place: Place) -> None:
    place.workspace.up(STACK, place.config)
    config = {**place.config, "password": ConfigValue("another", secret=True)}
    del config["shape"]
    assert place.workspace.up(STACK, config)["password"] == "another"
    assert "shape" not in (place.root / f"Pulumi.{STACK}.yaml").read_text()


def test_a_failure_names_the_resource_and_the_reason(place: Place) -> None:
    place.write(
        """
k8s.core.v1.ConfigMap("Bad_Name", metadata={**inside, "name": "Bad_Name"}, data={}, opts=opts)
"""
    )
    with pytest.raises(Failed) as failure:
        place.workspace.up(STACK, place.config)
    assert "ConfigMap Bad_Name: " in failure.value.cause
    assert "a lowercase RFC 1123 subdomain must consist of" in failure.value.cause
    assert "Traceback" not in failure.value.cause
    place.write("raise pulumi.RunError('the brand file is missing')")
    with pytest.raises(Failed, match="the program: the brand file is missing"):
        place.workspace.up(STACK, place.config)


def test_pods_that_do_not_start(place: Place, pause_image: Callable[[], str]) -> None:
    place.write(
        deployment("localhost/mvno/nothing:1", works=True).replace('"image":', '"image_pull_policy": "Never", "image":')
    )
    with pytest.raises(Failed) as failure:
        place.workspace.up(STACK, place.config)
    assert "Deployment web: " in failure.value.cause
    assert "ErrImageNeverPull" in failure.value.cause
    assert any("making Deployment web: " in detail for detail in place.notes.details), place.notes.details[-5:]


def _lock(place: Place, pid: int, host: str) -> None:
    folder = place.home / "pulumi" / ".pulumi" / "locks" / "organization" / "mvno-in-a-box" / STACK
    folder.mkdir(parents=True, exist_ok=True)
    said = {"pid": pid, "username": "root", "hostname": host, "timestamp": "2026-11-23T18:00:00Z"}
    (folder / f"{secrets.token_hex(4)}.json").write_text(json.dumps(said))


def test_locks(place: Place) -> None:
    place.workspace.up(STACK, place.config)
    gone = subprocess.Popen(["true"])
    gone.wait()
    _lock(place, gone.pid, socket.gethostname())
    place.workspace.up(STACK, place.config)
    assert any(f"process {gone.pid}): lock removed" in note for note in place.notes.said)
    # A number that another program has by now is no engine either.
    _lock(place, os.getppid(), socket.gethostname())
    place.workspace.up(STACK, place.config)
    # A live one, or one of another machine, is respected.
    _lock(place, 1, "elsewhere")
    with pytest.raises(Failed, match="in use by root@elsewhere") as failure:
        place.workspace.up(STACK, place.config)
    assert f"pulumi cancel --stack {STACK}" in failure.value.remedy
    place.workspace.cancel(STACK)
    place.workspace.up(STACK, place.config)
    with pytest.raises(Failed, match="there is no stack"):
        place.workspace.refresh("platform.nowhere")


def _script(place: Place, kubeconfig: Path) -> str:
    return f"""
import sys
from pathlib import Path
from mvnobox.deploy.pulumi import ConfigValue, Workspace, engine, settings
from mvnobox.deploy.report import PlainReporter
from mvnobox.errors import Failed
engine.project_root = settings.project_root = lambda: Path({str(place.root)!r})
config = {{"namespace": ConfigValue({place.namespace!r}), "password": ConfigValue("-open $sesame", secret=True),
          "shape": ConfigValue('{{"a": [1, 2]}}')}}
try:
    Workspace(Path({str(kubeconfig)!r}), PlainReporter()).up({STACK!r}, config)
except Failed as error:
    print(f"{{type(error).__name__}}: {{error}}")
    sys.exit(1)
"""


def _started(place: Place, kubeconfig: Path) -> tuple[subprocess.Popen[str], int]:
    """A run in a process of its own that is waiting for the Deployment; and the engine's process id."""
    process = subprocess.Popen([sys.executable, "-c", _script(place, kubeconfig)], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (locks := place.locked()) or not state.pending("mvno-in-a-box", STACK):
        assert time.monotonic() < deadline and process.poll() is None
        threading.Event().wait(0.1)
    pid = json.loads(locks[0].read_text())["pid"]
    while f"::{'web'}" not in " ".join(state.pending("mvno-in-a-box", STACK)):
        assert time.monotonic() < deadline and process.poll() is None
        threading.Event().wait(0.1)
    return process, pid


def test_ctrl_c_gives_the_lock_back(place: Place, kubeconfig: Path, pause_image: Callable[[], str]) -> None:
    place.write(deployment(pause_image(), works=False))
    process, pid = _started(place, kubeconfig)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    said, _ = process.communicate(timeout=60)
    assert time.monotonic() - started < 20
    assert process.returncode == 1
    assert "Interrupted: stopped: pulumi up was interrupted" in said and "run the same again" in said
    assert place.locked() == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    # The object is known, and the next run goes on with it.
    place.write(deployment(pause_image(), works=True))
    place.workspace.up(STACK, place.config)
    assert place.workspace.preview(STACK).changed == 0


def test_a_killed_run_is_gone_on_with(place: Place, kubeconfig: Path, pause_image: Callable[[], str]) -> None:
    place.write(deployment(pause_image(), works=False))
    process, pid = _started(place, kubeconfig)
    os.kill(process.pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert place.locked() != []
    assert state.pending("mvno-in-a-box", STACK) != []
    place.write(deployment(pause_image(), works=True))
    place.workspace.up(STACK, place.config)
    assert any("taking over what exists" in note for note in place.notes.said)
    assert state.pending("mvno-in-a-box", STACK) == []
    assert place.workspace.preview(STACK).changed == 0
