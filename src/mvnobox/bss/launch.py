"""`python -m mvnobox.bss provision`: a batch of lines from the command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import json
import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import asyncpg
import uvloop

from mvnobox.bss import bulk
from mvnobox.bss.context import BssSettings, Context, TmfError
from mvnobox.service.database import TROUBLE
from mvnobox.service.settings import load_settings

COLUMNS = ("index", "productId", "msisdn", "iccid", "imsi", "activationCode")
Opened = Callable[[BssSettings], contextlib.AbstractAsyncContextManager[Context]]


def provision(arguments: list[str], opened: Opened) -> NoReturn:
    """Run the command; the exit code is 0, 1 for a failure on the way, 2 for what cannot be asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m mvnobox.bss provision",
        description="Make many lines in one go. What was made goes to standard output, a line each, without keys; "
        "the same batch again goes on where it stopped and tells again what there is.",
    )
    parser.add_argument("--config", required=True, help="the service's settings, YAML")
    parser.add_argument("--batch", required=True, help="the batch's id: repeating it never makes a line twice")
    parser.add_argument("--count", required=True, type=int, help="how many lines, 1 to 1,000,000")
    parser.add_argument("--plan", required=True, help="the id of a plan of the brand")
    parser.add_argument("--format", choices=("ndjson", "csv"), default="ndjson")
    parser.add_argument("--identity-verified", action="store_true", help="the lines' holders are known and verified")
    asked = parser.parse_args(arguments)
    if not 1 <= asked.count <= 1_000_000:
        parser.error("--count is a number from 1 to 1,000,000")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            raise SystemExit(runner.run(_provision(asked, opened)))
        except TmfError as error:
            print(f"provision: {error.reason}" + (f": {error.message}" if error.message else ""), file=sys.stderr)
            raise SystemExit(2 if error.status in (400, 409) else 1) from None
        except BrokenPipeError:
            # Whoever read has gone; nothing may be flushed to the pipe at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except asyncpg.UndefinedTableError:
            print("provision: the database has no BSS yet: run migrate first", file=sys.stderr)
            raise SystemExit(1) from None
        except TROUBLE as error:
            print(f"provision: the database does not answer ({type(error).__name__}); run it again", file=sys.stderr)
            raise SystemExit(1) from None


async def _provision(asked: argparse.Namespace, opened: Opened) -> int:
    started = told = time.monotonic()
    async with opened(load_settings(BssSettings, asked.config)) as context:
        await bulk.begin(context, asked.batch, asked.plan, asked.count, identity_verified=asked.identity_verified)
        before = (await bulk.read(context, asked.batch))["made"]
        table = csv.writer(sys.stdout)
        if asked.format == "csv":
            table.writerow(COLUMNS)
        count = 0
        async for line in bulk.lines(context, asked.batch):
            count += 1
            if asked.format == "csv":
                table.writerow([line[name] for name in COLUMNS])
            else:
                sys.stdout.write(json.dumps(line) + "\n")
            if time.monotonic() - told > 5:
                told = time.monotonic()
                print(f"provision: {count} of {asked.count}", file=sys.stderr)
        sys.stdout.flush()
    seconds = time.monotonic() - started
    new = count - before
    print(
        f"provision: {count} lines, {new} of them new, {seconds:.1f} s ({new / seconds:.0f} a second)", file=sys.stderr
    )
    return 0
