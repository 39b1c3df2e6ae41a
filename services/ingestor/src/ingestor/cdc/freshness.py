"""How old what is found is: time from commit to searchable of each source, and whether the promise holds."""

import time
from collections import deque
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge, Histogram

LAG = Histogram(
    "strata_knowledge_lag_seconds",
    "Time from commit in the source to searchable.",
    ["source"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
CHANGES = Counter("strata_knowledge_source_changes_total", "Change events applied.", ["source"])
DEAD = Counter("strata_knowledge_source_dead_total", "Change events that nobody could read.", ["source"])
POSITION = Gauge("strata_knowledge_position", "Place up to which a source is searchable.", ["source"])
FRAGMENTS = Gauge("strata_knowledge_fragments", "Pieces into which a table has fallen.", ["table"])
EXPIRED = Counter("strata_knowledge_expired_total", "Documents removed after their expiry.", ["collection"])
DRIFT = Gauge("strata_knowledge_drift_documents", "Documents that differed at the last comparison.", ["source", "kind"])
_RECENT = 2000


@dataclass(frozen=True)
class Lag:
    """Time from commit to searchable of recent changes, in seconds."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    last: float = 0.0


@dataclass
class Freshness:
    """The recent lags of one source."""

    source: str
    sla_seconds: float
    holds: bool = True
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _at: float = 0.0

    def saw(self, committed_ms: list[int]) -> None:
        """Count changes that are searchable now, by when they were committed; a snapshot is not among them."""
        now, histogram = time.time(), LAG.labels(source=self.source)
        for milliseconds in committed_ms:
            lag = max(now - milliseconds / 1000, 0.0)
            histogram.observe(lag)
            self._recent.append(lag)
            self._at = now

    def lag(self) -> Lag:
        """Return percentiles of recent changes."""
        if not self._recent:
            return Lag()
        ordered = sorted(self._recent)
        p50, p95, p99 = (ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (0.5, 0.95, 0.99))
        return Lag(p50, p95, p99, self._recent[-1])

    def turned(self) -> bool:
        """Return whether the promise has begun to hold or ceased to, since it was asked last; a minute of silence holds it."""
        recent = bool(self._recent) and time.time() - self._at < 60
        holds = not self.sla_seconds or not recent or self._recent[-1] <= self.sla_seconds
        turned, self.holds = holds != self.holds, holds
        return turned
