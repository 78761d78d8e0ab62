"""From neutral inputs to the operator's resources, refusing what operator 1.0.7 cannot do or would do wrongly.

The operator pastes these values into Open5GS's YAML files as they are, so every value is checked here for its form.
"""

from __future__ import annotations

import re

from .errors import Refusal, Refused
from .inputs import CoreInput, IpVersion, Need, Slice, SubscriberInput
from .models import (
    PUBLIC_KEYS,
    Configuration,
    CoreSlice,
    Function,
    ObjectMeta,
    Open5GS,
    Open5GSReference,
    Open5GSSpec,
    Open5GSUser,
    Open5GSUserSpec,
)

DNN = "internet"
POOL = "10.45.0.0/16"
# The longest name that the operator derives is `<name>-amf-metrics`, a service's, which may have 63 characters.
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,49}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")
_OWN_CHART = "run the core from the kit's own chart (`--core open5gs`)"

_NEEDS = {
    Need.EPC: (
        "the operator runs a 5G core only: no HSS, PCRF or MME",
        f"{_OWN_CHART}, which has 4G, or leave 4G out",
    ),
    Need.CHARGING_ON_N4: (
        "the operator wires its SMF straight to its UPF, so no charging function can stand on N4",
        f"{_OWN_CHART} for prepaid, or sell without charging on this core",
    ),
    Need.SEVERAL_SMF: (
        "the operator runs one SMF for all slices, not one a brand or slice",
        f"{_OWN_CHART}, or give each brand an Open5GS resource of its own",
    ),
    Need.SEVERAL_UPF: (
        "the operator runs one UPF for all slices, not one a brand or slice",
        f"{_OWN_CHART}, or give each brand an Open5GS resource of its own",
    ),
    Need.SBI_TLS: ("the operator's functions talk HTTP without TLS", f"{_OWN_CHART}, or encrypt between nodes (CNI)"),
    Need.ROUTED: ("the operator's UPF puts its UEs behind NAT", f"{_OWN_CHART}, or leave the pool unrouted"),
}


def _slice_refusals(slice_: Slice, where: str) -> list[Refusal]:
    found = []
    if not 0 <= slice_.sst <= 255:
        found.append(Refusal("bad-slice", f"{where}: SST {slice_.sst} is outside 0-255", "give the slice's SST"))
    if slice_.sd is not None and not re.fullmatch(r"[0-9A-Fa-f]{6}", slice_.sd):
        found.append(
            Refusal("bad-slice", f"{where}: SD {slice_.sd!r} is not six hexadecimal digits", "write it like 00000a")
        )
    return found


def _digits(slice_: Slice) -> str:
    # FFFFFF stands for "no SD" (TS 23.003 clause 28.4.2). An empty one would make the operator forget the SST too.
    return (slice_.sd or "ffffff").lower()


def _shown(slice_: Slice) -> str:
    return f"{slice_.sst}/{_digits(slice_)}"


def _ip_refusals(ip: IpVersion) -> list[Refusal]:
    if ip is IpVersion.IPV4:
        return []
    cause = f"{ip.value} sessions: the operator gives its SMF and UPF an IPv4 pool only ({POOL})"
    return [Refusal("ipv6", cause, f"sell IPv4 on this core, or {_OWN_CHART}")]


def _dnn_refusals(dnns: tuple[str, ...], where: str) -> list[Refusal]:
    if not dnns:
        return [Refusal("no-dnn", f"{where} has no DNN", f"give it the DNN {DNN}")]
    if len(dnns) > 1:
        cause = f"{where} has {len(dnns)} DNNs ({', '.join(dnns)}); the operator knows one"
        return [Refusal("second-dnn", cause, f"keep {DNN} only, or {_OWN_CHART}")]
    if dnns[0] != DNN:
        cause = f"{where} has the DNN {dnns[0]!r}; the operator's SMF and UPF serve only {DNN!r}"
        return [Refusal("other-dnn", cause, f"call it {DNN}, or {_OWN_CHART}")]
    return []


