"""PFCP elements and values that the simulated core alone reads or writes (TS 29.244 tables 8.1.2-1, 8.2.x)."""

from __future__ import annotations

import enum


class Also(enum.IntEnum):
    """Information elements beside `mvnobox.pfcp.codec.IeType`."""

    SDF_FILTER = 23
    PFCPSMREQ_FLAGS = 49
    START_TIME = 75
    END_TIME = 76
    CREATE_BAR = 85
    BAR_ID = 88
    CP_FUNCTION_FEATURES = 89
    ERROR_INDICATION_REPORT = 99
    INTERFACE_TYPE = 160


# Report Type (clause 8.2.21): error indication of a peer on the user plane.
REPORT_ERROR_INDICATION = 4
# PFCPSMReq-Flags (clause 8.2.28): query all URRs.
QUERY_ALL_URRS = 4
# UP Function Features (clause 8.2.25), first octet: F-TEIDs are chosen by the user plane.
FTUP = 0x10
