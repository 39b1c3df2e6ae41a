"""Tells everybody what was applied, once for each commit, and records it; what nobody could handle becomes a dead letter."""

from itertools import accumulate

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from nats.errors import Error as NatsError
from nats.js.errors import APIError, NoStreamResponseError

from chassis.errors import UnavailableError
from chassis.messaging import Bus
from contracts.subjects import APPLIED, AUDIT, CDC_STREAM, FRESHNESS, dead
from ingestor.cdc.freshness import Freshness
from ingestor.cdc.groups import Group, Letter
from ingestor.cdc.rows import Outgoing, Rows
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.ingestor.v1.ingestor_events_pb2 import FreshnessChanged, KnowledgeApplied

# Changes of sources serve all tenants and are recorded under the operator's own.
OPERATOR = "strata"
_NAMED, _NAMED_CHARACTERS = 1000, 100_000
_HEADER_BYTES = 8 * 1024


class OutboxReporter:
    """Notes events, records and dead letters in the ledger, in the transaction that they are about."""

    def __init__(self, rows: Rows) -> None:
        """Write to `rows`."""
        self._rows = rows

    def report(self, group: Group, stream: str, sequence: int) -> None:
        """Note what has to be published about a group; the same group again carries the same identifiers."""
        for source in sorted(group.changes):
            name = f"{source}/{stream}/{sequence}"
            event = _applied(source, group)
            self._rows.send("applied", APPLIED.at(source=source), f"applied/{name}", event.SerializeToString())
            record = _record(f"audit/applied/{name}", "succeeded", "", _summary(source, group, event))
            self._send_record(record)
        for letter in group.letters:
            self._bury(letter, stream)

    def _bury(self, letter: Letter, stream: str) -> None:
        message, error = letter.message, letter.error
        text = " ".join(str(error).split())[:500].encode("ascii", "backslashreplace").decode()
        headers = {
            **message.headers,
            "Nats-Msg-Id": f"dead/{stream}/{message.sequence}",
            "strata-error-code": error.code,
            "strata-error": text,
            "strata-subject": message.subject,
            "strata-stream-sequence": str(message.sequence),
        }
        self._rows.send("dead", dead(CDC_STREAM), headers["Nats-Msg-Id"], message.data, headers)
        details = {"source": letter.source, "subject": message.subject, "sequence": message.sequence, "message": text}
        self._send_record(_record(f"audit/dead/{stream}/{message.sequence}", "rejected", error.code, details))

    def _send_record(self, record: StepRecorded) -> None:
        subject = AUDIT.at(tenant=record.tenant, step=record.step)
        self._rows.send("audit", subject, record.record_id, record.SerializeToString())


async def publish(bus: Bus, outgoing: Outgoing) -> None:
    """Publish one entry of the outbox; raise UnavailableError when the bus does not take it."""
    if outgoing.kind == "dead":
        # With its headers a letter may be larger than the message was, which the bus took.
        room = bus.client.max_payload - _HEADER_BYTES
        headers = outgoing.headers | ({"strata-truncated": str(len(outgoing.body))} if len(outgoing.body) > room else {})
        try:
            await bus.js.publish(outgoing.subject, outgoing.body[:room], headers=headers, stream="DEAD", timeout=bus.timeout_seconds)
        except (TimeoutError, NatsError, NoStreamResponseError, APIError) as error:
            raise UnavailableError(f"the bus did not take {outgoing.subject!r}: {error!r}") from error
        return
    subject = APPLIED if outgoing.kind == "applied" else AUDIT
    await bus.publish(subject, outgoing.subject, subject.message.FromString(outgoing.body), event_id=outgoing.message_id)


async def announce_freshness(bus: Bus, fresh: Freshness) -> None:
    """Say that a source ceases to hold its promise, why that is so now, or that it holds again."""
    event = FreshnessChanged(
        source=fresh.source,
        holds=fresh.holds,
        sla_seconds=fresh.sla_seconds,
        lag_seconds=fresh.now_seconds,
        reason=fresh.reason or "recovered",
        detail=fresh.detail,
    )
    event.at.GetCurrentTime()
    await bus.publish(FRESHNESS, FRESHNESS.template, event, about=fresh.source)


def _applied(source: str, group: Group) -> KnowledgeApplied:
    changes, applied = group.changes[source], group.applied
    of_source = group.collections.get(source, set())
    places = [change.position for change in changes]
    upserted, removed = group.upserted.get(source, []), group.removed.get(source, [])
    event = KnowledgeApplied(
        source=source,
        first_position=max(min(places), 0),
        last_position=max(group.settled.get(source, 0), 0) or max(places),
        upserted=_first(upserted),
        deleted=_first(removed),
        upserted_count=len(upserted),
        deleted_count=len(removed),
        index_version=applied.index_version,
        collections=sorted(of_source),
    )
    event.committed_at.CopyFrom(_time(max(change.committed_ms for change in changes)))
    event.searchable_at.GetCurrentTime()
    return event


def _first(names: list[str]) -> list[str]:
    """Return as many names as an event has room for."""
    lengths = accumulate(len(name) for name in names)
    return [name for name, length in zip(names[:_NAMED], lengths, strict=False) if length <= _NAMED_CHARACTERS]


def _time(milliseconds: int) -> Timestamp:
    value = Timestamp()
    value.FromMilliseconds(max(milliseconds, 0))
    return value


def _summary(source: str, group: Group, event: KnowledgeApplied) -> dict[str, object]:
    ops = [change.op for change in group.changes[source]]
    return {
        "source": source,
        "collections": list(event.collections),
        "changes": len(ops),
        "deletions": ops.count("d"),
        "upserted": event.upserted_count,
        "deleted": event.deleted_count,
        "first_position": event.first_position,
        "last_position": event.last_position,
        "index_version": event.index_version,
    }


def _record(name: str, outcome: str, code: str, details: dict[str, object]) -> StepRecorded:
    struct = Struct()
    struct.update(details)  # type: ignore[arg-type] # plain JSON values
    record = StepRecorded(
        record_id=name, tenant=OPERATOR, service="ingestor", step="knowledge", attempt=1, outcome=outcome, code=code, details=struct
    )
    record.started_at.GetCurrentTime()
    return record