def core_refusals(core: CoreInput) -> tuple[Refusal, ...]:
    """Everything that speaks against this core; empty when it can be had."""
    found = [Refusal(need.value, *_NEEDS[need]) for need in sorted(core.needs)]
    found += _ip_refusals(core.ip) + _dnn_refusals(core.dnns, "the core")

    def form(right: object, code: str, cause: str, remedy: str) -> None:
        if not right:
            found.append(Refusal(code, cause, remedy))

    form(
        _NAME.fullmatch(core.name),
        "bad-name",
        f"{core.name!r} is no name for a core: the operator names services after it",
        "use lower-case letters, digits and hyphens, a letter first, at most 51 characters",
    )
    form(
        _NAMESPACE.fullmatch(core.namespace),
        "bad-name",
        f"{core.namespace!r} is no namespace's name",
        "give the namespace that the operator's core is to live in",
    )
    form(re.fullmatch(r"[0-9]{3}", core.mcc), "bad-plmn", f"MCC {core.mcc!r} is not three digits", "give the MCC")
    form(
        re.fullmatch(r"[0-9]{2,3}", core.mnc),
        "bad-plmn",
        f"MNC {core.mnc!r} is not two or three digits",
        "give the MNC with its leading zero",
    )
    form(
        0 <= core.region <= 255, "bad-amf-id", f"AMF region {core.region} is outside 0-255", "choose one of eight bits"
    )
    form(0 <= core.set_id <= 1023, "bad-amf-id", f"AMF set {core.set_id} is outside 0-1023", "choose one of ten bits")
    form(
        1 <= core.tac <= 0xFFFFFF and core.tac != 0xFFFFFE,
        "bad-tac",
        f"TAC {core.tac} is reserved or outside 1-16777215",
        "give the tracking area code in decimal",
    )
    form(
        core.pool in (None, POOL),
        "pool",
        f"the address pool {core.pool} cannot be set: the operator's is {POOL}",
        f"leave the pool out, or {_OWN_CHART}",
    )
    for image in (core.open5gs_image, core.mongodb_image):
        form(
            image is None or _IMAGE.fullmatch(image),
            "bad-image",
            f"{image!r} is no image's name",
            "write it like docker.io/gradiant/open5gs:2.7.5",
        )
    form(core.slices, "no-slice", "the core has no slice, so no UE could register", "give at least one slice")
    names = [_shown(item) for item in core.slices]
    form(len(set(names)) == len(names), "same-slice", f"a slice is named twice: {', '.join(names)}", "name each once")
    for item in core.slices:
        found += _slice_refusals(item, "the core")
    return tuple(found)


def to_open5gs(core: CoreInput) -> Open5GS:
    """The resource for a core. Raises Refused with every reason."""
    if refusals := core_refusals(core):
        raise Refused(refusals)
    # Said explicitly: the controller's own default is true, against its documents, for these four.
    measured = {"metrics": True, "serviceMonitor": core.service_monitors}
    upf = measured | ({"unprivileged": True} if core.unprivileged_upf else {})
    spec: dict[str, object] = {
        "amf": Function.model_validate(measured),
        "pcf": Function.model_validate(measured),
        "smf": Function.model_validate(measured),
        "upf": Function.model_validate(upf),
        "configuration": Configuration(
            mcc=core.mcc,
            mnc=core.mnc,
            region=str(core.region),
            set=str(core.set_id),
            tac=str(core.tac),
            slices=[CoreSlice(sst=str(item.sst), sd=f"0x{_digits(item)}") for item in core.slices],
        ),
    }
    if core.open5gs_image:
        spec["open5gsImage"] = core.open5gs_image
    if core.mongodb_image:
        spec["mongoDBVersion"] = core.mongodb_image
    return Open5GS(metadata=_metadata(core.name, core, core.labels), spec=Open5GSSpec.model_validate(spec))


