"""What the file backend knows of a stack, read without starting Pulumi."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mvnobox.deploy.pulumi.environment import state_dir


def stack_file(project: str, stack: str) -> Path:
    """The stack's state file."""
    return state_dir() / ".pulumi" / "stacks" / project / f"{stack}.json"


def stacks(project: str) -> list[str]:
    """Every stack of the project, by name."""
    folder = state_dir() / ".pulumi" / "stacks" / project
    return sorted(path.name.removesuffix(".json") for path in folder.glob("*.json"))


def _latest(project: str, stack: str) -> dict[str, Any]:
    try:
        document = json.loads(stack_file(project, stack).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict((document.get("checkpoint") or {}).get("latest") or {})


def pending(project: str, stack: str) -> list[str]:
    """URNs of resources whose making was cut short by a kill: they may or may not exist."""
    return [
        operation["resource"]["urn"]
        for operation in _latest(project, stack).get("pending_operations") or []
        if operation.get("type") == "creating"
    ]


def holds(project: str, stack: str, kind: str, identity: str) -> bool:
    """Whether the state has a resource of this type and provider's id."""
    return any(
        (resource["type"], resource.get("id")) == (kind, identity)
        for resource in _latest(project, stack).get("resources") or []
    )


def resource_count(project: str, stack: str) -> int:
    """How many resources the state holds, the stack itself and providers left out."""
    return sum(
        1 for resource in _latest(project, stack).get("resources") or [] if not resource["type"].startswith("pulumi:")
    )
