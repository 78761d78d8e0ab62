"""What is counted, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from mvnobox.charging.diameter.tally import BOUNDS, Tally


def test_what_was_counted_is_read() -> None:
    tally, registry = Tally(), CollectorRegistry()
    registry.register(tally)
    for kind, result, seconds in ((1, 2001, 0.0005), (1, 2001, 0.001), (2, 2001, 0.003), (None, 5005, 7.0)):
        tally.count(kind, result)
        tally.observe(seconds)
    assert registry.get_sample_value("ocs_diameter_requests_total", {"type": "initial", "result": "2001"}) == 2
    assert registry.get_sample_value("ocs_diameter_requests_total", {"type": "update", "result": "2001"}) == 1
    assert registry.get_sample_value("ocs_diameter_requests_total", {"type": "unknown", "result": "5005"}) == 1
    within = [registry.get_sample_value("ocs_diameter_seconds_bucket", {"le": str(bound)}) for bound in BOUNDS]
    assert within == [2, 2, 3, 3, 3, 3, 3]  # a bound is within it
    assert registry.get_sample_value("ocs_diameter_seconds_bucket", {"le": "+Inf"}) == 4
    assert registry.get_sample_value("ocs_diameter_seconds_count") == 4
    assert registry.get_sample_value("ocs_diameter_seconds_sum") == 7.0045
    assert b"# TYPE ocs_diameter_seconds histogram" in generate_latest(registry)
