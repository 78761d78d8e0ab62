"""What does not become ready is told, with the reason, and is known to the state."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PROGRAM = """
k8s.apps.v1.Deployment("web", metadata={**inside, "name": "web", "annotations": ANNOTATIONS}, spec={
    "replicas": 1, "selector": {"match_labels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"termination_grace_period_seconds": 0, "containers": [{"name": "web", "image": IMAGE, "image_pull_policy": "Never", **CONTAINER}]}}}, opts=opts)
"""


def program(image: str, container: str = "{}", annotations: str = "{}") -> str:
    return f"IMAGE = {image!r}\nCONTAINER = {container}\nANNOTATIONS = {annotations}\n{PROGRAM}"


def test_an_image_that_is_not_there(project: Any, pause_image: Callable[[], str]) -> None:
    project.write(program("localhost/mvno/nothing:1"))
    started = time.monotonic()
    said = project.run("up", "--yes", "--skip-preview")
    assert said.code != 0
    assert "ErrImageNeverPull" in said.text and "localhost/mvno/nothing:1" in said.text
    assert "0 of 1 pods are ready" in said.text
    assert time.monotonic() - started < 60, "a hopeless pod must not be waited for as long as a slow one"
    state = project.state()["web"]
    assert state["id"] == f"{project.name}/web"
    assert state["initErrors"]
    # The next run changes it to something that works.
    project.write(program(pause_image()))
    project.up()
    assert "initErrors" not in project.state()["web"]
    assert set(project.preview()["changeSummary"]) == {"same"}


def test_a_failed_run_is_gone_on_with(project: Any, pause_image: Callable[[], str]) -> None:
    # Without any change of the program the object is awaited again.
    command = '{"command": ["/nonexistent"]}'
    project.write(program(pause_image(), command, '{"pulumi.com/timeoutSeconds": "6"}'))
    started = time.monotonic()
    said = project.run("up", "--yes", "--skip-preview")
    assert said.code != 0
    assert "/nonexistent" in said.text, said.text
    assert time.monotonic() - started < 30
    again = project.run("up", "--yes", "--skip-preview")
    assert again.code != 0 and "/nonexistent" in again.text


def test_what_opts_out_is_not_awaited(project: Any) -> None:
    project.write(program("localhost/mvno/nothing:1", annotations='{"pulumi.com/skipAwait": "true"}'))
    started = time.monotonic()
    project.up()
    assert time.monotonic() - started < 8


def test_a_job_that_fails(project: Any, pause_image: Callable[[], str]) -> None:
    project.write(
        f"""
k8s.batch.v1.Job("job", metadata={{**inside, "name": "job"}}, spec={{"backoff_limit": 0, "template": {{"spec": {{
    "restart_policy": "Never", "containers": [{{"name": "job", "image": {pause_image()!r}, "args": ["--help"],
    "command": ["/nonexistent"]}}]}}}}}}, opts=opts)
"""
    )
    said = project.run("up", "--yes", "--skip-preview")
    assert said.code != 0
    assert "the Job failed" in said.text and "BackoffLimitExceeded" in said.text
    assert "container job of pod job-" in said.text
