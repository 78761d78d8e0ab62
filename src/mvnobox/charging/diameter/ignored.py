"""AVPs of credit control that change nothing of what we answer."""

from __future__ import annotations

from mvnobox.diameter.codes import Avp

# What a request may hold without our looking at it, mandatory or not. Everything of 3GPP is charging information that
# does not change what we answer (TS 32.299 clause 6.4.2).
IGNORED = frozenset(
    {
        Avp.USER_NAME,
        Avp.EVENT_TIMESTAMP,
        Avp.ORIGIN_STATE_ID,
        Avp.ROUTE_RECORD,
        Avp.TERMINATION_CAUSE,
        Avp.CC_CORRELATION_ID,
        Avp.CC_SUB_SESSION_ID,
        Avp.ACCT_APPLICATION_ID,
        Avp.MULTIPLE_SERVICES_INDICATOR,
        Avp.USER_EQUIPMENT_INFO,
        Avp.SERVICE_IDENTIFIER,
        Avp.VENDOR_SPECIFIC_APPLICATION_ID,
        50,  # Acct-Multi-Session-Id
        440,  # Service-Parameter-Info
        457,  # G-S-U-Pool-Reference
        30,  # Called-Station-Id
        6,  # Service-Type
        8,  # Framed-IP-Address
        97,  # Framed-IPv6-Prefix
    }
)
