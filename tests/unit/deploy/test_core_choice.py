"""What is put on the node for a core."""

from __future__ import annotations

import pytest

from mvnobox.deploy import core


@pytest.mark.parametrize(
    ("kind", "shared", "sctp", "wanted"),
    [
        ("embedded", "open5gs", False, ("sctp",)),
        ("embedded", "open5gs", True, ()),
        ("embedded", "simulated", False, ()),
        ("kind", "open5gs", False, ()),
    ],
)
def test_sctp_over_tcp_stays_while_any_brand_needs_it(
    monkeypatch: pytest.MonkeyPatch, kind: str, shared: str, sctp: bool, wanted: tuple[str, ...]
) -> None:
    monkeypatch.setattr(core, "kernel_has_sctp", lambda: sctp)
    assert core.optional_images(kind, shared) == wanted
