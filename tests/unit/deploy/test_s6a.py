"""S6a of an installation: peers whom the HSS could not speak to are refused before anything is applied."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Any

import pytest

from mvnobox.deploy.s6a import check_s6a
from mvnobox.errors import BadInput, EnvironmentUnfit
from mvnobox.render import DiameterPeer, Epc
from mvnobox.render.certificates import issue

NOW = dt.datetime.now(dt.UTC)
REALM = "epc.mnc093.mcc208.3gppnetwork.org"


class Cluster:
    """kubectl's answers: the namespace `platform-dev`, if it is there, and what its Secret `hss-tls` holds."""

    def __init__(self, *, there: bool = True, held: dict[str, bytes] | None = None) -> None:
        self.there, self.held = there, held

    def json(self, *arguments: str) -> Any:
        if arguments == ("get", "namespaces"):
            return {"items": [{"metadata": {"name": "platform-dev"}}] if self.there else []}
        assert arguments == ("-n", "platform-dev", "get", "secrets", "--field-selector=metadata.name=hss-tls")
        if self.held is None:
            return {"items": []}
        return {"items": [{"data": {name: base64.b64encode(text).decode() for name, text in self.held.items()}}]}


def look(cluster: Cluster, epc: Epc | None, *, sctp_over_tcp: bool = False) -> list[str]:
    said: list[str] = []

    class Notes:
        def note(self, message: str) -> None:
            said.append(message)

    check_s6a(cluster, epc, "platform-dev", sctp_over_tcp=sctp_over_tcp, report=Notes())  # type: ignore[arg-type]
    return said


def test_a_secret_that_cannot_secure_s6a_is_refused_first() -> None:
    peer = DiameterPeer("mme.host.example", "host.example", tls=True)
    epc = Epc(REALM, peers=(peer,), tls_secret="hss-tls")
    held = {name: text.encode() for name, text in issue("11" * 32, "dev", "x", [epc.hss], NOW.year).items()}
    assert look(Cluster(held=held), epc) == [] == look(Cluster(), None) == look(Cluster(), Epc(REALM))
    (said,) = look(Cluster(there=False), epc)
    assert "the HSS starts when platform-dev has the Secret hss-tls" in said
    with pytest.raises(BadInput, match=r"hss-tls in platform-dev cannot secure S6a: there is no tls\.crt"):
        look(Cluster(), epc)
    named = {name: text.encode() for name, text in issue("11" * 32, "dev", "x", [peer.host], NOW.year).items()}
    with pytest.raises(BadInput, match=f"it lacks the names {epc.hss}"):
        look(Cluster(held=named), epc)
    # A host's name has no case.
    loud = Epc(REALM.upper(), peers=(peer,), tls_secret="hss-tls")
    assert look(Cluster(held=held), loud) == []
    # freeDiameter reads one chain of a file and ends otherwise: two authorities, two certificates.
    other = issue("22" * 32, "prod", "x", [epc.hss], NOW.year)["ca.crt"].encode()
    with pytest.raises(BadInput, match=r"ca\.crt is not one chain"):
        look(Cluster(held={**held, "ca.crt": held["ca.crt"] + other}), epc)
    with pytest.raises(BadInput, match=r"tls\.crt is not one chain"):
        look(Cluster(held={**held, "tls.crt": held["tls.crt"] * 2}), epc)


def test_no_sctp_peer_where_the_node_has_none() -> None:
    epc = Epc(REALM, peers=(DiameterPeer("mme.host.example", "host.example", transport="SCTP"),))
    assert look(Cluster(), epc) == []
    with pytest.raises(EnvironmentUnfit, match=r"mme\.host\.example speaks SCTP, and this node's kernel has none"):
        look(Cluster(), epc, sctp_over_tcp=True)
