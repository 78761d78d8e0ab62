"""Components without an engine: what they would make is noted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pulumi

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "stacks"))


class Mocks(pulumi.runtime.Mocks):
    def __init__(self) -> None:
        self.made: list[pulumi.runtime.MockResourceArgs] = []

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.made.append(args)
        return f"{args.name}-id", dict(args.inputs)

    def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
        return {}

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        return {one.name: one.inputs for one in self.made if one.typ == kind}


def settled(build: Any) -> None:
    """Build a component and wait until everything in it is registered."""

    @pulumi.runtime.test
    def run() -> pulumi.Output[Any]:
        build()
        return pulumi.Output.from_input(None)

    run()
