"""The resources `net.gradiant.org/v1` Open5GS and Open5GSUser of the open5gs-operator (1.0.7), typed.

Attributes carry the CRDs' own field names. Every field may be absent, as in the CRDs, and what is absent stays absent:
`to_object(from_object(x)) == x`, also for fields that a newer operator adds. The CRDs declare no defaults; the operator
fills them in its memory when it reads a resource. `Open5GSSpec.effective()` gives what it then works with.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import FieldError, Invalid

GROUP = "net.gradiant.org"
VERSION = "v1"
API_VERSION = f"{GROUP}/{VERSION}"

# The finalizer that the operator sets on a user when it first reads it (its user controller, 1.0.7).
USER_FINALIZER = "finalizer.open5gsuser.net.gradiant.org/user"

# Publicly known: the operator's declared defaults, its samples' and Open5GS's own web interface's example.
PUBLIC_KEYS = frozenset({"465B5CE8B199B49FAA5F0A2EE238A6BC", "E8ED289DEBA952E4283B54E88E6183CA"})

NETWORK_FUNCTIONS = (
    "amf",
    "ausf",
    "bsf",
    "mongoDB",
    "nrf",
    "nssf",
    "pcf",
    "scp",
    "smf",
    "udm",
    "udr",
    "upf",
    "webui",
)
_MEASURED = frozenset({"amf", "pcf", "smf", "upf"})


class _Model(BaseModel):
    # Strict: the CRDs' types are JSON's own, so a number where a text belongs is a mistake and not to be converted.
    # Inputs are kept out of error messages because some of them are keys.
    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True, validate_assignment=True)


class Service(_Model):
    """The type (`ClusterIP`, `NodePort`, `LoadBalancer`) of a function's service `ngap`, `pfcp` or `gtpu`."""

    name: str | None = None
    serviceType: str | None = None


class Function(_Model):
    """One network function. `gtpuDev`, `unprivileged`, `deploymentAnnotations` are read for the UPF only."""

    enabled: bool | None = None
    serviceAccount: bool | None = None
    metrics: bool | None = None
    serviceMonitor: bool | None = None
    service: list[Service] | None = None
    gtpuDev: str | None = None
    deploymentAnnotations: dict[str, str] | None = None
    unprivileged: bool | None = None


class CoreSlice(_Model):
    """An S-NSSAI (TS 23.003 clause 28.4): `sst` decimal, `sd` as `0x` and six hexadecimal digits."""

    sst: str | None = None
    sd: str | None = None


class Configuration(_Model):
    """The core's identity: PLMN, AMF region and set (decimal), tracking area code (decimal), slices."""

    mcc: str | None = None
    mnc: str | None = None
    region: str | None = None
    set: str | None = None
    tac: str | None = None
    slices: list[CoreSlice] | None = None


class Open5GSSpec(_Model):
    """The desired core; 5G functions only."""

    amf: Function | None = None
    ausf: Function | None = None
    bsf: Function | None = None
    mongoDB: Function | None = None
    nrf: Function | None = None
    nssf: Function | None = None
    pcf: Function | None = None
    scp: Function | None = None
    smf: Function | None = None
    udm: Function | None = None
    udr: Function | None = None
    upf: Function | None = None
    webui: Function | None = None
    webuiImage: str | None = None
    open5gsImage: str | None = None
    mongoDBVersion: str | None = None
    configuration: Configuration | None = None

    def effective(self) -> Open5GSSpec:
        """A copy with the values that operator 1.0.7 puts in the place of absent and empty ones."""
        return Open5GSSpec.model_validate(_filled(self.model_dump(exclude_none=True), _spec_defaults()))


class Open5GSStatus(_Model):
    """`ready` is declared, yet operator 1.0.7 never writes it: `None` means that nothing is known."""

    ready: bool | None = None


class Open5GSReference(_Model):
    """The core a user belongs to. Operator 1.0.7 ignores `namespace` and looks in the user's own."""

    name: str | None = None
    namespace: str | None = None


class Open5GSUserSpec(_Model):
    """One subscriber with one slice and one APN. `key` (Ki) and `opc` are 32 hexadecimal digits, in plain text."""

    imsi: str | None = None
    key: str | None = Field(default=None, repr=False)
    opc: str | None = Field(default=None, repr=False)
    sd: str | None = None
    sst: str | None = None
    apn: str | None = None
    open5gs: Open5GSReference | None = None


