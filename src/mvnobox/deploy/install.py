"""`mvno up`: cluster, images, platform, brand, each where it is not there yet."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pulumi.automation import ConfigValue

from mvnobox.deploy import keys
from mvnobox.deploy.brands import find_brand, stack_path
from mvnobox.deploy.cluster import EmbeddedCluster, choose, owner
from mvnobox.deploy.core import CoreChoice, check_core, choose_core, forwarding_of, optional_images
from mvnobox.deploy.directory_login import DIRECTORY_PASSWORD, directory_password, without_password
from mvnobox.deploy.epc import check_epc, check_outside, check_pools, epc_setting, installed_epc, wanted_epc
from mvnobox.deploy.hopeless import Watch
from mvnobox.deploy.images import ensure_images, load_images
from mvnobox.deploy.installation import Installation
from mvnobox.deploy.journey.access import Kubectl
from mvnobox.deploy.operator import await_core, connect, namespace_of
from mvnobox.deploy.paths import home_dir
from mvnobox.deploy.pulumi import Workspace, shell_lines
from mvnobox.deploy.recovery import await_ready, restart_waiting
from mvnobox.deploy.report import Reporter
from mvnobox.deploy.s6a import check_s6a
from mvnobox.deploy.sbi_tls import (
    check_own_secrets,
    check_sbi_tls,
    check_simulated,
    installed_sbi_tls,
    left_behind,
    sbi_tls_setting,
    wanted_sbi_tls,
)
from mvnobox.deploy.unowned import namespaces_of, refuse_unowned
from mvnobox.errors import BadInput, EnvironmentUnfit
from mvnobox.render import CoreSlice, Epc, SbiTls, operator_core
from mvnobox.spec import BrandSpec, check_together


@dataclass(frozen=True)
class Installed:
    """What `up` brought up."""

    brand: str
    display_name: str
    changed: int
    hint: str
    # Whether the kit has a UE there to prove it with.
    can_verify: bool = True


def _plain(value: str) -> ConfigValue:
    return ConfigValue(value=value)


def _secret(value: str) -> ConfigValue:
    return ConfigValue(value=value, secret=True)


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """One `up` or `down` at a time on an installation. Raises EnvironmentUnfit."""
    home_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(home_dir() / ".lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentUnfit("another mvno is at work on this installation", "wait until it has ended") from None
        yield


def up(
    *, brand: str, env: str, core: str, cluster: str, report: Reporter, epc: bool = False, sbi_tls: bool = False
) -> Installed:
    """Bring up the platform and a brand. What is wrong with the input is said before anything is touched."""
    file, spec = find_brand(brand)
    if not env.isalnum() or not env.islower() or len(env) > 16:
        raise BadInput(f"{env!r} is no name for an environment", "lower-case letters and digits, at most 16")
    installation = Installation(env)
    others = [(str(one.file), one_spec) for one, one_spec in installation.specs() if one.name != spec.name]
    check_together([*others, (str(file), spec)])
    check_core(core)
    check_epc(core, epc)
    check_sbi_tls(core, sbi_tls)
    before_4g, before_tls = installed_epc(installation), installed_sbi_tls(installation)
    check_pools(before_4g, spec, core, epc)
    if core == "operator":
        operator_core(spec, namespace_of(spec, env))
    with only_one():
        choice = choose(cluster)
        check_outside(before_4g, choice.kind)
        report.note(f"cluster: {choice.kind}, context {choice.context} ({choice.reason})")
        if choice.kind == "embedded":
            EmbeddedCluster().up(report)
        kubectl = Kubectl(choice)
        refuse_unowned(kubectl, choice, namespaces_of(spec.name, env))
        if choice.kind == "embedded":
            owner.claim()
        installation.remember_cluster(choice)
        before = next((one.core for one in installation.brands() if one.name == spec.name), None)
        chosen = choose_core(core, choice, before)
        report.note(_core_said(chosen))
        has_4g = wanted_epc(before_4g, spec, chosen.core, epc)
        if has_4g and epc:
            report.note(f"4G: realm {has_4g.realm}; the host network is a test peer of the kit's own")
        shared = _shared_core(installation, spec, chosen)
        shared_core = str(shared["core"].value)
        optional = optional_images(choice.kind, shared_core)
        if shared_core == "open5gs":
            check_s6a(kubectl, has_4g, f"platform-{env}", sctp_over_tcp="sctp" in optional, report=report)
        has_tls = wanted_sbi_tls(before_tls, chosen.core, sbi_tls, shared_core)
        following = [*left_behind(installation, has_tls, spec.name), *without_password(installation, spec.name)]
        if has_tls:
            cores = {one.name: one.core for one in installation.brands()} | {spec.name: chosen.core}
            check_simulated(has_tls, [name for name, its_core in cores.items() if its_core == "simulated"])
            own = [spec.name] if chosen.core == "open5gs" else []
            check_own_secrets(kubectl, has_tls, installation, own, report)
            report.note(f"SBI: TLS with certificates on both sides, {has_tls.said}")
        images = load_images(ensure_images(report, optional), choice, report)
        workspace = Workspace(choice.kubeconfig, report)
        common = {
            "context": _plain(choice.context),
            "clusterIdentifier": _plain(f"mvno-{choice.context}"),
            "images": _plain(json.dumps(images, sort_keys=True)),
        }
        restart_waiting(kubectl, report)
        workspace.watch = Watch(kubectl)
        platform = f"platform.{env}"
        if has_4g:
            shared["epc"] = _plain(epc_setting(has_4g))
        shared[DIRECTORY_PASSWORD] = _secret(directory_password(env))
        workspace.up(platform, {**common, **shared, **_platform_settings(platform, has_tls)}, report)
        changed = workspace.last_changes.changed
        layers = [(spec.name, chosen.core, file), *((one.name, one.core, one.file) for one in following)]
        for name, its_core, its_file in layers:
            layer = _brand_layer(f"{name}.{env}", name, its_core, its_file, has_4g, has_tls)
            if its_core == "simulated":
                layer[DIRECTORY_PASSWORD] = _secret(directory_password(env))
            if (forwarding := forwarding_of(choice.kind)) != "node":
                # The default is left unwritten: on a cluster of one's own the setting is the operator's.
                layer["forwarding"] = _plain(forwarding)
            workspace.up(f"{name}.{env}", {**common, **layer}, report)
            changed += workspace.last_changes.changed
        await_ready(kubectl, report)
        if chosen.core == "operator":
            report.note(await_core(connect(choice), spec, env, report))
    return Installed(spec.name, spec.display_name, changed, _hint(), can_verify=chosen.core != "operator")


def _core_said(chosen: CoreChoice) -> str:
    said = f"core: {chosen.core} ({chosen.reason})"
    if chosen.core == "simulated":
        return f"{said}; it is a simulation, with real packets and real charging"
    if chosen.core == "operator":
        return f"{said}; the open5gs-operator runs it, without charging of data"
    if chosen.sctp_over_tcp:
        said += "; this kernel has no SCTP: N2 is carried over TCP, which is for laboratories only"
    return said


def _shared_core(installation: Installation, spec: BrandSpec, chosen: CoreChoice) -> dict[str, ConfigValue]:
    """What the platform has to know of the brands' cores: Open5GS's control plane, with the slices that it serves."""
    served = [one_spec for one, one_spec in installation.specs() if one.core == "open5gs" and one.name != spec.name]
    if chosen.core == "open5gs":
        served.append(spec)
    slices = [asdict(CoreSlice.of(one)) for one in sorted(served, key=lambda one: one.name)]
    core = "open5gs" if served else "simulated"
    return {"core": _plain(core), "slices": _plain(json.dumps(slices, sort_keys=True))}


def _platform_settings(stack: str, tls: SbiTls | None) -> dict[str, ConfigValue]:
    private = keys.key(stack, "directoryPrivateKey")
    secured = {"sbiTls": _plain(sbi_tls_setting(tls))} if tls else {}
    if tls and tls.automatic:
        secured["sbiAuthorityKey"] = _secret(keys.key(stack, "sbiAuthorityKey"))
    passwords = ("postgresPassword", "ocsPassword", "directoryPassword")
    return {
        **{name: _secret(keys.password(stack, name)) for name in passwords},
        "ocsTenantKey": _secret(keys.key(stack, "ocsTenantKey")),
        "directoryPrivateKey": _secret(private),
        "directoryPublicKey": _plain(keys.public_key(private)),
        **secured,
    }


def _brand_layer(
    stack: str, name: str, core: str, file: Path, epc: Epc | None, tls: SbiTls | None
) -> dict[str, ConfigValue]:
    own = {"core": _plain(core), "brandFile": _plain(stack_path(file)), **_brand_settings(stack)}
    if epc and name in epc.brands:
        own["epc"] = _plain(epc_setting(epc))
    if tls and core == "open5gs":
        own["sbiTls"] = _plain(sbi_tls_setting(tls))
    return own


def _brand_settings(stack: str) -> dict[str, ConfigValue]:
    return {
        **{name: _secret(keys.password(stack, name)) for name in ("bssPassword", "ctfPassword", "bssAdminToken")},
        "simKey": _secret(keys.key(stack, "simKey")),
    }


def _hint() -> str:
    return './mvno status; ./mvno up --brand NAME for another brand; eval "$(./mvno env)" for pulumi and kubectl'


def shell_environment(env: str) -> str:
    """Lines for a shell's `eval`, with which plain `pulumi` and `kubectl` work on an installation."""
    return shell_lines(Installation(env).cluster().kubeconfig)
