"""`mvno`: the commands. Exit codes: 0 done, 1 failed, 2 bad input, 3 an environment that cannot run it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from mvnobox import __version__
from mvnobox.cli.console import err, out, print_json, reporter
from mvnobox.errors import BadInput, KitError

app = typer.Typer(
    name="mvno",
    help="MVNO in a box: launch a mobile brand on Kubernetes from one file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ledger = typer.Typer(help="The OCS's books.", no_args_is_help=True)
app.add_typer(ledger, name="ledger")
subscribers = typer.Typer(help="A MongoDB of your own that follows the directory.", no_args_is_help=True)
app.add_typer(subscribers, name="subscribers")
rate = typer.Typer(help="What plans sell by the unit.", no_args_is_help=True)
app.add_typer(rate, name="rate")
operator = typer.Typer(help="Brands whose core the cluster's open5gs-operator runs.", no_args_is_help=True)
app.add_typer(operator, name="operator")

BrandOption = Annotated[str, typer.Option("--brand", "-b", help="A brand's name (brands/NAME.yaml) or its file.")]
EnvOption = Annotated[str, typer.Option("--env", "-e", help="Which environment: the second half of the stacks' names.")]
EpcOption = Annotated[bool, typer.Option("--epc", help="4G beside 5G on Open5GS, with a test peer as host network.")]
SbiTlsOption = Annotated[
    bool, typer.Option("--sbi-tls", help="TLS with certificates on both sides between Open5GS's functions.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output and nothing else.")]


@app.command()
def up(
    brand: BrandOption = "silverline",
    env: EnvOption = "dev",
    core: Annotated[str, typer.Option(help="auto, open5gs, operator or simulated.")] = "auto",
    cluster: Annotated[str, typer.Option(help="auto, embedded or the name of a kubeconfig context.")] = "auto",
    epc: EpcOption = False,
    sbi_tls: SbiTlsOption = False,
    verify: Annotated[bool, typer.Option(help="End with the customer's journey.")] = True,
) -> None:
    """Bring up the platform and a brand, and prove them with a customer's journey."""
    from mvnobox.cli.results import print_journey
    from mvnobox.deploy.install import up as bring_up
    from mvnobox.deploy.journey import verify as journey

    report = reporter()
    installed = bring_up(brand=brand, env=env, core=core, cluster=cluster, report=report, epc=epc, sbi_tls=sbi_tls)
    if verify and installed.can_verify:
        result = journey(brand=installed.brand, env=env, report=report)
        print_journey(result)
        if result.passed and epc:
            result = journey(brand=installed.brand, env=env, report=report, access="4g")
            print_journey(result)
        if not result.passed:
            raise typer.Exit(1)
    out.print(f"\n[bold]{installed.display_name}[/] is up. Next: {installed.hint}")