class Open5GSUserStatus(_Model):
    """Operator 1.0.7 declares no field here; a newer one's are kept."""


class ObjectMeta(_Model):
    """The part of Kubernetes' ObjectMeta that is used here; the rest is kept."""

    name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resourceVersion: str | None = None
    generation: int | None = None
    creationTimestamp: str | None = None
    deletionTimestamp: str | None = None
    finalizers: list[str] | None = None
    labels: dict[str, str] | None = None
    # `kubectl apply` copies the whole object, keys included, into an annotation: not to be printed.
    annotations: dict[str, str] | None = Field(default=None, repr=False)
    managedFields: list[dict[str, Any]] | None = Field(default=None, repr=False)


class Resource(_Model):
    """What both kinds share."""

    KIND: ClassVar[str]
    PLURAL: ClassVar[str]

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)

    @classmethod
    def from_object(cls, document: Any) -> Self:
        """The typed resource from an object as the API server sends it. Raises Invalid."""
        try:
            made = cls.model_validate(document)
        except ValidationError as error:
            fields = tuple(FieldError(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors())
            told = "; ".join(f"{f.field}: {f.message}" for f in fields)
            raise Invalid(
                f"this is no {cls.KIND} of {API_VERSION}: {told}",
                "give the fields the types of the operator's CRD; if the cluster holds it like that, its operator is"
                " of another version than this client knows",
                fields,
            ) from None
        kind = document.get("kind", cls.KIND)
        if kind != cls.KIND:
            raise Invalid(f"this is a {kind}, not a {cls.KIND}", "read it as what it is")
        return made

    def to_object(self) -> dict[str, Any]:
        """The object as the API server takes it: set fields only, with kind and apiVersion."""
        return {"apiVersion": API_VERSION, "kind": self.KIND} | self.model_dump(mode="json", exclude_unset=True)

    @property
    def name(self) -> str:
        """The resource's name. Raises Invalid where it has none."""
        if not self.metadata.name:
            raise Invalid(f"this {self.KIND} has no name", "set metadata.name")
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The resource's namespace. Raises Invalid where it has none."""
        if not self.metadata.namespace:
            raise Invalid(f"{self.KIND} {self.name} has no namespace", "set metadata.namespace")
        return self.metadata.namespace


class Open5GS(Resource):
    """A 5G core run by the operator."""

    KIND = "Open5GS"
    PLURAL = "open5gses"

    spec: Open5GSSpec = Field(default_factory=Open5GSSpec)
    status: Open5GSStatus = Field(default_factory=Open5GSStatus)


class Open5GSUser(Resource):
    """A subscriber of such a core."""

    KIND = "Open5GSUser"
    PLURAL = "open5gsusers"

    spec: Open5GSUserSpec = Field(default_factory=Open5GSUserSpec)
    status: Open5GSUserStatus = Field(default_factory=Open5GSUserStatus)


def _function_defaults(name: str) -> dict[str, Any]:
    measured = name in _MEASURED
    # The types' tags say `serviceMonitor: false`; the controller takes true for the functions with metrics.
    made: dict[str, Any] = {
        "enabled": name != "webui",
        "serviceAccount": False,
        "metrics": measured,
        "serviceMonitor": measured,
    }
    return made | ({"gtpuDev": "eth0", "unprivileged": False} if name == "upf" else {})


def _spec_defaults() -> dict[str, Any]:
    return {name: _function_defaults(name) for name in NETWORK_FUNCTIONS} | {
        "webuiImage": "docker.io/gradiant/open5gs-webui:2.7.5",
        "open5gsImage": "docker.io/gradiant/open5gs:2.7.5",
        "mongoDBVersion": "bitnami/mongodb:latest",
        "configuration": {
            "mcc": "999",
            "mnc": "70",
            "region": "2",
            "set": "1",
            "tac": "0001",
            "slices": [{"sst": "1", "sd": "0xffffff"}],
        },
    }


def _filled(given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    made = dict(given)
    for key, default in defaults.items():
        value = made.get(key)
        if isinstance(default, dict):
            made[key] = _filled(value or {}, default)
        elif value is None or value == "":
            made[key] = default
    return made
