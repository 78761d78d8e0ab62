"""What FastAPI does not know about the OCS: the charging requests, the bearer token, the problems."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from mvnobox.charging.schemas import ChargingDataRequest, ChargingDataResponse, ProblemDetails

NCHF = "/nchf-convergedcharging/v3/chargingdata"
_MODELS: list[tuple[type[BaseModel], JsonSchemaMode]] = [
    (ChargingDataRequest, "validation"),
    (ChargingDataResponse, "serialization"),
    (ProblemDetails, "serialization"),
]
_PROBLEM = {
    "description": "ProblemDetails (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
}
_REFUSALS = {status: _PROBLEM for status in ("400", "401", "404", "413", "415", "503")}


_REQUEST = {"$ref": "#/components/schemas/ChargingDataRequest"}
# Whose session it is, is said once (TS 32.291 table 6.1.6.2.1.1-1).
_FIRST_REQUEST = {
    "allOf": [
        _REQUEST,
        {"required": ["subscriberIdentifier"], "properties": {"subscriberIdentifier": {"type": "string"}}},
    ]
}


def _operation(summary: str, status: str, *, body: bool = True) -> dict[str, Any]:
    done: dict[str, Any] = {"description": summary}
    if body:
        done["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/ChargingDataResponse"}}}
    if status == "201":
        done["headers"] = {"Location": {"required": True, "schema": {"type": "string"}}}
    return {
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _FIRST_REQUEST if status == "201" else _REQUEST}},
        },
        "responses": {status: done, **_REFUSALS},
    }


def document_nchf(document: dict[str, Any]) -> dict[str, Any]:
    """Complete the document that FastAPI generated."""
    _, definitions = models_json_schema(_MODELS, ref_template="#/components/schemas/{model}")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(definitions["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("422", None)
            operation["responses"].update({**_REFUSALS, "409": _PROBLEM})
    ref = {"name": "ChargingDataRef", "in": "path", "required": True, "schema": {"type": "string"}}
    document["paths"] |= {
        NCHF: {"post": _operation("Open a charging session", "201")},
        NCHF + "/{ChargingDataRef}/update": {
            "parameters": [ref],
            "post": _operation("Report use, ask for quota", "200"),
        },
        NCHF + "/{ChargingDataRef}/release": {
            "parameters": [ref],
            "post": _operation("Report the last use, end the session", "204", body=False),
        },
    }
    document["components"]["securitySchemes"] = {"brand": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"brand": []}]
    return document
