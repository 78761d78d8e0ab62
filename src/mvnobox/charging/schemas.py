"""Nchf_ConvergedCharging's data types that the OCS reads and writes (TS 32.291 clause 6.1.6), and the management API's."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

# Sums of a thousand such amounts stay within PostgreSQL's bigint.
LARGEST_AMOUNT = 2**53
UINT32 = 2**32 - 1
# PostgreSQL's text holds no NUL, and nothing here has a use for control characters.
PLAIN = r"^[^\x00-\x1f\x7f]*$"
Amount = Annotated[int, Field(ge=0, le=LARGEST_AMOUNT, strict=True)]
Positive = Annotated[int, Field(gt=0, le=LARGEST_AMOUNT, strict=True)]
Uint32 = Annotated[int, Field(ge=0, le=UINT32, strict=True)]
Unit = Literal["octets", "seconds", "messages", "minor"]
Status = Literal["active", "suspended", "terminated"]
SubscriberId = Annotated[
    str,
    Field(pattern=r"^(imsi-[0-9]{5,15}|msisdn-[0-9]{5,15}|(nai|extid)-[^\x00-\x20\x7f]{1,200})$", max_length=210),
]
NotifyUri = Annotated[
    str,
    Field(pattern=r"^https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._~-]+)(:[0-9]{1,5})?(/[\x21-\x7e]*)?$", max_length=2000),
]


def _utc(value: dt.datetime) -> dt.datetime:
    """TS 29.571's DateTime carries an offset; where one is missing, UTC."""
    return value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)


class Incoming(BaseModel):
    """What later releases add is ignored, as TS 29.501 clause 5.2.9 asks of a server."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class RequestedUnit(Incoming):
    """Octets, seconds, or units of the service; empty: as much as the OCS thinks fit."""

    total_volume: Amount | None = None
    time: Uint32 | None = None
    service_specific_units: Amount | None = None


def _in_unit(unit: Unit, octets: int | None, seconds: int | None, messages: int | None) -> int | None:
    """The amount of a unit; 0 where none at all is said, None where only other units are."""
    found = octets if unit == "octets" else seconds if unit == "seconds" else messages
    return 0 if found is None and octets is seconds is messages else found


class UsedUnitContainer(Incoming):
    local_sequence_number: Amount
    total_volume: Amount | None = None
    uplink_volume: Amount | None = None
    downlink_volume: Amount | None = None
    time: Uint32 | None = None
    service_specific_units: Amount | None = None

    @property
    def octets(self) -> int | None:
        if self.total_volume is not None or (self.uplink_volume is None and self.downlink_volume is None):
            return self.total_volume
        return (self.uplink_volume or 0) + (self.downlink_volume or 0)

    def of(self, unit: Unit) -> int | None:
        """What was used, in a unit; None: it says other units only, by which the use cannot be charged."""
        return _in_unit(unit, self.octets, self.time, self.service_specific_units)


class WrongUnit(Exception):
    """Units of which none is the rating group's; `args`: the attribute that says them."""


class MultipleUnitUsage(Incoming):
    rating_group: Uint32
    requested_unit: RequestedUnit | None = None
    used_unit_container: Annotated[list[UsedUnitContainer], Field(max_length=100)] = []

    def used(self, unit: Unit) -> int:
        """What was used, in a unit. Raises WrongUnit."""
        amounts = [container.of(unit) for container in self.used_unit_container]
        if None in amounts:
            raise WrongUnit(f"usedUnitContainer.{amounts.index(None)}")
        return sum(amounts)  # type: ignore[arg-type]  # None was looked for

    def wanted(self, unit: Unit) -> int | None:
        """None: no quota is asked for; 0: any amount. Raises WrongUnit."""
        asked = self.requested_unit
        if asked is None:
            return None
        found = _in_unit(unit, asked.total_volume, asked.time, asked.service_specific_units)
        if found is None:
            raise WrongUnit("requestedUnit")
        return found


