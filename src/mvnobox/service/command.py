"""`python -m mvnobox.<service> VERB --config FILE`."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from mvnobox.service.logs import configure_logs

Verb = Callable[[str], Coroutine[Any, Any, int | None]]


def run_command(name: str, verbs: dict[str, Verb]) -> None:
    """Parse the command line and run a verb with the path of its settings; its result is the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m mvnobox.{name}")
    parser.add_argument("verb", choices=sorted(verbs))
    parser.add_argument("--config", required=True, help="the service's settings, YAML")
    arguments = parser.parse_args()
    configure_logs()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            raise SystemExit(runner.run(verbs[arguments.verb](arguments.config)) or 0)
        except (OSError, RuntimeError) as error:
            logging.getLogger(name).error("%s: %s", type(error).__name__, error)
            raise SystemExit(1) from None
