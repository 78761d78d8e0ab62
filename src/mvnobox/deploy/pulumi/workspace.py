"""Stacks: bring up, preview, refresh, remove."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulumi.automation import ConfigValue

from mvnobox.deploy.pulumi import settings, state
from mvnobox.deploy.pulumi.engine import Answer, run
from mvnobox.deploy.pulumi.environment import environment, uses_standins
from mvnobox.deploy.pulumi.locks import locks
from mvnobox.deploy.pulumi.progress import Progress
from mvnobox.deploy.report import Reporter, Task
from mvnobox.deploy.toolchain import ensure_tool
from mvnobox.errors import Failed, KitError

PROJECT = "mvno-in-a-box"
# Objects that are awaited hold a slot each; the engine's default is four a core.
PARALLEL = "64"
WATCH_SECONDS = 5.0
_UPSERT = {"PULUMI_K8S_UPSERT_EXISTING_OBJECTS": "true", "PULUMI_K8S_ENABLE_PATCH_FORCE": "true"}


@dataclass(frozen=True)
class Changes:
    """How many resources an operation touches, and which."""

    counts: dict[str, int]
    resources: dict[str, str]

    @property
    def changed(self) -> int:
        """Everything that is not left as it is."""
        return sum(number for step, number in self.counts.items() if step not in ("same", "read"))

    def document(self) -> dict[str, int]:
        """create, update, replace, delete and same, each a number."""
        return {step: self.counts.get(step, 0) for step in ("create", "update", "replace", "delete", "same")}


class Workspace:
    """The project's stacks on one cluster.

    It runs the very program that plain `pulumi` runs in the checkout. The SDK's own automation calls cost several
    processes around each operation, put secrets on command lines and leave the engine running after Ctrl-C; so the
    engine is started here with the same arguments and event log.
    """

    def __init__(self, kubeconfig: Path | None, report: Reporter) -> None:
        self.report = report
        self.last_changes = Changes({}, {})
        # What is asked every few seconds while a stack comes up; its answer ends the run.
        self.watch: Callable[[], KitError | None] | None = None
        self.engine = ensure_tool("pulumi", self.report)
        self.environment = environment(kubeconfig, self.report)
        missing = [
            name
            for name, stands_in in zip(
                ("language host", "Kubernetes provider"), uses_standins(self.engine), strict=True
            )
            if stands_in
        ]
        if missing:
            self.report.note(f"Pulumi's {' and '.join(missing)}: the stand-in, as the official one is not installed")

    def _run(self, arguments: list[str], **options: Any) -> Answer:
        return run(self.engine, arguments, options.pop("environment", self.environment), **options)

    def _must(self, arguments: list[str], what: str, **options: Any) -> str:
        answer = self._run(arguments, **options)
        if answer.code != 0:
            raise Failed(f"{what}: {_last_words(answer)}", "mend what it names and run the same again")
        return answer.stdout

    def list_stacks(self) -> list[str]:
        """The names of all stacks of this installation."""
        return state.stacks(PROJECT)

    def exists(self, stack: str) -> bool:
        """Whether the installation has the stack."""
        return state.stack_file(PROJECT, stack).exists()

    def _prepare(self, stack: str, config: Mapping[str, ConfigValue] | None, *, create: bool) -> None:
        self._unlock(stack)
        settings.link(stack)
        if not self.exists(stack):
            if not create:
                raise Failed(f"there is no stack {stack}", f"stacks: {', '.join(self.list_stacks()) or 'none'}")
            settings.settings_file(stack).unlink(missing_ok=True)
            self._must(["stack", "init", stack, "--no-select"], f"the stack {stack} could not be made")
        if config is not None:
            self._configure(stack, config)

    def _configure(self, stack: str, config: Mapping[str, ConfigValue]) -> None:
        new, gone = settings.changed(stack, config)
        plain = [
            text for key, value in new.items() if not value.secret for text in ("--plaintext", f"{key}={value.value}")
        ]
        what = f"the settings of {stack} could not be written"
        if plain:
            self._must(["config", "set-all", "--stack", stack, *plain], what)
        for key, value in new.items():
            if value.secret:
                # By the pipe: a command line is everybody's to read.
                self._must(["config", "set", key, "--secret", "--stack", stack], what, stdin=value.value)
        if gone:
            self._must(["config", "rm-all", "--stack", stack, *gone], what)
        if new or gone:
            settings.remember(stack, config)

    def _unlock(self, stack: str) -> None:
        for lock in locks(PROJECT, stack):
            if lock.dead:
                lock.path.unlink(missing_ok=True)
                lock.path.with_name(lock.path.name + ".attrs").unlink(missing_ok=True)
                self.report.note(f"{stack} was locked by a run that was killed (process {lock.pid}): lock removed")
            else:
                raise Failed(
                    f"the stack {stack} is in use by {lock.user}@{lock.host}, process {lock.pid}, since {lock.since}",
                    f"wait for it to end; if it is dead, run `pulumi cancel --stack {stack}`",
                )

    def up(
        self, stack: str, config: Mapping[str, ConfigValue] | None = None, report: Reporter | None = None
    ) -> dict[str, Any]:
        """Bring the stack to what the program says; its outputs, secrets opened. Raises Failed with the reasons."""
        told = report if report is not None else self.report
        self._prepare(stack, config, create=True)
        extra = self._after_a_kill(stack)
        with told.task(f"Stack {stack}") as task:
            arguments = ["up", "--yes", "--skip-preview", "--parallel", PARALLEL, "--stack", stack]
            progress = self._operate(arguments, stack, task, extra)
            if extra:
                self._forget_pending(stack)
                # The SDK writes those variables into the provider's settings: put these right again.
                self._operate(arguments, stack, task, {})
        for text in dict.fromkeys(progress.warnings):
            told.note(f"warning: {text}")
        changes = Changes(progress.changes, progress.steps)
        told.note(f"{stack}: {_told(changes)}")
        self.last_changes = changes
        return self.outputs(stack)

    def preview(self, stack: str, config: Mapping[str, ConfigValue] | None = None) -> Changes:
        """What `up` would change."""
        self._prepare(stack, config, create=True)
        with self.report.task(f"Preview of {stack}") as task:
            progress = self._operate(["preview", "--parallel", PARALLEL, "--stack", stack], stack, task, {})
        return Changes(progress.changes, {urn: step for urn, step in progress.steps.items() if step != "same"})

    def refresh(self, stack: str) -> Changes:
        """Read the live objects into the state."""
        self._prepare(stack, None, create=False)
        with self.report.task(f"Refresh of {stack}") as task:
            arguments = ["refresh", "--yes", "--skip-preview", "--parallel", PARALLEL, "--stack", stack]
            progress = self._operate([*arguments, "--clear-pending-creates"], stack, task, {})
        return Changes(progress.changes, progress.steps)

    def destroy(self, stack: str, report: Reporter | None = None, *, cluster_gone: bool = False) -> None:
        """Remove every resource of the stack; with `cluster_gone` forget those that nobody can delete any more."""
        self._prepare(stack, None, create=False)
        extra = {"PULUMI_K8S_DELETE_UNREACHABLE": "true"} if cluster_gone else {}
        with (report or self.report).task(f"Removing {stack}") as task:
            arguments = ["destroy", "--yes", "--skip-preview", "--parallel", PARALLEL, "--stack", stack]
            self._operate(arguments, stack, task, extra)

    def remove(self, stack: str, *, force: bool = False) -> None:
        """Forget a stack, its state and its settings. It holds nothing any more, or, with `force`, what it holds is gone."""
        if self.exists(stack):
            self._unlock(stack)
            settings.link(stack)
            forced = ["--force"] if force else []
            self._must(["stack", "rm", "--yes", *forced, "--stack", stack], f"the stack {stack} could not be removed")
        settings.unlink(stack)

    def outputs(self, stack: str) -> dict[str, Any]:
        """The stack's outputs, secrets opened."""
        settings.link(stack)
        said = self._must(
            ["stack", "output", "--json", "--show-secrets", "--stack", stack], f"the outputs of {stack} cannot be read"
        )
        return dict(json.loads(said or "{}"))

    def cancel(self, stack: str) -> None:
        """Take the lock of a stack away, whoever holds it."""
        self._must(["cancel", "--yes", "--stack", stack], f"the stack {stack} could not be unlocked")

    def _after_a_kill(self, stack: str) -> dict[str, str]:
        cut_short = state.pending(PROJECT, stack)
        if not cut_short:
            return {}
        self.report.note(
            f"{stack}: an earlier run was killed while making {len(cut_short)} resource(s): taking over what exists"
        )
        return dict(_UPSERT)

    def _forget_pending(self, stack: str) -> None:
        document = json.loads(self._must(["stack", "export", "--stack", stack], f"the state of {stack} cannot be read"))
        kept = [
            operation
            for operation in document["deployment"].get("pending_operations") or []
            if operation.get("type") != "creating"
        ]
        document["deployment"]["pending_operations"] = kept
        what = f"the state of {stack} cannot be written"
        self._must(["stack", "import", "--stack", stack], what, stdin=json.dumps(document))

    def _operate(self, arguments: list[str], stack: str, task: Task, extra: Mapping[str, str]) -> Progress:
        progress = Progress(task)
        found: list[KitError] = []
        asked = time.monotonic()

        def tick() -> bool:
            nonlocal asked
            progress.tell()
            if self.watch is not None and not found and time.monotonic() - asked > WATCH_SECONDS:
                if (trouble := self.watch()) is not None:
                    found.append(trouble)
                asked = time.monotonic()
            return bool(found)

        answer = self._run(arguments, environment={**self.environment, **extra}, on_event=progress.take, on_tick=tick)
        if answer.code != 0 and found:
            raise found[0]
        if answer.code != 0:
            raise _failure(arguments[0], stack, progress, answer)
        return progress


def _told(changes: Changes) -> str:
    if not changes.changed:
        return f"nothing to change, {changes.counts.get('same', 0)} resources as they should be"
    words = {"create": "made", "update": "changed", "replace": "replaced", "delete": "removed", "same": "unchanged"}
    return ", ".join(f"{number} {words.get(step, step)}" for step, number in changes.counts.items() if number)


def _last_words(answer: Answer) -> str:
    lines = [line.strip() for line in (answer.stderr or answer.stdout).splitlines() if line.strip()]
    lines = [line.removeprefix("error: ") for line in lines if "from $PATH at" not in line]
    return "; ".join(lines[-4:]) or f"pulumi ended with code {answer.code} and said nothing"


def _failure(verb: str, stack: str, progress: Progress, answer: Answer) -> Failed:
    failures = progress.failures()
    if not failures:
        return Failed(f"pulumi {verb} of {stack}: {_last_words(answer)}", "mend what it names and run the same again")
    text = "\n  ".join(f"{resource}: {reason}" for resource, reason in failures)
    return Failed(
        f"{stack}: {len(failures)} problem{'s' if len(failures) > 1 else ''}\n  {text}",
        "mend what it names and run the same again; what was made already stays",
    )
