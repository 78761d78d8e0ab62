"""TLS with certificates on both sides between Open5GS's functions, as an option (TS 33.501 clause 13.1)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from mvnobox.errors import BadInput
from mvnobox.render.names import OBJECT_NAME
from mvnobox.render.release import CLUSTER_DOMAIN

# The Secret that the kit makes in each namespace, and where every Secret of this kind is mounted.
MADE_SECRET = "sbi-tls"  # nosec B105: a name
MOUNTED_AT = "/etc/mvno-sbi-tls"
# Whoever answers or asks on the SBI: the directory asks the AMF in the UDM's place.
PLATFORM_FUNCTIONS = ("nrf", "scp", "amf", "ausf", "udm", "udr", "pcf", "nssf", "bsf", "sepp", "directory")
BRAND_FUNCTIONS = ("smf",)


def sbi_hosts(namespace: str, functions: Iterable[str]) -> tuple[str, ...]:
    """The names by which functions know each other: those of their Services."""
    return tuple(f"{function}.{namespace}.svc.{CLUSTER_DOMAIN}" for function in functions)


@dataclass(frozen=True)
class SbiTls:
    """Where the certificates of the SBI come from. Raises BadInput."""

    # A Secret of the user's own in each namespace with tls.crt, tls.key and ca.crt; None: the kit makes them.
    own_secret: str | None = None

    def __post_init__(self) -> None:
        if self.own_secret is not None and (
            not isinstance(self.own_secret, str)
            or not OBJECT_NAME.match(self.own_secret)
            or self.own_secret == MADE_SECRET
        ):
            raise BadInput(
                f"the Secret of sbiTls is {self.own_secret!r}",
                "lower-case letters, digits and hyphens, at most 63: a Secret with tls.crt, tls.key and ca.crt in each "
                f"namespace that has functions; {MADE_SECRET} is the kit's own",
            )

    @property
    def automatic(self) -> bool:
        """Whether the kit makes authority and certificates."""
        return self.own_secret is None

    @property
    def secret(self) -> str:
        """The Secret's name, in each namespace."""
        return self.own_secret or MADE_SECRET

    @property
    def made(self) -> tuple[str, ...]:
        """The Secrets that have to be made."""
        return (MADE_SECRET,) if self.automatic else ()

    @property
    def said(self) -> str:
        """Where they come from, in words."""
        return "by an authority of the installation's own" if self.automatic else f"from your Secrets {self.own_secret}"

    @property
    def setting(self) -> dict[str, object]:
        """As the stacks' setting `sbiTls` has it."""
        return {"automatic": True} if self.automatic else {"secret": self.own_secret}

    @classmethod
    def of_setting(cls, value: object, core: str = "open5gs") -> SbiTls | None:
        """From the stacks' setting `sbiTls`; None without one. `core`: the stack's. Raises BadInput."""
        if value is None:
            return None
        if core != "open5gs":
            raise BadInput(
                f"the setting sbiTls is there, and the core is {core}", "only Open5GS has an SBI: remove the setting"
            )
        if isinstance(value, dict):
            if list(value) == ["secret"] and value["secret"] is not None:
                return cls(value["secret"])
            if list(value) == ["automatic"] and value["automatic"] is True:
                return cls()
        raise BadInput(
            f"the setting sbiTls is {value!r}",
            'either {"automatic": true} or {"secret": "my-sbi-tls"}: docs/open5gs.md',
        )


def check_agreement(brand: SbiTls | None, platform: object) -> None:
    """Refuse a brand whose SMF would not understand the platform's functions. Raises BadInput.

    `platform`: the platform stack's output `sbiTls`, the setting or None.
    """
    if brand != SbiTls.of_setting(platform):

        def said(value: object) -> str:
            return "without TLS" if value is None else f"over TLS with {json.dumps(value)}"

        raise BadInput(
            f"the platform's SBI is {said(platform)}, and the brand's {said(brand.setting if brand else None)}",
            "give both stacks the same setting sbiTls; ./mvno up does that",
        )
