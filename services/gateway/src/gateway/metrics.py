"""The names of all metrics of the gateway."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)

REQUESTS = Counter("strata_gateway_requests_total", "Requests by how they ended.", ["ingress", "outcome"])
REQUEST_SECONDS = Histogram("strata_gateway_request_duration_seconds", "Time from the request to its last byte.", buckets=_SECONDS)
FIRST_WINDOW_SECONDS = Histogram("strata_gateway_first_window_seconds", "Time from the request to its first window.", buckets=_SECONDS)
PENDING = Gauge("strata_gateway_pending_requests", "Requests that wait for an answer.")
REFUSED_RELEASES = Counter("strata_gateway_releases_refused_total", "Responses that were not let through.", ["reason"])
REPLAYS = Counter("strata_gateway_replays_total", "Looks into the stream for responses that did not arrive.")
