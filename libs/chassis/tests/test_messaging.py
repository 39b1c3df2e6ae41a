"""The bus as services see it, against a real server."""

import asyncio

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from chassis import messaging
from chassis.errors import InvalidArgumentError, UnavailableError
from chassis.messaging import Bus, Consumer, LeaseLostError, connect
from chassis.settings import ServiceSettings
from chassis.tasks import in_time
from contracts.streams import ORCHESTRATOR_INTERACTIVE
from contracts.subjects import ADMITTED, AUDIT, audit_step
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.gateway.v1.gateway_events_pb2 import RequestAdmitted
from testkit.nats import NatsServer

_AT = ADMITTED.at(request_class="interactive", tenant="acme")


class _Settings(ServiceSettings):
    """No settings of its own."""


async def _handled(server: NatsServer, handler, until) -> None:
    """Run a consumer as the orchestrator until the event is set."""
    bus = await connect(_Settings(), "orchestrator")
    consumer = Consumer(bus, ORCHESTRATOR_INTERACTIVE, ADMITTED, handler)
    task = asyncio.create_task(consumer.run())
    await in_time(180, until.wait())
    await consumer.stop(120)
    await task
    await bus.drain()


async def test_a_message_is_handled_once_and_acknowledged(bus: NatsServer, admin: Client) -> None:
    """What the gateway admits reaches the handler, and the work queue is empty afterwards."""
    seen, done = [], asyncio.Event()

    async def handle(message: RequestAdmitted, _: object) -> None:
        seen.append(message.request_id)
        done.set()

    gateway = await connect(_Settings(), "gateway")
    await gateway.publish(ADMITTED, _AT, RequestAdmitted(request_id="r1"), event_id="r1")
    await gateway.publish(ADMITTED, _AT, RequestAdmitted(request_id="r1"), event_id="r1")
    await _handled(bus, handle, done)

    assert seen == ["r1"]
    async with asyncio.timeout(180):
        # The server hears of the last acknowledgement a moment after us.
        while (await admin.jetstream().stream_info("REQUESTS")).state.messages:  # noqa: ASYNC110 - the stream signals nothing
            await asyncio.sleep(0.02)
    await gateway.drain()


