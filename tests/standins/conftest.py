"""The stand-ins under test: their modules importable, the real engine, the real apiserver, scratch namespaces."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pulumi.automation  # noqa: F401  the whole SDK, before the stand-in puts bare packages in its place
import pytest

from mvnobox.deploy.paths import home_dir, project_root
from mvnobox.deploy.report import PlainReporter, Reporter
from mvnobox.deploy.toolchain import ensure_tool

STANDINS = project_root() / "toolchain" / "standins"
sys.path.insert(0, str(STANDINS))


@pytest.fixture(scope="session")
def kubeconfig(request: pytest.FixtureRequest) -> Path:
    """A real cluster: the session's own, else the machine's embedded one."""
    try:
        return Path(request.getfixturevalue("cluster").kubeconfig)
    except pytest.FixtureLookupError:
        path = home_dir() / "kubeconfig"
        if not path.exists():
            pytest.skip("there is no cluster: ./mvno up makes one")
        return path


@pytest.fixture(scope="session")
def report() -> Reporter:
    return cast(Reporter, PlainReporter())


@pytest.fixture(scope="session")
def tools(report: Reporter) -> str:
    """PATH with the stand-ins, the engine, helm and kubectl."""
    folders = [STANDINS / "bin", ensure_tool("pulumi", report).parent, ensure_tool("helm", report).parent]
    return os.pathsep.join([*map(str, folders), str(Path(sys.executable).parent), os.environ["PATH"]])


@dataclass
class Said:
    """A command's end."""

    code: int
    text: str


@dataclass
class Project:
    """A Pulumi project in a scratch folder with one stack, `test`, and the commands of the real engine."""

    folder: Path
    environment: dict[str, str]
    name: str

    def write(self, program: str) -> None:
        """Set the program; `NAME` in it is the scratch name, `opts` and `namespace` are there already."""
        head = textwrap.dedent(
            """
            import pulumi, pulumi_kubernetes as k8s
            provider = k8s.Provider("cluster", cluster_identifier="test", enable_config_map_mutable=True,
                                    enable_secret_mutable=True)
            opts = pulumi.ResourceOptions(provider=provider)
            namespace = k8s.core.v1.Namespace(NAME, metadata={"name": NAME}, opts=opts)
            inside = {"namespace": namespace.metadata["name"]}
            """
        )
        text = f"NAME = {self.name!r}\n{head}\n{textwrap.dedent(program)}"
        (self.folder / "program" / "__main__.py").write_text(text, encoding="utf-8")

    def run(self, *arguments: str, timeout: float = 240) -> Said:
        """`pulumi ARGUMENTS` as from a shell."""
        done = subprocess.run(
            ["pulumi", *arguments, "--non-interactive", "--color", "never"],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Said(done.returncode, done.stdout + done.stderr)

    def up(self, *arguments: str) -> str:
        said = self.run("up", "--yes", "--skip-preview", *arguments)
        assert said.code == 0, said.text
        return said.text

    def preview(self, *arguments: str) -> dict[str, Any]:
        """The preview as JSON; `changeSummary` and `steps`."""
        said = self.run("preview", "--json", *arguments)
        assert said.code == 0, said.text
        return dict(json.loads(said.text[said.text.index("{\n") : said.text.rindex("}") + 1]))

    def state(self) -> dict[str, Any]:
        """The state's resources by logical name, secrets in clear."""
        said = self.run("stack", "export", "--show-secrets")
        document = json.loads(said.text[said.text.index("{\n") : said.text.rindex("}") + 1])
        return {item["urn"].split("::")[-1]: item for item in document["deployment"].get("resources", [])}

    def kubectl(self, *arguments: str) -> str:
        done = subprocess.run(
            ["kubectl", "-n", self.name, *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path: Path, kubeconfig: Path, tools: str) -> Iterator[Project]:
    """See Project; what it made is destroyed at the end."""
    name = f"standin-{secrets.token_hex(3)}"
    (tmp_path / "program").mkdir()
    (tmp_path / "state").mkdir()
    settings = {
        "name": "standins",
        "main": "program",
        "runtime": {"name": "python", "options": {"virtualenv": str(Path(sys.executable).parents[1])}},
    }
    (tmp_path / "Pulumi.yaml").write_text(json.dumps(settings), encoding="utf-8")
    environment = {
        "PATH": tools,
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_BACKEND_URL": f"file://{tmp_path / 'state'}",
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "KUBECONFIG": str(kubeconfig),
        "MVNO_PYTHON": str(Path(sys.prefix) / "bin" / "python"),
    }
    made = Project(tmp_path, environment, name)
    assert made.run("stack", "init", "test").code == 0
    yield made
    said = made.run("destroy", "--yes", "--skip-preview")
    subprocess.run(
        ["kubectl", "delete", "namespace", name, "--ignore-not-found", "--wait=false"],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    assert said.code == 0, said.text


@pytest.fixture(scope="session")
def pause_image(kubeconfig: Path, tools: str) -> Callable[[], str]:
    """The image that the node has in any case and that only waits."""

    def find() -> str:
        said = subprocess.run(
            ["kubectl", "get", "nodes", "-o", "json"],
            env={**os.environ, "PATH": tools, "KUBECONFIG": str(kubeconfig)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for node in json.loads(said)["items"]:
            for image in node["status"].get("images") or []:
                for name in image.get("names") or []:
                    if "/pause:" in name:
                        return str(name)
        pytest.skip("no node has a pause image")

    return find