@app.command()
def verify(
    brand: BrandOption = "silverline",
    env: EnvOption = "dev",
    access: Annotated[str, typer.Option(help="5g, or 4g where `up --epc` has brought it.")] = "5g",
    origin: Annotated[
        str, typer.Option("--from", help="inside, or outside: 4G's host network is outside of the cluster.")
    ] = "inside",
    core: Annotated[
        str | None, typer.Option(help="open5gs or simulated: refuse to pass on another. Without: the brand's own.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The customer's journey, end to end, pass or fail per step."""
    from mvnobox.cli.results import print_journey
    from mvnobox.deploy.brands import find_brand
    from mvnobox.deploy.journey import verify as journey

    if access not in ("5g", "4g"):
        raise BadInput(f"there is no access {access!r}", "take 5g or 4g")
    if origin not in ("inside", "outside") or (origin == "outside" and access != "4g"):
        raise BadInput(f"there is no {access.upper()} from {origin!r}", "take inside; or outside with --access 4g")
    if core not in (None, "open5gs", "simulated"):
        raise BadInput(f"there is no journey on a core {core!r}", "take open5gs or simulated, or leave --core out")
    name, outside = find_brand(brand)[1].name, origin == "outside"
    result = journey(brand=name, env=env, report=reporter(), access=access, outside=outside, core=core)  # type: ignore[arg-type]
    if as_json:
        print_json(result.document())
    else:
        print_journey(result)
    if not result.passed:
        raise typer.Exit(1)


@app.command()
def status(env: EnvOption = "dev", as_json: JsonOption = False) -> None:
    """What is installed and whether it is healthy."""
    from mvnobox.cli.results import print_status
    from mvnobox.deploy.status import status as read_status

    found = read_status(env)
    if as_json:
        print_json(found)
    else:
        print_status(found)


@app.command()
def down(
    brand: Annotated[str | None, typer.Option("--brand", "-b", help="Remove this brand only.")] = None,
    env: EnvOption = "dev",
    everything: Annotated[bool, typer.Option("--all", help="Also remove built tools, images and packages.")] = False,
) -> None:
    """Remove the stacks and an embedded cluster (keeps built tools and images)."""
    from mvnobox.deploy.remove import down as take_down

    take_down(brand=brand, env=env, everything=everything, report=reporter())


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Whether this machine can run the kit, and what to do where it cannot."""
    from mvnobox.cli.results import print_checks
    from mvnobox.deploy.hostcheck import checks

    found = checks()
    if as_json:
        print_json({"ok": all(check.ok for check in found), "checks": [vars_of(check) for check in found]})
    else:
        print_checks(found)
    if not all(check.ok for check in found):
        raise typer.Exit(3)


@app.command()
def validate(
    files: Annotated[list[Path] | None, typer.Argument(help="BrandSpec files.")] = None,
    as_json: JsonOption = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema for editors.")] = False,
) -> None:
    """Check BrandSpec files: every error at once, alone and against each other."""
    from mvnobox.spec import InvalidSpec, brand_schema, check_together, load_brand

    if schema:
        print_json(brand_schema())
        return
    if not files:
        raise typer.BadParameter("name at least one file", param_hint="FILES")
    problems = []
    loaded = []
    for file in files:
        try:
            loaded.append((str(file), load_brand(file)))
        except InvalidSpec as error:
            problems += error.problems
    try:
        check_together(loaded)
    except InvalidSpec as error:
        problems += error.problems
    if as_json:
        print_json({"valid": not problems, "problems": [vars_of(problem) for problem in problems]})
        if problems:
            raise typer.Exit(2)
        return
    if problems:
        raise InvalidSpec(problems)
    for name, spec in loaded:
        out.print(f"{name}: brand {spec.name} ({spec.display_name}), {len(spec.plans)} plans: valid", soft_wrap=True)


@app.command()
def render(
    out_dir: Annotated[Path, typer.Option("--out", help="An empty or new folder.")],
    brand: BrandOption = "silverline",
    env: EnvOption = "dev",
    core: Annotated[str, typer.Option(help="auto, open5gs, operator or simulated.")] = "auto",
    epc: EpcOption = False,
    sbi_tls: SbiTlsOption = False,
) -> None:
    """Write what will be applied as files: chart values, configurations, manifests. No secret is among them."""
    from mvnobox.deploy.rendering import render_to

    count = render_to(out_dir, brand=brand, env=env, core=core, report=reporter(), epc=epc, sbi_tls=sbi_tls)
    out.print(f"{count} files in {out_dir}", soft_wrap=True)


@ledger.command("check")
def ledger_check(env: EnvOption = "dev", as_json: JsonOption = False) -> None:
    """Whether the OCS's books balance: granted = used + held + available + lapsed, entries = balances, none below zero."""
    from mvnobox.deploy.ledger import check_ledger

    found = check_ledger(env)
    if as_json:
        print_json({"ok": not found.differences, "differences": found.differences})
    else:
        for line in found.differences:
            out.print(line, markup=False, soft_wrap=True)
        out.print(f"{len(found.differences)} differences")
    if found.differences:
        raise typer.Exit(1)


@subscribers.command("check")
def subscribers_check(env: EnvOption = "dev", as_json: JsonOption = False) -> None:
    """Whether the MongoDB of the setting `subscribers` has what the directory has; exit code 1 if not."""
    from mvnobox.deploy.subscribers import check_subscribers

    found = check_subscribers(env)
    if as_json:
        print_json({"ok": not found.differences, "differences": found.differences, "compared": found.compared})
    else:
        for line in [*found.differences, found.compared, f"{len(found.differences)} differences"]:
            out.print(line, markup=False, soft_wrap=True)
    if found.differences:
        raise typer.Exit(1)


@subscribers.command("resync")
def subscribers_resync(env: EnvOption = "dev") -> None:
    """Have the directory look at every document of that MongoDB again."""
    from mvnobox.deploy.subscribers import resync_subscribers

    out.print(resync_subscribers(env), soft_wrap=True)


@rate.command("explain")
def rate_explain(
    plan: Annotated[str, typer.Option(help="The plan's id.")],
    brand: BrandOption = "silverline",
    data: Annotated[str | None, typer.Option(help="So much data, for instance '20 MB'.")] = None,
    voice: Annotated[str | None, typer.Option(help="A call of this length, for instance '90 s'.")] = None,
    sms: Annotated[int | None, typer.Option(help="So many messages.")] = None,
    to: Annotated[str | None, typer.Option(help="The called number, as it is dialled.")] = None,
    visited: Annotated[str | None, typer.Option(help="The visited network's MCC and MNC; none: at home.")] = None,
    at: Annotated[str | None, typer.Option(help="When, for instance 2026-12-31T20:15; none: now.")] = None,
    left: Annotated[str | None, typer.Option(help="What is left of the allowance; none said: a fresh period.")] = None,
    balance: Annotated[str | None, typer.Option(help="The money on the balance, for instance 5.00.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Which bucket pays what of a use on a plan, at what price and why."""
    from mvnobox.cli.rating import Use, explain_use, print_explanation
    from mvnobox.deploy.brands import find_brand

    use = Use(data=data, voice=voice, sms=sms, to=to, visited=visited, at=at, left=left, balance=balance)
    found = explain_use(find_brand(brand)[1], plan, use)
    if as_json:
        print_json(found)
    else:
        print_explanation(found)


@operator.command("sync")
def operator_sync(
    brand: BrandOption = "silverline",
    env: EnvOption = "dev",
    keys_in_plain_text: Annotated[
        bool, typer.Option("--keys-in-plain-text", help="Open5GSUsers show Ki and OPc: say that you know it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the operator's subscribers of a brand those of its BSS."""
    from mvnobox.deploy.operator import sync_brand

    found = sync_brand(brand, env, keys_in_plain_text=keys_in_plain_text)
    if as_json:
        print_json(vars_of(found))
    else:
        out.print(f"{found.created} created, {found.changed} changed, {found.removed} removed, {found.same} as before")


@operator.command("drift")
def operator_drift(brand: BrandOption = "silverline", env: EnvOption = "dev", as_json: JsonOption = False) -> None:
    """What differs between a brand's core as desired and as the cluster has it."""
    from mvnobox.deploy.operator import drift_of

    found = drift_of(brand, env)
    if as_json:
        print_json({"drift": found})
    else:
        for line in found:
            out.print(line, markup=False, soft_wrap=True)
        out.print(f"{len(found)} differences")
    if found:
        raise typer.Exit(1)


@app.command("import-image")
def import_image(
    archives: Annotated[list[Path], typer.Argument(help="Archives as `docker save` writes them.")],
) -> None:
    """Hand over images that this machine cannot pull, as those of Open5GS and UERANSIM."""
    from mvnobox.deploy.images.imported import keep

    report = reporter()
    for archive in archives:
        for name in keep(archive, report):
            out.print(name, soft_wrap=True)


@app.command()
def env(env: EnvOption = "dev") -> None:
    """Print the environment for plain `pulumi` and `kubectl`: eval "$(./mvno env)"."""
    from mvnobox.deploy.install import shell_environment

    print(shell_environment(env))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def test(context: typer.Context) -> None:
    """Set up all that the tests need and run them; arguments go to pytest."""
    from mvnobox.cli.testing import run_tests

    raise typer.Exit(run_tests(context.args, reporter()))


@app.command()
def bench(name: Annotated[str, typer.Argument(help="Which one: see bench/.")], as_json: JsonOption = False) -> None:
    """Measure the figures that the README quotes."""
    from mvnobox.cli.benching import run_bench

    result = run_bench(name, reporter())
    if as_json:
        print_json(result)
    else:
        from mvnobox.cli.results import print_bench

        print_bench(result)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def vars_of(item: Any) -> dict[str, Any]:
    """A dataclass as a plain dict."""
    import dataclasses

    return dataclasses.asdict(item)


def run() -> None:
    """The entry point: every error in words, with its exit code; no traceback unless MVNO_DEBUG is set."""
    try:
        code = app(standalone_mode=False, prog_name="mvno")
        sys.exit(code if isinstance(code, int) else 0)
    except KitError as error:
        if os.environ.get("MVNO_DEBUG"):
            raise
        err.print("[red]mvno:[/] ", end="")
        err.print(error.cause, markup=False, soft_wrap=True)
        if error.remedy:
            err.print("  remedy: ", end="")
            err.print(error.remedy, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except TyperException as error:
        # The command line's own complaint about its words.
        error.show()  # type: ignore[attr-defined]
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        err.print("mvno: interrupted. What was under way can be taken up by the same command again.")
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if os.environ.get("MVNO_DEBUG"):
            raise
        where = f"{error.filename}: " if error.filename else ""
        err.print(f"mvno: {where}{error.strerror or error}", markup=False, soft_wrap=True)
        err.print("  remedy: ./mvno doctor says what this machine lacks; MVNO_DEBUG=1 shows where it happened")
        sys.exit(3)
    except Exception as error:
        if os.environ.get("MVNO_DEBUG"):
            raise
        err.print(f"mvno: an error of the kit's own: {type(error).__name__}: {error}", markup=False, soft_wrap=True)
        err.print("  remedy: run again with MVNO_DEBUG=1 and report what it prints")
        sys.exit(1)
