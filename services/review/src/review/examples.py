"""Reads back what was published for training."""

from collections.abc import AsyncIterator, Collection

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from chassis.errors import InvalidArgumentError, UnavailableError
from chassis.messaging import Bus, decode
from contracts.subjects import FEEDBACK
from strata.review.v1.review_events_pb2 import ExampleCollected


async def collected(bus: Bus, *, tenant: str, consents: Collection[str]) -> AsyncIterator[ExampleCollected]:
    """Yield examples with one of the consent classes, oldest first and each in its last revision; raise UnavailableError."""
    wanted = FEEDBACK.at(tenant=tenant) if tenant else FEEDBACK.pattern
    newest: dict[tuple[str, str], ExampleCollected] = {}
    sequence = 1
    while True:
        try:
            message = await bus.js.get_msg(FEEDBACK.stream, seq=sequence, subject=wanted, direct=True, next=True)
        except NotFoundError:
            break
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the examples cannot be read: {error!r}") from error
        sequence = (message.seq or sequence) + 1
        try:
            example: ExampleCollected = decode(FEEDBACK, message.data or b"")
        except InvalidArgumentError:
            continue
        key = example.tenant, example.request_id
        if key not in newest or newest[key].revision <= example.revision:
            newest[key] = example
    for example in newest.values():
        if example.consent in consents:
            yield example