def subscriber_refusals(
    subscriber: SubscriberInput, core: CoreInput, *, keys_in_plain_text: bool
) -> tuple[Refusal, ...]:
    """Everything that speaks against this subscriber on this core; empty when it can be had."""
    found = _ip_refusals(subscriber.ip)
    if not keys_in_plain_text:
        found.append(
            Refusal(
                "plain-keys",
                "an Open5GSUser holds Ki and OPc in plain text: whoever may read that kind, or etcd, can clone the SIM",
                "acknowledge it (keys_in_plain_text=True) after limiting who reads open5gsusers and encrypting etcd"
                f" at rest, or {_OWN_CHART}, whose directory keeps them encrypted",
            )
        )
    for what, value in (("Ki", subscriber.key), ("OPc", subscriber.opc)):
        if not re.fullmatch(r"[0-9A-Fa-f]{32}", value):
            found.append(Refusal("bad-key", f"the {what} is not 32 hexadecimal digits", f"give the SIM's {what}"))
        elif value.upper() in PUBLIC_KEYS:
            cause = f"the {what} is the operator's default, which is public: anybody could clone this SIM"
            found.append(Refusal("public-key", cause, "give the SIM's own keys, made at random"))
    if not re.fullmatch(r"[0-9]{14,15}", subscriber.imsi):
        found.append(Refusal("bad-imsi", f"IMSI {subscriber.imsi!r} is not 14 or 15 digits", "give the SIM's IMSI"))
    elif not subscriber.imsi.startswith(core.mcc + core.mnc):
        cause = f"IMSI {subscriber.imsi} does not begin with the core's PLMN {core.mcc}{core.mnc}"
        found.append(Refusal("foreign-imsi", cause, "use the core of this IMSI's network"))
    if subscriber.suspended:
        cause = "the operator cannot suspend a subscriber"
        found.append(Refusal("suspended", cause, "delete its Open5GSUser, and create it again to resume"))
    if len(subscriber.slices) > 1:
        named = ", ".join(_shown(item.slice) for item in subscriber.slices)
        cause = f"the subscriber has {len(subscriber.slices)} slices ({named}); an Open5GSUser has one"
        found.append(Refusal("second-slice", cause, f"keep one slice, or {_OWN_CHART}"))
    if not subscriber.slices:
        found.append(Refusal("no-slice", "the subscriber has no slice", "give it one of the core's"))
    for item in subscriber.slices:
        found += _slice_refusals(item.slice, "the subscriber") + _dnn_refusals(item.apns, "the subscriber")
        if _shown(item.slice) not in map(_shown, core.slices):
            cause = f"slice {_shown(item.slice)} is not one of the core's ({', '.join(map(_shown, core.slices))})"
            found.append(Refusal("foreign-slice", cause, "add it to the core, or subscribe to one it has"))
    return tuple(found)


def to_open5gs_user(subscriber: SubscriberInput, core: CoreInput, *, keys_in_plain_text: bool = False) -> Open5GSUser:
    """The resource for a subscriber, named after its IMSI and in the core's namespace, the only one 1.0.7 looks in.

    `keys_in_plain_text` acknowledges that the resource shows the keys. Raises Refused with every reason.
    """
    if refusals := subscriber_refusals(subscriber, core, keys_in_plain_text=keys_in_plain_text):
        raise Refused(refusals)
    subscribed = subscriber.slices[0]
    spec = Open5GSUserSpec(
        imsi=subscriber.imsi,
        key=subscriber.key.upper(),
        opc=subscriber.opc.upper(),
        sst=str(subscribed.slice.sst),
        sd=_digits(subscribed.slice),
        apn=subscribed.apns[0],
        open5gs=Open5GSReference(name=core.name, namespace=core.namespace),
    )
    return Open5GSUser(metadata=_metadata(f"imsi-{subscriber.imsi}", core, subscriber.labels), spec=spec)


def _metadata(name: str, core: CoreInput, labels: object) -> ObjectMeta:
    made = ObjectMeta(name=name, namespace=core.namespace)
    if isinstance(labels, dict) and labels:
        made.labels = dict(labels)
    return made
