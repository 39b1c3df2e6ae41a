"""Numbers of records, with the real bus."""

import asyncio

import pytest
from nats.aio.client import Client

from chassis.errors import UnavailableError
from chassis.messaging import connect, decode
from chassis.settings import ServiceSettings
from contracts.subjects import AUDIT
from strata.audit.v1.audit_events_pb2 import StepRecorded
from testkit.nats import NatsServer

AT = AUDIT.at(tenant="acme", step="route")


def _record(name: str) -> StepRecorded:
    return StepRecorded(record_id=name, tenant="acme", step="route")


async def test_records_are_numbered_without_gaps(bus: NatsServer, admin: Client) -> None:
    """A record keeps its number when it is sent again, and one that the stream knew already gives its number to the next."""
    connection = await connect(ServiceSettings(), "orchestrator")
    first = _record("a")
    for record in (first, first, _record("b"), _record("b"), _record("c")):
        await connection.publish(AUDIT, AT, record, event_id=record.record_id)
    await connection.drain()

    js = admin.jetstream()
    stored = [decode(AUDIT, (await js.get_msg("AUDIT", seq=n)).data) for n in range(1, 4)]

    assert [(record.record_id, record.producer_sequence) for record in stored] == [("a", 1), ("b", 2), ("c", 3)]
    assert {record.producer for record in stored} == {connection.producer.name}
    assert connection.producer.name.startswith("orchestrator/")


async def test_a_record_that_was_perhaps_not_stored_keeps_its_number(bus: NatsServer) -> None:
    """Who makes a record anew after the bus did not answer publishes it under the number that it had."""
    connection = await connect(ServiceSettings(nats={"request_timeout_seconds": 0.3}), "orchestrator")
    bus.kill()
    with pytest.raises(UnavailableError, match="did not take"):
        await connection.publish(AUDIT, AT, _record("a"), event_id="a")
    bus.start()
    again, other = _record("a"), _record("b")
    while not connection.client.is_connected:  # noqa: ASYNC110 - the client signals nothing
        await asyncio.sleep(0.05)
    connection.timeout_seconds = 120
    await connection.publish(AUDIT, AT, again, event_id="a")
    await connection.publish(AUDIT, AT, other, event_id="b")
    await connection.drain()

    assert (again.producer_sequence, other.producer_sequence) == (1, 2)
