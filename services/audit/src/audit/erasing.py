"""Who else keeps what an erased person said: what the log knows of it, orders to forget it, and how far those are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from audit.disclosing import Entry, entries
from audit.ledger import Ledger
from audit.terms import USER, user_subject
from chassis.erasing import step_of
from chassis.messaging import Bus
from contracts.subjects import ERASURE, TOKEN
from strata.audit.v1.audit_events_pb2 import ErasedRequest, ErasureOrdered

_OF_REQUESTS, _OF_SESSIONS = ("orchestrator", "review"), "guardrail"
_MOST_IN_ORDER = 500
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Traces:
    """What records say of a person: requests, each with the moment until which it may run or None, sessions, and subjects of keys."""

    requests: Mapping[str, datetime | None] = field(default_factory=dict)
    sessions: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()

    def is_beyond(self, known: "Traces") -> bool:
        """Return whether there is anything that is not known yet and that somebody may keep something of."""
        return bool(self.requests.keys() - known.requests.keys() or self.sessions - known.sessions)

    def beyond(self, known: "Traces") -> "Traces":
        """Return the requests and sessions that are not known yet."""
        requests = {name: until for name, until in self.requests.items() if name not in known.requests}
        return Traces(requests, self.sessions - known.sessions)

    def with_(self, more: "Traces") -> "Traces":
        """Return this and more."""
        return Traces({**self.requests, **more.requests}, self.sessions | more.sessions, self.subjects | more.subjects)


def traces(ledger: Ledger, tenant: str, user: str, known: Traces, *, open_seconds: float) -> Traces:
    """Return what the log knows of a user beside requests that are `known` and over; one without an end may run for `open_seconds`."""
    token = ledger.vault.token(tenant, user_subject(user))
    query = "SELECT DISTINCT request_id FROM terms WHERE tenant = ? AND kind = ? AND value = ? AND request_id IS NOT NULL"
    requests: dict[str, datetime | None] = {}
    sessions, subjects = set[str](), set[str]()
    over = {name for name, until in known.requests.items() if until is None}
    for (name,) in ledger.view.rows(query, (tenant, USER, token)):
        if name in over:
            continue
        found = entries(ledger, ledger.view.trace(name))
        requests[name] = _open_until([entry for entry in found if entry.leaf.header.get("tenant") == tenant], open_seconds)
        # Not every service knows the user, and then seals under the session or the request.
        subjects.add(f"request/{name}")
        for record in (entry.record for entry in found if entry.record):
            if record.get("session_id") and record.get("tenant") == tenant and record.get("user") in {None, "", user}:
                sessions.add(str(record["session_id"]))
                if not record.get("user"):
                    subjects.add(f"session/{record['session_id']}")
    return Traces(requests, frozenset(sessions), frozenset(subjects))


def _open_until(found: list[Entry], open_seconds: float) -> datetime | None:
    headers = [entry.leaf.header for entry in found]
    # A window that the gateway refused is no end.
    if any(one.get("step") == "release" or (one.get("step") == "response" and one.get("code") != "release_invalid") for one in headers):
        return None
    admitted = [one["stored_at"] for one in headers if (one.get("step"), one.get("outcome")) == ("request", "succeeded")]
    until = datetime.fromisoformat(max(admitted)) + timedelta(seconds=open_seconds) if admitted else None
    return until if until is not None and until > datetime.now(UTC) else None


class Orders:
    """The orders of one erasure."""

    def __init__(self, bus: Bus, erasure_id: str, tenant: str, user: str) -> None:
        """Order nothing yet."""
        self._bus, self._id, self._tenant, self._user = bus, erasure_id, tenant, user
        self.sent: dict[str, int] = {}

    async def send(self, found: Traces) -> None:
        """Order all holders to forget; the bus keeps each order until its holder has, raise UnavailableError where it does not take one."""
        for order in self._orders(found):
            order.part = self.sent.get(order.holder, 0) + 1
            subject = ERASURE.at(tenant=self._tenant, holder=order.holder)
            await self._bus.publish(ERASURE, subject, order, event_id=f"{self._id}/{order.holder}/{order.part}")
            self.sent[order.holder] = order.part

    def _orders(self, found: Traces) -> Iterator[ErasureOrdered]:
        # What no bus could carry as a name is no request that anybody keeps.
        requests = [_request(name, until) for name, until in sorted(found.requests.items()) if TOKEN.fullmatch(name)]
        for part in _parts(requests):
            for holder in _OF_REQUESTS:
                yield ErasureOrdered(erasure_id=self._id, tenant=self._tenant, holder=holder, requests=part)
        latest = max((until for until in found.requests.values() if until is not None), default=None)
        for names in _parts(sorted(found.sessions)):
            order = ErasureOrdered(erasure_id=self._id, tenant=self._tenant, holder=_OF_SESSIONS, user=self._user, session_ids=names)
            if latest is not None:
                order.open_until.FromDatetime(latest)
            yield order


def _parts(values: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(values), _MOST_IN_ORDER):
        yield values[start : start + _MOST_IN_ORDER]


def _request(name: str, until: datetime | None) -> ErasedRequest:
    request = ErasedRequest(request_id=name)
    if until is not None:
        request.open_until.FromDatetime(until)
    return request


def carried_out(ledger: Ledger, tenant: str, erasure_id: str, holder: str) -> int:
    """Return how many orders of a holder are on record as carried out; nobody but the holder may put that on record."""
    query = "SELECT count(DISTINCT record_id) FROM records WHERE record_id >= ? AND record_id < ? AND tenant = ? AND step = ?"
    prefix = f"{erasure_id}/{holder}"
    # What follows '/' is '0'.
    return int(ledger.view.rows(query, (f"{prefix}/", f"{prefix}0", tenant, step_of(holder)))[0][0])
