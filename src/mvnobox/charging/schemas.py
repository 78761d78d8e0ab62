"""Nchf_ConvergedCharging's data types that the OCS reads (TS 32.291 clause 6.1.6), and those of the management API."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

# Sums of many such amounts stay within PostgreSQL's bigint.
LARGEST_AMOUNT = 2**53
Amount = Annotated[int, Field(ge=0, le=LARGEST_AMOUNT, strict=True)]
Positive = Annotated[int, Field(gt=0, le=LARGEST_AMOUNT, strict=True)]
Unit = Literal["octets", "seconds", "messages", "minor"]
SubscriberId = Annotated[str, Field(pattern=r"^(imsi-\d{5,15}|msisdn-\d{5,15}|nai-.{1,200}|extid-.{1,200})$")]


class Incoming(BaseModel):
    """What TS 32.291 adds in later releases is ignored, as TS 29.501 clause 5.2.9 asks of a server."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class RequestedUnit(Incoming):
    total_volume: Amount | None = None
    time: Amount | None = None


class UsedUnitContainer(Incoming):
    local_sequence_number: Amount
    total_volume: Amount | None = None
    uplink_volume: Amount | None = None
    downlink_volume: Amount | None = None

    @property
    def octets(self) -> int:
        if self.total_volume is not None:
            return self.total_volume
        return (self.uplink_volume or 0) + (self.downlink_volume or 0)


class MultipleUnitUsage(Incoming):
    rating_group: Annotated[int, Field(ge=0, le=2**32 - 1)]
    requested_unit: RequestedUnit | None = None
    used_unit_container: Annotated[list[UsedUnitContainer], Field(max_length=100)] = []


class NfIdentification(Incoming):
    node_functionality: str = Field(max_length=100, alias="nodeFunctionality")
    n_f_name: str | None = Field(default=None, max_length=100, alias="nFName")


class ChargingDataRequest(Incoming):
    """ChargingDataRequest (TS 32.291 clause 6.1.6.2.1.1)."""

    subscriber_identifier: SubscriberId | None = None
    nf_consumer_identification: NfIdentification
    charging_id: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    invocation_time_stamp: dt.datetime
    invocation_sequence_number: Annotated[int, Field(ge=0, le=2**31 - 1)]
    notify_uri: str | None = Field(default=None, max_length=2000, pattern=r"^https?://")
    multiple_unit_usage: Annotated[list[MultipleUnitUsage], Field(max_length=50)] = []


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("is not an IANA time zone")
    return value


class AccountPut(Closed):
    subscriber_ids: Annotated[list[SubscriberId], Field(min_length=1, max_length=20)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    status: Literal["active", "suspended", "terminated"] = "active"


class AccountPatch(Closed):
    status: Literal["active", "suspended", "terminated"]


class BucketGrant(Closed):
    unit: Unit
    amount: Positive
    valid_until: dt.datetime | None = None
    priority: Annotated[int, Field(ge=0, le=1000)] = 10
    source: Annotated[str, Field(min_length=1, max_length=100)]


class Grant(Closed):
    request_id: uuid.UUID
    buckets: Annotated[list[BucketGrant], Field(min_length=1, max_length=20)]
