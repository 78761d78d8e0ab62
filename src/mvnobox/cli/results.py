"""Results as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from mvnobox.cli.console import out

if TYPE_CHECKING:
    from mvnobox.deploy.hostcheck import Check
    from mvnobox.deploy.journey import Journey

_MARK = {"pass": "[green]pass[/]", "fail": "[red]FAIL[/]", "skip": "[yellow]skip[/]"}


def print_journey(result: Journey) -> None:
    """A line a step of `verify`."""
    said = " from outside of the cluster" if result.origin == "outside" else ""
    said += " (a simulation, not Open5GS)" if result.core == "simulated" else ""
    table = Table(
        title=f"{result.brand} on the {result.core} core over {result.access.upper()}{said}", title_justify="left"
    )
    for column in ("step", "", "seconds", "detail"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for step in result.steps:
        table.add_row(step.name, _MARK[step.status], f"{step.seconds:.1f}", step.detail)
    out.print(table)
    passed = sum(step.status == "pass" for step in result.steps)
    out.print(f"{passed} of {len(result.steps)} steps passed in {sum(step.seconds for step in result.steps):.1f} s")


def print_status(found: dict[str, Any]) -> None:
    """The installation's parts."""
    out.print(f"cluster: {found['cluster']['detail']}")
    table = Table()
    for column in ("stack", "workload", "namespace", "ready", "image"):
        table.add_column(column)
    for part in found["workloads"]:
        colour = "green" if part["ready"] else "red"
        table.add_row(part["stack"], part["name"], part["namespace"], f"[{colour}]{part['replicas']}[/]", part["image"])
    out.print(table)


def print_checks(found: Sequence[Check]) -> None:
    """A line a check of `doctor`."""
    for check in found:
        out.print(f"{'[green]ok[/]  ' if check.ok else '[red]FAIL[/]'} {check.name}: {check.detail}", soft_wrap=True)
        if not check.ok and check.remedy:
            out.print(f"       remedy: {check.remedy}", soft_wrap=True)


def print_bench(result: dict[str, Any]) -> None:
    """The figures of a bench with their targets."""
    table = Table(title=f"bench {result['bench']} on {result['machine']}", title_justify="left")
    for column in ("figure", "value", "unit", "target", "met"):
        table.add_column(column)
    for name, figure in result["figures"].items():
        met = "" if figure["met"] is None else "[green]yes[/]" if figure["met"] else "[red]NO[/]"
        table.add_row(name, str(figure["value"]), figure["unit"], str(figure["target"] or ""), met)
    out.print(table)
    if result.get("ratio") is not None:
        out.print(f"ratio to the peer: {result['ratio']}")
