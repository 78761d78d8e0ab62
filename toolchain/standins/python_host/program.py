"""Runs one Pulumi program in its own interpreter: connects the SDK to the engine, then runs the program's main.

Exit codes: 0; 1 for an error that the language host tells; 32 when the error was told through the engine's log.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import runpy
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

TOLD_ALREADY = 32


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run a Pulumi program")
    for name in (
        "monitor",
        "engine",
        "project",
        "stack",
        "organization",
        "root_directory",
        "pwd",
        "dry_run",
        "tracing",
    ):
        parser.add_argument(f"--{name}")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("program")
    parser.add_argument("rest", nargs="*")
    return parser.parse_args()


def _own_frames(error: BaseException, program: str) -> str:
    """The traceback from the program's first own line on: what lies above it is this file's business."""
    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(program):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace or error.__traceback__))


def main() -> int:
    """Run the program; the exit code."""
    given = _arguments()
    import pulumi
    from pulumi import runtime

    runtime.set_all_config(runtime.get_config_env(), runtime.get_config_secret_keys_env())
    runtime.configure(
        runtime.Settings(
            project=given.project,
            stack=given.stack,
            monitor=given.monitor,
            engine=given.engine,
            parallel=given.parallel,
            dry_run=given.dry_run == "true",
            organization=given.organization,
            root_directory=given.root_directory,
        )
    )
    if given.pwd:
        os.chdir(given.pwd)
    program = os.path.abspath(given.program)
    sys.argv = [given.program, *given.rest]
    # A failing program leaves tasks behind that nobody awaits; the failure itself is told below.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pool = ThreadPoolExecutor(max_workers=4 * max(given.parallel, 1))
    loop.set_default_executor(pool)

    def run() -> None:
        runpy.run_path(program, run_name="__main__")

    try:
        loop.run_until_complete(runtime.run_in_stack(run))
        pool.shutdown(wait=True)
        return 0
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return 1
    except Exception as error:
        # After a resource's failure the engine hangs up, which the SDK raises too: that failure is told already.
        if "resource monitor shut down" not in str(error):
            pulumi.log.error("the program failed:\n" + _own_frames(error, os.path.dirname(program)))
        return TOLD_ALREADY


if __name__ == "__main__":
    # Interrupted programs leave at once: threads that wait for the engine would hold them, and it would wait for us.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: threads that wait for an engine that has hung up would hold the process for seconds.
    os._exit(code)
