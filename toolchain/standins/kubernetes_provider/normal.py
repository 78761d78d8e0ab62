"""One form for inputs that mean the same, so that an unchanged program shows no difference."""

from __future__ import annotations

import base64
import binascii
import copy
import re
from decimal import ROUND_CEILING, Decimal
from typing import Any

from . import objects
from .values import UNKNOWN, has_unknowns

_READ_ONLY = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
)

# Maps from a resource's name to a quantity, and fields that are quantities themselves (core/v1, autoscaling/v2).
_QUANTITY_MAPS = {
    "limits",
    "requests",
    "capacity",
    "allocatable",
    "hard",
    "overhead",
    "podFixed",
    "default",
    "defaultRequest",
    "max",
    "min",
    "maxLimitRequestRatio",
}
_QUANTITIES = {"sizeLimit", "divisor", "averageValue", "maximumVolumeSize"}
_QUANTITY = re.compile(r"^([+-]?)(\d+(?:\.\d*)?|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?\d+)?$")
_BINARY = {name: 1024**power for power, name in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def normalise(obj: objects.Object) -> objects.Object:
    """The object as the apiserver would repeat it, as far as that is known without asking it.

    Kubernetes' own kinds: no nulls and nothing empty that the apiserver leaves out, canonical quantities, a Secret's
    stringData as data. Custom resources are left as they are. Read-only metadata goes in any case. The argument is
    not changed.
    """
    result = copy.copy(obj)
    if objects.is_builtin(str(obj.get("apiVersion", ""))) and not has_unknowns(obj):
        result = _without_empties(_without_nulls(result))
        if result.get("kind") == "Secret":
            result = _secret(result)
        elif result.get("kind") == "CustomResourceDefinition":
            result = _definition(result)
        else:
            result = _quantities(result)
    metadata = result.get("metadata")
    if isinstance(metadata, dict):
        result["metadata"] = {key: value for key, value in metadata.items() if key not in _READ_ONLY}
    return result


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


# Maps whose values are the user's text: an empty one is a value.
_USER_MAPS = {"annotations", "binaryData", "data", "labels", "matchLabels", "nodeSelector", "parameters", "stringData"}
# Optional booleans whose absence is false; the other booleans of the API tell false from nothing.
_FALSE_IS_ABSENT = {
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "paused",
    "publishNotReadyAddresses",
    "readOnly",
    "stdin",
    "stdinOnce",
    "tty",
    "unschedulable",
}
# Optional texts where empty and absent are two things.
_EMPTY_TEXT_COUNTS = {"ingressClassName", "storageClassName", "volumeAttributesClassName", "group", "apiGroup"}
_EMPTY_MAP_IS_ABSENT = {"annotations", "labels", "nodeSelector"}


def _without_empties(value: Any) -> Any:
    """Without what Kubernetes' types leave out when it is empty (their `omitempty`)."""
    if isinstance(value, list):
        return [_without_empties(item) for item in value]
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    for key, item in value.items():
        if key in _USER_MAPS and isinstance(item, dict):
            if item or key not in _EMPTY_MAP_IS_ABSENT:
                result[key] = item
        elif key == "openAPIV3Schema":
            result[key] = item  # a schema's words are the user's
        elif (
            item == []
            or (item == "" and key not in _EMPTY_TEXT_COUNTS)
            or (item is False and key in _FALSE_IS_ABSENT)
            or (item == {} and key in _EMPTY_MAP_IS_ABSENT)
        ):
            continue
        else:
            result[key] = _without_empties(item)
    return result


def _secret(obj: objects.Object) -> objects.Object:
    data = dict(obj.get("data") or {})
    for key, value in data.items():
        if isinstance(value, str):
            try:
                data[key] = base64.b64encode(base64.b64decode(value, validate=False)).decode()
            except (binascii.Error, ValueError):
                continue  # the apiserver refuses it with the key's name
    for key, value in (obj.get("stringData") or {}).items():
        data[key] = base64.b64encode(str(value).encode()).decode()
    result = {key: value for key, value in obj.items() if key != "stringData"}
    if data or "data" in obj:
        result["data"] = data
    return result


def _definition(obj: objects.Object) -> objects.Object:
    result = {key: value for key, value in obj.items() if key != "status"}
    spec = result.get("spec")
    if isinstance(spec, dict) and spec.get("preserveUnknownFields") is False:
        result["spec"] = {key: value for key, value in spec.items() if key != "preserveUnknownFields"}
    return result


def _quantities(value: Any) -> Any:
    if isinstance(value, list):
        return [_quantities(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for key, item in value.items():
        if key in _QUANTITY_MAPS and isinstance(item, dict):
            result[key] = {
                name: quantity(one) if isinstance(one, str | int | float) and not isinstance(one, bool) else one
                for name, one in item.items()
            }
        elif key in _QUANTITIES and isinstance(item, str | int | float) and not isinstance(item, bool):
            result[key] = quantity(item)
        else:
            result[key] = _quantities(item)
    return result


def quantity(value: str | int | float) -> str | int | float:
    """A quantity's canonical form ("0.01" is "10m", "1024Mi" is "1Gi"); what is none is returned unchanged.

    Source: Kubernetes API conventions, resource.Quantity: no digits after the point, the largest suffix of the
    quantity's own family, precision no finer than nano.
    """
    if value is UNKNOWN:
        return value
    match = _QUANTITY.match(str(value))
    if match is None:
        return value
    sign, digits, suffix = match[1], Decimal(match[2]), match[3] or ""
    if suffix in _BINARY and suffix:
        amount = digits * _BINARY[suffix]
        if amount == amount.to_integral_value() and (amount >= 1024 or amount == 0):
            whole = int(amount)
            for name in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki", ""):
                if whole and whole % _BINARY[name] == 0:
                    return f"{'-' if sign == '-' else ''}{whole // _BINARY[name]}{name}"
            return "0"
    elif suffix[:1] in ("e", "E") and len(suffix) > 1:
        # The exponent family keeps its notation: exponents in steps of three.
        amount = digits.scaleb(int(suffix[1:]))
        if amount == 0:
            return "0"
        exponent = 0
        while amount == amount.to_integral_value() and int(amount) % 1000 == 0:
            amount, exponent = amount / 1000, exponent + 3
        while amount != amount.to_integral_value() and exponent > -9:
            amount, exponent = amount * 1000, exponent - 3
        text = str(int(amount.to_integral_value(ROUND_CEILING)))
        return f"{'-' if sign == '-' else ''}{text}{f'e{exponent}' if exponent else ''}"
    else:
        amount = digits.scaleb(_DECIMAL[suffix])
    if amount == 0:
        return "0"
    for name in ("E", "P", "T", "G", "M", "k", "", "m", "u", "n"):
        scaled = amount.scaleb(-_DECIMAL[name])
        if scaled == scaled.to_integral_value() or name == "n":
            return f"{'-' if sign == '-' else ''}{int(scaled.to_integral_value(ROUND_CEILING))}{name}"
    return value
