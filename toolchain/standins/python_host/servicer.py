"""pulumirpc.LanguageRuntime: which plug-ins the program needs, and running it."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2

from kubernetes_provider.protocol import language_pb2, language_pb2_grpc, plugin_pb2

# What a program exits with after it has told its error through the engine's log itself.
TOLD_ALREADY = 32


class Servicer(language_pb2_grpc.LanguageRuntimeServicer):
    """The language host of one engine."""

    def __init__(self, engine_address: str) -> None:
        self._engine = engine_address
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def interrupt(self) -> None:
        """Interrupt the programs that run."""
        with self._lock:
            for process in self._running:
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)

    def Handshake(self, request: Any, context: Any) -> Any:
        self._engine = request.engine_address or self._engine
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="")

    def GetRequiredPackages(self, request: Any, context: Any) -> Any:
        answer = language_pb2.GetRequiredPackagesResponse()
        for site in _site_packages(_interpreter(request.info)):
            for path in sorted(site.glob("*/pulumi-plugin.json")):
                described = json.loads(path.read_text(encoding="utf-8"))
                if described.get("resource"):
                    answer.packages.add(
                        name=described.get("name") or path.parent.name.removeprefix("pulumi_").replace("_", "-"),
                        kind="resource",
                        version=described.get("version", ""),
                        server=described.get("server", ""),
                    )
        return answer

    def GetRequiredPlugins(self, request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "superseded by GetRequiredPackages")

    def Run(self, request: Any, context: Any) -> Any:
        info = request.info
        python = _interpreter(info)
        if not python.exists():
            return language_pb2.RunResponse(
                error=f"there is no {python}: run ./mvno once, or correct `virtualenv` in Pulumi.yaml"
            )
        options = {
            "monitor": request.monitor_address,
            "engine": self._engine,
            "project": request.project,
            "stack": request.stack,
            "organization": request.organization,
            "root_directory": info.root_directory,
            "pwd": request.pwd,
            "dry_run": str(request.dryRun).lower(),
            "parallel": str(request.parallel),
        }
        arguments = [text for key, value in options.items() if value for text in (f"--{key}", value)]
        program = Path(__file__).with_name("program.py")
        environment = {
            **os.environ,
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
        }
        environment.pop("PYTHONPATH", None)  # ours; the program's imports are its own affair
        process = subprocess.Popen(
            [str(python), "-u", str(program), *arguments, info.entry_point or ".", *request.args],
            cwd=info.program_directory or None,
            env=environment,
        )
        with self._lock:
            self._running.add(process)
        context.add_callback(lambda: process.poll() is None and process.send_signal(signal.SIGINT))
        code = process.wait()
        with self._lock:
            self._running.discard(process)
        if code == TOLD_ALREADY:
            return language_pb2.RunResponse(bail=True)
        return language_pb2.RunResponse(error=f"the program exited with code {code}" if code else "")

    def Cancel(self, request: Any, context: Any) -> Any:
        self.interrupt()
        return empty_pb2.Empty()

    def InstallDependencies(self, request: Any, context: Any) -> Any:
        text = "The virtual environment is made by ./mvno from requirements.lock; nothing is installed here.\n"
        yield language_pb2.InstallDependenciesResponse(stdout=text.encode())

    def About(self, request: Any, context: Any) -> Any:
        return language_pb2.AboutResponse(executable=sys.executable, version=platform.python_version())

    def GetProgramDependencies(self, request: Any, context: Any) -> Any:
        answer = language_pb2.GetProgramDependenciesResponse()
        seen: set[str] = set()
        for site in _site_packages(_interpreter(request.info)):
            for path in sorted(site.glob("*.dist-info")):
                name, _, version = path.name.removesuffix(".dist-info").partition("-")
                if name not in seen:
                    seen.add(name)
                    answer.dependencies.add(name=name, version=version)
        return answer


def _interpreter(info: Any) -> Path:
    """The program's Python: the option `virtualenv`, relative to the project; else the one that runs this."""
    options = {key: value.string_value for key, value in info.options.fields.items()}
    if wanted := options.get("virtualenv"):
        return Path(info.root_directory, wanted, "bin", "python")
    return Path(sys.executable)


def _site_packages(python: Path) -> list[Path]:
    return sorted(python.parent.parent.glob("lib/python3.*/site-packages"))
