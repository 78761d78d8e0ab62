"""Stack settings as types, with errors that name the setting."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pulumi

from mvnobox.errors import BadInput
from mvnobox.render import CoreSlice, Epc, Forwarding, Images, Plmn, Roaming, SbiTls, Subscribers

_STACK = re.compile(r"^(?P<layer>[a-z][a-z0-9-]*)\.(?P<env>[a-z][a-z0-9-]{0,15})$")


def layer_of(stack: str) -> tuple[str, str]:
    """(layer or brand, env) of a stack's name."""
    match = _STACK.match(stack)
    if match is None:
        raise BadInput(
            f"the stack is called {stack!r}", "stacks are called platform.<env> or <brand>.<env>, as platform.dev"
        )
    return match["layer"], match["env"]


def images_from(value: Any) -> Images:
    """The setting `images`: an object with full references; those of published images may be left out."""
    needed = {"services", "coresim", "postgresql"}
    known = {field.name for field in dataclasses.fields(Images)}
    ok = isinstance(value, dict) and needed <= set(value) <= known and all(isinstance(v, str) for v in value.values())
    if not ok:
        raise BadInput(
            f"the setting images is {value!r}",
            f"an object with {', '.join(sorted(needed))} and perhaps {', '.join(sorted(known - needed))}, each repository:tag",
        )
    return Images(**value)


def slices_from(value: Any) -> tuple[CoreSlice, ...]:
    """The setting `slices`: a list of `{plmn: {mcc, mnc}, sst, sd}`."""
    try:
        return tuple(CoreSlice(Plmn(**one["plmn"]), int(one["sst"]), one["sd"]) for one in value or [])
    except (TypeError, KeyError, ValueError):
        raise BadInput(
            f"the setting slices is {value!r}",
            'a list of {"plmn": {"mcc": "208", "mnc": "93"}, "sst": 1, "sd": "000001"}',
        ) from None


def epc_from(value: Any) -> Epc | None:
    """The setting `epc`, 4G: docs/open5gs.md."""
    return Epc.of_setting(value)


def roaming_from(value: Any) -> Roaming | None:
    """The setting `roaming`, the SEPP: docs/open5gs.md."""
    return Roaming.of_setting(value)


def sbi_tls_from(value: Any, core: str) -> SbiTls | None:
    """The setting `sbiTls`, TLS between Open5GS's functions: docs/open5gs.md."""
    return SbiTls.of_setting(value, core)


def subscribers_from(uri: str | None, *, encrypted: bool, tls_secret: str | None) -> Subscribers | None:
    """The settings `subscribers` and `subscribersTls`, a MongoDB of one's own: docs/directory.md."""
    return Subscribers.of_setting(uri, encrypted=encrypted, tls_secret=tls_secret)


def monitoring_from(value: str | None) -> str | None:
    """The setting `monitoringNamespace`: whose pods may read metrics."""
    if value is not None and not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
        raise BadInput(
            f"the setting monitoringNamespace is {value!r}", "the name of a namespace, for instance monitoring"
        )
    return value


def forwarding_from(value: str | None) -> Forwarding:
    """The setting `forwarding`: how user planes come to forward."""
    if value is None or value == "node":
        return "node"
    if value == "sysctl":
        return "sysctl"
    raise BadInput(f"the setting forwarding is {value!r}", "node or sysctl: docs/open5gs.md")


def lab_ues_from(value: str | None) -> int:
    """The setting `labUes`: UEs of UERANSIM at a time."""
    if value is None:
        return 1
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 64:
        raise BadInput(f"the setting labUes is {value!r}", "a number from 1 to 64")
    return int(value)


def brand_file(path: str) -> Path:
    """The setting `brandFile`: absolute, or relative to the project."""
    return Path(pulumi.get_root_directory()) / path
