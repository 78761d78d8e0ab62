"""Running the engine's command line: events while it runs, a clean stop on Ctrl-C."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvnobox.deploy.paths import project_root
from mvnobox.errors import EnvironmentUnfit, Failed

STOP_PATIENCE = 45.0


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    stdout: str
    stderr: str


class Interrupted(Failed):
    """The person stopped the run; the engine has ended in order and the stack is not locked."""

    def __init__(self, what: str) -> None:
        super().__init__(f"stopped: {what}", "run the same again; it goes on from where it was")


def run(
    engine: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    on_tick: Callable[[], bool] | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> Answer:
    """Run `pulumi ARGUMENTS` in the checkout.

    `on_tick` is called about once a second; when it is true the engine is stopped as by Ctrl-C, and answers.
    On Ctrl-C the engine gets one SIGINT, so that it finishes what is under way and gives its lock back; it is
    waited for STOP_PATIENCE seconds and then killed. Raises Interrupted then.
    """
    command = [str(engine), *arguments, "--non-interactive", "--color", "never"]
    with tempfile.TemporaryDirectory(prefix="mvno-pulumi-") as folder:
        log = Path(folder, "events")
        if on_event is not None:
            log.touch(mode=0o600)
            command += ["--event-log", str(log)]
            environment = {**environment, "PULUMI_DEBUG_COMMANDS": "true"}  # the flag is unknown without it
        try:
            process = subprocess.Popen(
                command,
                cwd=project_root(),
                env={**os.environ, **environment},
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                # Its own group: a terminal's Ctrl-C comes to us alone, and we pass it on once.
                start_new_session=True,
            )
        except OSError as error:
            raise EnvironmentUnfit(f"{engine} cannot be run: {error.strerror}", "run ./mvno doctor") from error
        done = threading.Event()
        stop = functools.partial(process.send_signal, signal.SIGINT)
        reader = threading.Thread(target=_follow, args=(log, on_event, on_tick, done, stop), daemon=True)
        if on_event is not None:
            reader.start()
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout)
        except BaseException as error:
            _stop(process)
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted(f"pulumi {arguments[0]} was interrupted") from None
            raise
        finally:
            done.set()
            if on_event is not None:
                reader.join()
        return Answer(process.returncode, stdout, stderr)


def _stop(process: subprocess.Popen[str]) -> None:
    for number, patience in ((signal.SIGINT, STOP_PATIENCE), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            # communicate, not wait: the engine must be able to write its last words.
            process.communicate(timeout=patience)
            return
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:
            continue  # a second Ctrl-C: the harder signal at once
        except ValueError:
            process.wait(timeout=patience)
            return


def _follow(
    log: Path,
    on_event: Callable[[dict[str, Any]], None] | None,
    on_tick: Callable[[], bool] | None,
    done: threading.Event,
    stop: Callable[[], None],
) -> None:
    assert on_event is not None
    rest, ticks, stopped = "", 0, False
    with open(log, encoding="utf-8") as stream:
        while True:
            last = done.is_set()
            chunk = stream.read()
            lines = (rest + chunk).split("\n")
            rest = lines.pop()
            for line in filter(None, lines):
                try:
                    on_event(json.loads(line))
                except ValueError:
                    continue
            if last:
                return
            ticks += 1
            if on_tick is not None and ticks % 10 == 0 and on_tick() and not stopped:
                stopped = True
                stop()
            done.wait(0.1)
