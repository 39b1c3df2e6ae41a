"""Brings facts to the bus, and takes them off a review when the bus has them."""

from nats.errors import Error as NatsError
from nats.js.api import PubAck
from nats.js.errors import Error as JetStreamError

from chassis.errors import NotFoundError, UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus
from contracts.subjects import AUDIT, FEEDBACK, REVIEW
from review.store import Store, key_of
from strata.review.v1.review_events_pb2 import Fact, ReviewItem

log = get_logger("publishing")


async def publish(bus: Bus, item: ReviewItem, fact: Fact) -> PubAck:
    """Publish one fact and return where its stream has it; a repeat is stored once. Raises UnavailableError."""
    about = item.request_id
    if fact.HasField("record"):
        at = AUDIT.at(tenant=item.tenant, step=fact.record.step)
        return await bus.publish(AUDIT, at, fact.record, event_id=fact.event_id, about=about)
    if fact.HasField("decided"):
        at = REVIEW.at(tenant=item.tenant, decision=fact.decided.decision)
        return await bus.publish(REVIEW, at, fact.decided, event_id=fact.event_id, about=about)
    return await bus.publish(FEEDBACK, FEEDBACK.at(tenant=item.tenant), fact.example, event_id=fact.event_id, about=about)


async def settle(bus: Bus, store: Store, item: ReviewItem) -> ReviewItem:
    """Publish what a review has to say, in order, and note that it was said; raise UnavailableError to be tried again."""
    if not item.unpublished:
        return item
    published = [(fact, await publish(bus, item, fact)) for fact in item.unpublished]
    done = {fact.event_id for fact in item.unpublished}

    def forget(newest: ReviewItem) -> None:
        left = [fact for fact in newest.unpublished if fact.event_id not in done]
        del newest.unpublished[:]
        newest.unpublished.extend(left)

    try:
        return await store.change(key_of(item.tenant, item.request_id), forget)
    except NotFoundError:
        # The person was erased meanwhile, or the review is too old to be kept.
        for fact, ack in published:
            if fact.HasField("example"):
                await _take_back(bus, ack.seq)
        raise


async def _take_back(bus: Bus, sequence: int) -> None:
    try:
        await bus.js.delete_msg(FEEDBACK.stream, sequence)
    except (TimeoutError, NatsError, JetStreamError) as error:
        raise UnavailableError(f"the example {sequence} cannot be removed: {error!r}") from error