class NfIdentification(Incoming):
    node_functionality: Annotated[str, Field(min_length=1, max_length=100, pattern=PLAIN)]
    n_f_name: str | None = Field(default=None, max_length=100, alias="nFName", pattern=PLAIN)


class PlmnId(Incoming):
    """TS 29.571 clause 5.4.4.3."""

    mcc: Annotated[str, Field(pattern=r"^[0-9]{3}$")]
    mnc: Annotated[str, Field(pattern=r"^[0-9]{2,3}$")]


class Tai(Incoming):
    plmn_id: PlmnId


class Location(Incoming):
    """NrLocation and EutraLocation (TS 29.571 clauses 5.4.4.8, 5.4.4.9), as far as they say a network."""

    tai: Tai | None = None


class UserLocation(Incoming):
    nr_location: Location | None = None
    eutra_location: Location | None = None

    @property
    def network(self) -> PlmnId | None:
        for location in (self.nr_location, self.eutra_location):
            if location is not None and location.tai is not None:
                return location.tai.plmn_id
        return None


class PduSessionInformation(Incoming):
    serving_cn_plmn_id: PlmnId | None = Field(default=None, alias="servingCNPlmnId")


class ServiceSpecific(Incoming):
    """What PDU session, SMS and IMS charging information have in common. TS 32.291 writes `userLocationinfo`."""

    user_locationinfo: UserLocation | None = None


class PduSessionCharging(ServiceSpecific):
    pdu_session_information: PduSessionInformation | None = None


class Recipient(Incoming):
    recipient_gpsi: Annotated[str, Field(max_length=200, pattern=PLAIN)] | None = Field(
        default=None, alias="recipientGPSI"
    )


class SmsCharging(ServiceSpecific):
    recipient_info: Annotated[list[Recipient], Field(max_length=100)] = []


class ImsCharging(ServiceSpecific):
    called_party_address: Annotated[str, Field(max_length=300, pattern=PLAIN)] | None = None


class ChargingDataRequest(Incoming):
    """ChargingDataRequest (TS 32.291 clause 6.1.6.2.1.1): the attributes that the ledger needs."""

    subscriber_identifier: SubscriberId | None = None
    nf_consumer_identification: NfIdentification
    charging_id: Uint32 | None = None
    invocation_time_stamp: Annotated[dt.datetime, AfterValidator(_utc)]
    invocation_sequence_number: Uint32
    retransmission_indicator: Annotated[bool, Field(strict=True)] = False
    one_time_event: Annotated[bool, Field(strict=True)] = False
    one_time_event_type: Literal["IEC", "PEC"] | None = None
    notify_uri: NotifyUri | None = None
    multiple_unit_usage: Annotated[list[MultipleUnitUsage], Field(max_length=50)] = []
    pdu_session: PduSessionCharging | None = Field(default=None, alias="pDUSessionChargingInformation")
    sms: SmsCharging | None = Field(default=None, alias="sMSChargingInformation")
    ims: ImsCharging | None = Field(default=None, alias="iMSChargingInformation")

    @property
    def visited(self) -> str | None:
        """MCC and MNC of the network that serves the subscriber; None: it is not said."""
        found: PlmnId | None = None
        if self.pdu_session is not None and self.pdu_session.pdu_session_information is not None:
            found = self.pdu_session.pdu_session_information.serving_cn_plmn_id
        for one in (self.pdu_session, self.ims, self.sms):
            if found is None and one is not None and one.user_locationinfo is not None:
                found = one.user_locationinfo.network
        return None if found is None else found.mcc + found.mnc

    @property
    def called(self) -> str | None:
        """The called party or the first recipient of a message; None: it is not said."""
        if self.ims is not None and self.ims.called_party_address is not None:
            return self.ims.called_party_address
        for one in self.sms.recipient_info if self.sms is not None else ():
            if one.recipient_gpsi is not None:
                return "+" + one.recipient_gpsi.removeprefix("msisdn-").removeprefix("+")
        return None


class GrantedUnit(Incoming):
    total_volume: Amount | None = None
    time: Uint32 | None = None
    service_specific_units: Amount | None = None