async def test_a_message_is_handled_at_once_though_more_could_come(bus: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A free worker gets the first message without waiting for a batch to fill."""
    monkeypatch.setattr(messaging, "_PULL_SECONDS", 600.0)
    seen: list[str] = []
    done, gateway = asyncio.Event(), await connect(_Settings(), "gateway")

    async def handle(message: RequestAdmitted, _: object) -> None:
        seen.append(message.request_id)
        done.set()

    reader = await connect(_Settings(), "orchestrator")
    consumer = Consumer(reader, ORCHESTRATOR_INTERACTIVE, ADMITTED, handler=handle, workers=64)
    task = asyncio.create_task(consumer.run())
    await asyncio.sleep(0.2)
    await gateway.publish(ADMITTED, _AT, RequestAdmitted(request_id="r1"))
    await in_time(180, done.wait())

    await consumer.stop(120)
    await task
    assert seen == ["r1"]
    await reader.drain()
    await gateway.drain()


async def test_a_lost_lease_is_neither_acknowledged_nor_handed_back(bus: NatsServer, admin: Client) -> None:
    """Who lost a message to another owner leaves it alone, so that the bus still protects the new owner."""
    tries, done = [], asyncio.Event()

    async def handle(_: RequestAdmitted, message: Msg) -> None:
        tries.append(message.metadata.num_delivered)
        if len(tries) == 1:
            raise LeaseLostError
        done.set()

    gateway = await connect(_Settings(), "gateway")
    await gateway.publish(ADMITTED, _AT, RequestAdmitted(request_id="r1"))
    started = asyncio.get_running_loop().time()
    await _handled(bus, handle, done)

    assert tries == [1, 2]
    assert asyncio.get_running_loop().time() - started > ORCHESTRATOR_INTERACTIVE.ack_wait_seconds - 0.5
    await gateway.drain()


async def test_a_retryable_error_is_tried_again(bus: NatsServer) -> None:
    """A dependency that is away for a moment costs a delay and no message."""
    tries, done = [], asyncio.Event()

    async def handle(message: RequestAdmitted, _: object) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise UnavailableError("away")
        done.set()

    gateway = await connect(_Settings(), "gateway")
    await gateway.publish(ADMITTED, _AT, RequestAdmitted(request_id="r1"))
    await _handled(bus, handle, done)

    assert len(tries) == 3
    await gateway.drain()


async def test_a_poison_message_ends_as_a_dead_letter_with_its_error(bus: NatsServer, admin: Client) -> None:
    """What can never succeed is kept on the dead stream with the reason."""
    done = asyncio.Event()

    async def handle(message: RequestAdmitted, _: object) -> None:
        done.set()
        raise InvalidArgumentError("field x is wrong", code="invalid_request")

    gateway = await connect(_Settings(), "gateway")
    await gateway.publish(ADMITTED, _AT, RequestAdmitted(request_id="r1"))
    await _handled(bus, handle, done)

    letter = await admin.jetstream().get_last_msg("DEAD", "strata.v1.dead.REQUESTS")
    assert letter.headers is not None
    assert letter.headers["strata-error-code"] == "invalid_request"
    assert RequestAdmitted.FromString(letter.data or b"").request_id == "r1"
    await gateway.drain()


async def test_a_service_cannot_publish_what_is_not_its_own(bus: NatsServer) -> None:
    """The router may not admit requests nor write the audit."""
    router = await connect(_Settings(nats={"request_timeout_seconds": 0.5}), "router")

    with pytest.raises(UnavailableError):
        await router.publish(ADMITTED, _AT, RequestAdmitted(request_id="r1"))
    with pytest.raises(UnavailableError):
        await router.publish(AUDIT, AUDIT.at(tenant="acme", step="route"), StepRecorded(record_id="x"))
    await router.drain()


async def test_a_service_records_its_own_steps_alone(bus: NatsServer) -> None:
    """What another service has done, and what belongs to the installation, cannot be claimed by any other."""
    webhooks, guardrail, orchestrator = [await connect(_Settings(), name) for name in ("webhooks", "guardrail", "orchestrator")]

    async def record(service: Bus, tenant: str, step: str) -> None:
        await service.publish(AUDIT, AUDIT.at(tenant=tenant, step=step), StepRecorded(tenant=tenant, step=step))

    await record(webhooks, "acme", "webhook")
    await record(guardrail, "system", "policy_changed")
    for step in ("response", "tool", "escalate"):
        await record(orchestrator, "acme", audit_step(step, "orchestrator"))
    for one in (webhooks, guardrail, orchestrator):
        # What is not allowed has no answer.
        one.timeout_seconds = 0.3
    for service, tenant, step in (
        (webhooks, "acme", "response"),
        (webhooks, "acme", "erasure"),
        (guardrail, "acme", "policy_changed"),
        (guardrail, "acme", audit_step("escalate", "orchestrator")),
        (orchestrator, "acme", "response"),
        (orchestrator, "acme", "tool"),
        (orchestrator, "system", "policy_changed"),
    ):
        with pytest.raises(UnavailableError):
            await record(service, tenant, step)
    for one in (webhooks, guardrail, orchestrator):
        await one.drain()


async def test_who_reads_a_stream_cannot_touch_its_consumers(bus: NatsServer, admin: Client) -> None:
    """The gateway reads responses; it neither deletes nor drains the durable by which webhooks learn of them, nor makes one."""
    gateway = await connect(_Settings(nats={"request_timeout_seconds": 0.3}), "gateway")
    api = "$JS.API.CONSUMER"
    for call in (
        f"{api}.DELETE.RESPONSES.webhooks-responses",
        f"{api}.MSG.NEXT.RESPONSES.webhooks-responses",
        f"{api}.CREATE.RESPONSES.mine",
    ):
        with pytest.raises(TimeoutError):
            await gateway.client.request(call, b"{}", timeout=0.3)

    assert (await admin.jetstream().consumer_info("RESPONSES", "webhooks-responses")).name == "webhooks-responses"
    await gateway.drain()
