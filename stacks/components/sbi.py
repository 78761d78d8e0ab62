"""The certificates of the SBI, out of the authority's key."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import pulumi

from mvnobox.errors import KitError
from mvnobox.render.certificates import issue
from mvnobox.render.sbi_tls import sbi_hosts


def certificate(
    authority_key: pulumi.Input[str], env: str, namespace: str, functions: Iterable[str]
) -> dict[str, pulumi.Input[str]]:
    """What the Secret of a namespace's functions holds; another one in every calendar year."""
    hosts, year = sbi_hosts(namespace, functions), dt.datetime.now(dt.UTC).year

    def issued(key: str) -> dict[str, str]:
        try:
            return issue(key, env, namespace, hosts, year)
        except KitError as error:
            raise pulumi.RunError(str(error)) from None

    made = pulumi.Output.secret(authority_key).apply(issued)
    return {name: made[name] for name in ("tls.crt", "tls.key", "ca.crt")}
