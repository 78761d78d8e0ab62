"""One-time events of Nchf (`oneTimeEvent`, TS 32.291 clause 6.1.6.2.1.1): charged at once, nothing is held after them."""

from __future__ import annotations

import json
from typing import Any

from mvnobox.charging.ledger import Call, Engine, Reply, Units

_FIELDS = {"octets": "totalVolume", "seconds": "time"}


async def charge_event(engine: Engine, call: Call, post: bool) -> Reply:
    """Open a session and end it with what was granted: all that is asked, or nothing. `post` (PEC): what was used counts,
    and nothing is asked.

    As with Diameter's direct debiting, a repeat or a replica that dies in between gets the first outcome: opening and
    ending are each stored once, and what was opened decides how it ends. Raises what the engine raises.
    """
    units = [one._replace(wanted=None) for one in call.units] if post else call.units
    opened = await engine.charge(call._replace(units=units, notify=None))
    if opened.body is None:
        return opened
    document = json.loads(opened.body)
    found: dict[int, dict[str, Any]] = {one["ratingGroup"]: one for one in document["multipleUnitInformation"]}
    whole = all(_has_all(one, found.get(one.rating, {})) for one in units)
    ending = [Units(one.rating, one.unit, one.wanted or 0, None) for one in units if one.wanted] if whole else []
    closing = Call("release", call.brand, call.sequence + 1, ending, None, opened.ref, scene=call.scene)
    closed = await engine.charge(closing)
    document["multipleUnitInformation"] = [_told(one, found.get(one.rating, {}), whole) for one in units]
    return opened._replace(body=json.dumps(document), overrun=opened.overrun + closed.overrun)


def _has_all(asked: Units, info: dict[str, Any]) -> bool:
    if asked.unit is None:
        return False
    return asked.wanted is None or info.get("grantedUnit", {}).get(_field(asked)) == asked.wanted


def _field(asked: Units) -> str:
    return _FIELDS.get(asked.unit or "", "serviceSpecificUnits")


def _told(asked: Units, info: dict[str, Any], whole: bool) -> dict[str, Any]:
    """No validity, no threshold: an event is over."""
    code = info.get("resultCode", "RATING_FAILED")
    told = {"ratingGroup": asked.rating, "resultCode": code}
    if code == "SUCCESS" and asked.wanted is not None and not whole:
        told["resultCode"] = "QUOTA_LIMIT_REACHED"
    return {**told, "grantedUnit": {_field(asked): asked.wanted}} if whole and asked.wanted else told
