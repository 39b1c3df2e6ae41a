"""What an operator sees of each replication source."""

from prometheus_client import Counter, Gauge

EVENTS = Counter("strata_ingestor_replication_events_total", "Events that the stream acknowledged.", ["source"])
REFUSED = Counter("strata_ingestor_replication_refused_total", "Events that were too large for the bus.", ["source"])
SLOT_LAG = Gauge("strata_ingestor_replication_slot_lag_bytes", "Log of the source that is not confirmed yet.", ["source"])
SLOT_RETAINED = Gauge("strata_ingestor_replication_slot_retained_bytes", "Log that the source keeps for the slot.", ["source"])
SINCE_CHANGE = Gauge("strata_ingestor_replication_last_change_age_seconds", "Time since the last change was committed.", ["source"])
STREAMING = Gauge("strata_ingestor_replication_streaming", "Whether changes are read as they are committed.", ["source"])
SNAPSHOTS = Counter("strata_ingestor_replication_snapshots_total", "Snapshots by why they were taken.", ["source", "reason"])