class FinalUnitIndication(Incoming):
    """TERMINATE: the grant is the last one. RESTRICT_ACCESS: it is used at the pace that the filter names."""

    final_unit_action: Literal["TERMINATE", "RESTRICT_ACCESS"]
    filter_id_list: list[str] | None = Field(default=None, description="throttle;dl=<bit/s>;ul=<bit/s>")


class MultipleUnitInformation(Incoming):
    rating_group: Uint32
    result_code: Literal["SUCCESS", "QUOTA_LIMIT_REACHED", "END_USER_SERVICE_DENIED", "RATING_FAILED"]
    granted_unit: GrantedUnit | None = None
    validity_time: int | None = Field(default=None, description="seconds")
    volume_quota_threshold: int | None = Field(default=None, description="octets")
    time_quota_threshold: int | None = Field(default=None, description="seconds")
    unit_quota_threshold: int | None = None
    final_unit_indication: FinalUnitIndication | None = None


class InvocationResult(Incoming):
    failure_handling: Literal["TERMINATE", "CONTINUE", "RETRY_AND_TERMINATE"]


class ChargingDataResponse(Incoming):
    """ChargingDataResponse (TS 32.291 clause 6.1.6.2.1.2). Written by the ledger's function `charge`, kept to the letter; a
    create's says besides what to do when no answer comes."""

    invocation_time_stamp: dt.datetime
    invocation_sequence_number: Uint32
    invocation_result: InvocationResult | None = Field(default=None, description="of a create")
    session_failover: Literal["FAILOVER_SUPPORTED"] | None = Field(default=None, description="of a create")
    multiple_unit_information: list[MultipleUnitInformation]


class InvalidParam(Incoming):
    param: str
    reason: str | None = None


class ProblemDetails(Incoming):
    """RFC 9457 with TS 29.571 clause 5.2.4.1's `cause` and `invalidParams`."""

    status: int
    title: str
    cause: str | None = None
    detail: str | None = None
    invalid_params: list[InvalidParam] | None = None


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("is not an IANA time zone")
    return value


class AccountPut(Closed):
    subscriber_ids: Annotated[list[SubscriberId], Field(min_length=1, max_length=20)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    status: Status = "active"
    tariff: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")] | None = Field(
        default=None, description="one of the rating's tariffs; none: allowances only"
    )


class AccountPatch(Closed):
    status: Status


def _in_utc(value: dt.datetime) -> dt.datetime:
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError("is not a moment of the years 1 to 9999 in UTC") from None


# In UTC: a database takes fewer time offsets than RFC 3339 has.
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class BucketGrant(Closed):
    unit: Unit
    amount: Positive
    valid_until: Moment | None = None
    priority: Annotated[int, Field(ge=0, le=1000, strict=True)] = 10
    source: Annotated[str, Field(min_length=1, max_length=100, pattern=PLAIN)]
    throttle: str | None = Field(
        default=None, pattern=r"^dl=[1-9][0-9]{0,11};ul=[1-9][0-9]{0,11}$", description="bit/s; none: full speed"
    )
    credit: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="money that may be used and is then owed: a credit line, used last"
    )

    @model_validator(mode="after")
    def _credit_is_money(self) -> BucketGrant:
        if self.credit and (self.unit != "minor" or self.throttle is not None):
            raise ValueError("a credit line is of money (unit minor), and has no throttle")
        return self


class Rollover(Closed):
    """What ended buckets have left and a new one takes over. `limit`: of all that is rolled over; none: no limit."""

    unit: Unit
    source: Annotated[str, Field(min_length=1, max_length=80, pattern=PLAIN)]
    ended_at: Moment
    limit: Positive | None = None
    valid_until: Moment
    priority: Annotated[int, Field(ge=0, le=1000, strict=True)] = 5


class Grant(Closed):
    request_id: uuid.UUID
    buckets: Annotated[list[BucketGrant], Field(min_length=1, max_length=20)]
    rollover: Rollover | None = None


class Taken(Closed):
    ids: Annotated[list[uuid.UUID], Field(min_length=1, max_length=200)]
