"""The names of all metrics of review."""

from prometheus_client import Counter, Gauge, Histogram

OPEN = Gauge("strata_review_open", "Reviews that wait for people, by severity.", ["severity"])
OVERDUE = Gauge("strata_review_overdue", "Open reviews beyond their deadline; should be 0.")
OLDEST = Gauge("strata_review_oldest_age_seconds", "Age of the oldest open review; 0 when there is none.")
UNPUBLISHED = Gauge("strata_review_unpublished_facts", "Decided facts that are not on the bus yet; should be 0.")
MISSED = Counter("strata_review_missed_deadlines_total", "Deadlines that passed without a decision.", ["severity"])
DECIDED = Counter("strata_review_decided_total", "Reviews that ended.", ["decision"])
DISAGREED = Counter("strata_review_disagreements_total", "Reviews for which one more reviewer was asked.")
SECONDS = Histogram(
    "strata_review_duration_seconds",
    "Time from an escalation to its decision.",
    buckets=(30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 4 * 3600.0, 24 * 3600.0, 7 * 24 * 3600.0),
)
