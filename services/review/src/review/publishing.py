"""Brings facts to the bus, and takes them off a review when the bus has them."""

from chassis.logging import get_logger
from chassis.messaging import Bus
from contracts.subjects import AUDIT, FEEDBACK, REVIEW
from review.store import Store, key_of
from strata.review.v1.review_events_pb2 import Fact, ReviewItem

log = get_logger("publishing")


async def publish(bus: Bus, item: ReviewItem, fact: Fact) -> None:
    """Publish one fact and wait until its stream has it; a repeat is stored once. Raises UnavailableError."""
    about = item.request_id
    if fact.HasField("record"):
        await bus.publish(AUDIT, AUDIT.at(tenant=item.tenant, step=fact.record.step), fact.record, event_id=fact.event_id, about=about)
    elif fact.HasField("decided"):
        at = REVIEW.at(tenant=item.tenant, decision=fact.decided.decision)
        await bus.publish(REVIEW, at, fact.decided, event_id=fact.event_id, about=about)
    else:
        await bus.publish(FEEDBACK, FEEDBACK.at(tenant=item.tenant), fact.example, event_id=fact.event_id, about=about)


async def settle(bus: Bus, store: Store, item: ReviewItem) -> ReviewItem:
    """Publish what a review has to say, in order, and note that it was said; raise UnavailableError to be tried again."""
    if not item.unpublished:
        return item
    for fact in item.unpublished:
        await publish(bus, item, fact)
    done = {fact.event_id for fact in item.unpublished}

    def forget(newest: ReviewItem) -> None:
        left = [fact for fact in newest.unpublished if fact.event_id not in done]
        del newest.unpublished[:]
        newest.unpublished.extend(left)

    return await store.change(key_of(item.tenant, item.request_id), forget)
