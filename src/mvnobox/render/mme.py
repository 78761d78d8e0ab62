"""An MME, as an option of 4G: for laboratories and private networks with eNBs of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mvnobox.errors import BadInput
from mvnobox.render.networks import check_networks

S1_PORT = 36412
# Labels as in host names, and none of the beginnings and ends that are reserved (TS 23.003 clause 9.1.1).
_APN = re.compile(
    r"^(?!rac|lac|sgsn|rnc)(?=.{1,63}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(?<!\.gprs)$"
)
# 0 and 65534 say that there is none (TS 23.003 clause 19.4.2.3).
_TACS = range(1, 65534)


@dataclass(frozen=True)
class Mme:
    """A platform's MME. Raises BadInput."""

    # Which brand's packet gateway an APN is at.
    apns: tuple[tuple[str, str], ...]
    # IPv4 networks of eNBs: S1-MME and S1-U are open to them.
    enbs: tuple[str, ...]
    tac: int = 1

    def __post_init__(self) -> None:
        if not self.apns:
            raise BadInput("the MME has no APNs", 'which brand each is of: "apns": {"silverline": "silverline"}')
        for apn, _ in self.apns:
            if not isinstance(apn, str) or not _APN.match(apn):
                raise BadInput(f"an APN of the MME is {apn!r}", "a network identifier as TS 23.003 clause 9.1.1 has it")
        if not self.enbs:
            raise BadInput(
                "the MME has no enbs: policies let nobody in on S1", 'for instance "enbs": ["198.51.100.0/24"]'
            )
        check_networks(self.enbs, whose="eNBs", what="S1", own="the eNBs'")
        if isinstance(self.tac, bool) or not isinstance(self.tac, int) or self.tac not in _TACS:
            raise BadInput(f"the MME's tac is {self.tac!r}", f"a number from 1 to {_TACS[-1]}")

    def check(self, *, brands: Iterable[str], serving_gateway: bool) -> None:
        """Against the rest of 4G's settings. Raises BadInput."""
        if not serving_gateway:
            raise BadInput("the MME has no serving gateway here", 'set "servingGateway": true as well')
        known = set(brands)
        for apn, brand in self.apns:
            if brand not in known:
                raise BadInput(
                    f"the APN {apn} is at {brand!r}, which has no packet gateway",
                    f"name it in brands as well; those are {', '.join(sorted(known)) or 'none'}",
                )

    @property
    def setting(self) -> dict[str, object]:
        """As the setting `epc` has it."""
        return {"apns": dict(self.apns), "enbs": list(self.enbs), "tac": self.tac}

    @classmethod
    def of_setting(cls, value: object) -> Mme | None:
        """From `mme` of the setting `epc`; None without it. Raises BadInput."""
        if value is None:
            return None
        try:
            given = dict(value)  # type: ignore[call-overload]
            apns, enbs = dict(given.pop("apns")), given.pop("enbs", [])
            if not isinstance(enbs, list):
                raise TypeError
            return cls(apns=tuple(sorted(apns.items())), enbs=tuple(enbs), **given)
        except (TypeError, KeyError, ValueError):
            raise BadInput(
                f"mme of the setting epc is {value!r}",
                '{"apns": {"silverline": "silverline"}, "enbs": ["198.51.100.0/24"]}, and perhaps tac: docs/open5gs.md',
            ) from None
