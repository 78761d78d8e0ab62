"""Ansible roles through ansible-runner: a fresh private folder a run, no secret on a command line, errors in words."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ansible_runner
import yaml

from mvnobox.deploy.paths import cache_dir, project_root
from mvnobox.deploy.report import Reporter, Task
from mvnobox.errors import EnvironmentUnfit, Failed

# A role's precheck says that the machine is unfit; anything later is a failure.
_UNFIT_MODULES = {"ansible.builtin.assert", "assert", "ansible.builtin.validate_argument_spec"}


def run_role(role: str, verb: str, variables: Mapping[str, Any], report: Reporter) -> int:
    """Run one verb of a role on this host; the number of changed tasks. Raises Failed or EnvironmentUnfit."""
    with report.task(f"Role {role}: {verb}") as task:
        return _run(role, verb, variables, task)


def _run(role: str, verb: str, variables: Mapping[str, Any], task: Task) -> int:
    private = Path(tempfile.mkdtemp(prefix="mvno-ansible-"))  # mode 0700
    failures: list[tuple[str, str, str]] = []

    def on_event(event: dict[str, Any]) -> bool:
        data = event.get("event_data", {})
        kind = event.get("event")
        if kind == "playbook_on_task_start":
            task.update(str(data.get("task", "")))
        elif kind == "runner_on_failed" and not data.get("ignore_errors"):
            result = data.get("res", {})
            said = result.get("msg") or result.get("stderr") or "no message"
            for item in result.get("results", []):
                if item.get("failed"):
                    said = item.get("msg") or item.get("stderr") or said
            if result.get("argument_errors"):
                said = "; ".join(result["argument_errors"])
            failures.append((str(data.get("task")), str(said).strip(), str(data.get("resolved_action", ""))))
        return True

    try:
        project = private / "project"
        project.mkdir()
        (project / "play.yml").write_text(
            yaml.safe_dump(
                [
                    {
                        "hosts": "localhost",
                        "connection": "local",
                        "gather_facts": True,
                        "gather_subset": ["min"],
                        "roles": [{"role": role}],
                    }
                ]
            ),
            encoding="utf-8",
        )
        values = private / "variables.yml"
        values.touch(mode=0o600)
        values.write_text(
            yaml.safe_dump({**variables, "verb": verb, "ansible_python_interpreter": _system_python()}),
            encoding="utf-8",
        )
        result = ansible_runner.run(
            private_data_dir=str(private),
            playbook="play.yml",
            inventory="localhost ansible_connection=local",
            cmdline=f"-e @{values}",
            event_handler=on_event,
            quiet=True,
            envvars={
                "ANSIBLE_ROLES_PATH": str(project_root() / "roles"),
                "ANSIBLE_HOME": str(cache_dir() / "ansible"),
                "ANSIBLE_LOCALHOST_WARNING": "False",
                "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
                "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}",
            },
        )
        if result.status != "successful":
            name, said, action = failures[-1] if failures else (result.status, "ansible-playbook did not finish", "")
            kind = EnvironmentUnfit if verb == "precheck" or action in _UNFIT_MODULES else Failed
            raise kind(f"role {role}, task {name!r}: {said}", "mend what the message names and run the same again")
        return int(result.stats["changed"].get("localhost", 0)) if result.stats else 0
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _system_python() -> str:
    # apt's Python bindings belong to the system's interpreter.
    return "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
