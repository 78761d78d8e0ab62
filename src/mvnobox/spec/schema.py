"""JSON Schema of the BrandSpec, for editors that check while one types."""

from __future__ import annotations

from typing import Any

from mvnobox.spec.brand import BrandSpec


def brand_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a brand's file."""
    schema = BrandSpec.model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:mvno-in-a-box:brandspec:v1",
        **schema,
        "title": "BrandSpec v1",
    }
