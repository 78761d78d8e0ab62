"""Kubernetes manifests as text: the YAML dialect, lists, and who depends on whom."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from . import objects
from .errors import ProviderError

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ManifestLoader(_Base):  # type: ignore[misc]
    """YAML as Kubernetes reads it: dates stay text, `1:30` is no number, `1e3` is one."""


ManifestLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in _Base.yaml_implicit_resolvers.items()
}
ManifestLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:\d[\d_]*)\.[\d_]*(?:[eE][-+]?\d+)?|\.[\d_]+(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+"
        r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
ManifestLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(?:0b[0-1_]+|0o?[0-7_]+|0|[1-9][\d_]*|0x[\da-fA-F_]+)$"),
    list("-+0123456789"),
)


def _octal(loader: Any, node: Any) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    if digits.startswith(("0b", "0x", "0o")):
        return sign * int(digits, 0)
    return sign * int(digits, 8 if len(digits) > 1 and digits.startswith("0") else 10)


ManifestLoader.add_constructor("tag:yaml.org,2002:int", _octal)


def parse(text: str, where: str) -> list[objects.Object]:
    """The objects of a stream of YAML documents, lists expanded. Raises ProviderError naming `where`."""
    try:
        documents = list(yaml.load_all(text, Loader=ManifestLoader))
    except yaml.YAMLError as error:
        raise ProviderError(f"{where} is no YAML: {error}") from error
    found = list(_expanded(document for document in documents if document))
    for obj in found:
        if not isinstance(obj, dict) or not obj.get("apiVersion") or not obj.get("kind"):
            raise ProviderError(f"{where} has an object without apiVersion and kind: {str(obj)[:120]}")
        if not objects.name_of(obj):
            raise ProviderError(f"{where} has a {obj['kind']} without metadata.name")
    return found


def _expanded(documents: Iterable[Any]) -> Iterator[Any]:
    for document in documents:
        if isinstance(document, dict) and str(document.get("kind", "")).endswith("List") and "items" in document:
            yield from _expanded(document["items"] or [])
        else:
            yield document


def dependencies(found: list[objects.Object]) -> dict[int, list[int]]:
    """For each object's index, those that must be there first.

    A namespace before what is in it, a definition before its custom resources, and what the annotation
    `config.kubernetes.io/depends-on` names. Raises ProviderError for a circle.
    """
    namespaces = {
        objects.name_of(obj): index for index, obj in enumerate(found) if objects.kind_of(obj) == "v1/Namespace"
    }
    kinds = {
        (objects.get(obj, "spec", "group"), objects.get(obj, "spec", "names", "kind")): index
        for index, obj in enumerate(found)
        if obj["kind"] == "CustomResourceDefinition"
    }
    places = {
        (_group(obj), objects.namespace_of(obj), obj["kind"], objects.name_of(obj)): index
        for index, obj in enumerate(found)
    }
    result: dict[int, list[int]] = {}
    for index, obj in enumerate(found):
        wanted = [
            namespaces.get(objects.namespace_of(obj)),
            kinds.get((_group(obj), obj["kind"])),
            *(places.get(place) for place in _named(objects.annotation(obj, "config.kubernetes.io/depends-on"))),
        ]
        result[index] = sorted({one for one in wanted if one is not None and one != index})
    _refuse_circles(result, found)
    return result


def _group(obj: objects.Object) -> str:
    return str(obj["apiVersion"]).rpartition("/")[0]


def _named(text: str) -> Iterator[tuple[str, str, str, str]]:
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        fields = part.split("/")
        if len(fields) == 5 and fields[1] == "namespaces":
            yield fields[0], fields[2], fields[3], fields[4]
        elif len(fields) == 3:
            yield fields[0], "", fields[1], fields[2]


def _refuse_circles(edges: dict[int, list[int]], found: list[objects.Object]) -> None:
    done: set[int] = set()
    while len(done) < len(edges):
        ready = [index for index, needs in edges.items() if index not in done and done.issuperset(needs)]
        if not ready:
            names = ", ".join(objects.identity(found[index]) for index in edges if index not in done)
            raise ProviderError(f"objects depend on each other in a circle: {names}")
        done.update(ready)
