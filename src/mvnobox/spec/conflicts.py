"""Brands on one platform must not claim the same thing: addresses, slices, numbers, subscriber identities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from mvnobox.spec.brand import BrandSpec
from mvnobox.spec.loading import InvalidSpec, Problem


def _overlap(a: tuple[str, str], b: tuple[str, str]) -> bool:
    return len(a[0]) == len(b[0]) and a[0] <= b[1] and b[0] <= a[1]


def _pair(one: BrandSpec, other: BrandSpec) -> list[tuple[str, str, str]]:
    found = []
    for index, network in enumerate(one.data_networks):
        for theirs in other.data_networks:
            if network.network.overlaps(theirs.network):
                found.append(
                    (
                        f"dataNetworks[{index}].pool",
                        network.pool,
                        f"a network apart from {theirs.pool}, which brand {other.name!r} has",
                    )
                )
            if network.network6 and theirs.network6 and network.network6.overlaps(theirs.network6):
                found.append(
                    (
                        f"dataNetworks[{index}].pool6",
                        str(network.pool6),
                        f"a network apart from {theirs.pool6}, which brand {other.name!r} has",
                    )
                )
    if one.slice == other.slice:
        said = f"sst {one.slice.sst}" + (f", sd {one.slice.sd}" if one.slice.sd else "")
        found.append(("slice", said, f"another slice: brand {other.name!r} has this one"))
    if _overlap((one.number_range.first, one.number_range.last), (other.number_range.first, other.number_range.last)):
        found.append(
            (
                "numberRange",
                f"{one.number_range.first} to {one.number_range.last}",
                f"numbers apart from {other.number_range.first} to {other.number_range.last} of brand {other.name!r}",
            )
        )
    if one.plmn == other.plmn and _overlap(
        (one.msin_range.first, one.msin_range.last), (other.msin_range.first, other.msin_range.last)
    ):
        found.append(
            (
                "msinRange",
                f"{one.msin_range.first} to {one.msin_range.last}",
                f"MSINs apart from {other.msin_range.first} to {other.msin_range.last} of brand {other.name!r}",
            )
        )
    if one.voice.domain == other.voice.domain:
        found.append(("voice.domain", one.voice.domain, f"another domain: brand {other.name!r} has this one"))
    return found


def check_together(brands: Sequence[tuple[str, BrandSpec]]) -> None:
    """Refuse brands that cannot live on one platform; (file, spec) each. Raises InvalidSpec with every conflict."""
    problems = []
    for (_, other), (file, one) in combinations(brands, 2):
        if one.name == other.name:
            problems.append(Problem(file, None, "name", repr(one.name), "a name that no other brand has"))
            continue
        problems += [Problem(file, None, path, found, allowed) for path, found, allowed in _pair(one, other)]
    if problems:
        raise InvalidSpec(problems)
