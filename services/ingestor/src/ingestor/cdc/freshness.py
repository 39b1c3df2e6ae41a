"""How old what is found is: time from commit to searchable of each source, and whether the promise holds."""

import math
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
HOLDS = Gauge("strata_knowledge_sla_holds", "Whether the promise of a source holds: 1 or 0.", ["source"])
_RECENT = 2000
_SLOW_SECONDS = 60.0


@dataclass(frozen=True)
class Lag:
    """Time from commit to searchable of recent changes, in seconds."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    last: float = 0.0


@dataclass
class Freshness:
    """The recent lags of one source, what of it waits, and whether its promise holds."""

    source: str
    sla_seconds: float
    # Why the promise does not hold: slow, stalled, slot_lost, slot_lagging or drift; empty while it does.
    reason: str = ""
    detail: str = ""
    # What others found, until they say that it is over: slot_lost, slot_lagging or drift, with what an operator should know.
    found: dict[str, str] = field(default_factory=dict)
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _slow_at: float = -math.inf
    _unread_since: float | None = None
    _waited: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the promise held when it was judged last."""
        return not self.reason

    @property
    def now_seconds(self) -> float:
        """Age of what is not searchable yet, or else the lag of what became searchable last."""
        return self._waited or self.lag().last

    def saw(self, committed_ms: list[int]) -> None:
        """Count changes that are searchable now, by when they were committed; a snapshot is not among them."""
        now, histogram = time.time(), LAG.labels(source=self.source)
        for milliseconds in committed_ms:
            lag = max(now - milliseconds / 1000, 0.0)
            histogram.observe(lag)
            self._recent.append(lag)
            if lag > self.sla_seconds:
                self._slow_at = time.monotonic()

    def lag(self) -> Lag:
        """Return percentiles of recent changes."""
        if not self._recent:
            return Lag()
        ordered = sorted(self._recent)
        p50, p95, p99 = (ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (0.5, 0.95, 0.99))
        return Lag(p50, p95, p99, self._recent[-1])

    def judge(self, oldest: float | None, problem: str, *, read: bool) -> None:
        """Decide whether the promise holds.

        `oldest` is when the first of the changes that are not searchable was sent, in seconds since 1970; `problem` says why
        changes are known to be lost; a source that is not `read` may have changes that nobody has seen. A change that took too
        long breaks the promise for a minute, so that nobody who looks now and then misses it.
        """
        now = time.monotonic()
        self._unread_since = None if read else now if self._unread_since is None else self._unread_since
        unread = 0.0 if self._unread_since is None else now - self._unread_since
        waiting = 0.0 if oldest is None else max(time.time() - oldest, 0.0)
        self._waited = max(waiting, unread)
        self.reason, self.detail = self._judged(now, waiting, unread, problem)
        HOLDS.labels(source=self.source).set(self.holds)

    def _judged(self, now: float, waiting: float, unread: float, problem: str) -> tuple[str, str]:
        for reason in ("slot_lost", "slot_lagging"):
            if reason in self.found:
                return reason, self.found[reason]
        if problem:
            return "stalled", problem
        if self.sla_seconds and waiting > self.sla_seconds:
            return "stalled", f"a change waits for {waiting:.1f} s"
        if self.sla_seconds and unread > self.sla_seconds:
            return "stalled", f"the source has not been read for {unread:.1f} s"
        if self.sla_seconds and now - self._slow_at < _SLOW_SECONDS:
            return "slow", "a change took longer than was promised"
        return ("drift", self.found["drift"]) if "drift" in self.found else ("", "")
